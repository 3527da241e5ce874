package etcdauth

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/internal/testbed/await"
	"github.com/blobseal/blobseal/internal/testbed/doccommands"
	"github.com/blobseal/blobseal/keyring"
)

// buildTools builds etcdctl and etcdutl, and returns their directory.
func buildTools(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-o", dir, "go.etcd.io/etcd/etcdctl/v3", "go.etcd.io/etcd/etcdutl/v3")
	build.Env = append(os.Environ(), "GOWORK=off")
	out, err := build.CombinedOutput()
	require.NoError(t, err, "%s", out)
	return dir
}

// TestRestoreEtcd runs the commands of OPERATIONS.md that copy and restore etcd. A running
// process puts back the version that the snapshot lacks, and its watch hears of later
// changes: it does not wait for the revision that the cluster had before.
func TestRestoreEtcd(t *testing.T) {
	commands := doccommands.Commands(t, "../../../keyring/OPERATIONS.md", "`etcdauth.TestRestoreEtcd`")
	copying, restoring, found := strings.Cut(commands, "\n")
	require.True(t, found, "%s: two commands", commands)
	s := startServer(t)
	env := []string{
		"PATH=" + buildTools(t) + string(os.PathListSeparator) + os.Getenv("PATH"),
		fmt.Sprintf("ETCDCTL_ENDPOINTS=https://127.0.0.1:%d", s.client), "ETCDCTL_CACERT=" + s.path("cert.pem"), "ETCDCTL_USER=root:" + password,
	}
	root, err := keyring.NewKeyRoot(bytes.Repeat([]byte{1}, 32))
	require.NoError(t, err)
	opts := &keyring.Options{Logger: slog.New(slog.DiscardHandler), RefreshInterval: 24 * time.Hour} // the watch has to hear of it
	ring, err := keyring.Create(t.Context(), open(t, s, "blobs", "/blobs/ring"), root, opts)
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- ring.Run(ctx) }()
	copied, err := ring.Rotate(t.Context())
	require.NoError(t, err)
	doccommands.Run(t, s.dir, env, copying)
	lost, err := ring.Rotate(t.Context())
	require.NoError(t, err)

	st := open(t, s, "blobs", "/blobs/ring")
	for range 100 { // far beyond the snapshot's revision
		_, err := st.client.Put(t.Context(), "/blobs/elsewhere", "x")
		require.NoError(t, err)
	}

	s.etcd.Close()
	doccommands.Run(t, s.dir, env, restoring)
	require.NoError(t, os.Rename(s.path("data"), s.path("old")))
	require.NoError(t, os.Rename(s.path("new.etcd"), s.path("data")))
	s.start()

	st = open(t, s, "blobs", "/blobs/ring")
	require.Eventually(t, func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		fresh, err := keyring.Open(ctx, st, root, opts)
		if err != nil {
			return false
		}
		_, err = fresh.Key(ctx, copied.ID)
		require.NoError(t, err, "the snapshot has what was acknowledged before it")
		_, err = fresh.Key(ctx, lost.ID)
		return err == nil
	}, patience, 200*time.Millisecond, "the running process puts back what the snapshot lacks")

	other, err := keyring.Open(t.Context(), st, root, opts)
	require.NoError(t, err)
	_, err = other.Rotate(t.Context())
	require.NoError(t, err)
	require.Eventually(t, func() bool { return ring.Stats().Generation == other.Stats().Generation }, patience, 10*time.Millisecond,
		"the watch hears of a change after the restore")
	stop()
	require.ErrorIs(t, await.Value(t, ended, "Run to end"), context.Canceled)
}
