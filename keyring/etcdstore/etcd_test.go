package etcdstore_test

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/blobseal/blobseal/internal/testbed/freeport"
)

// etcd is a server of a test's own: a cluster of one.
type etcd struct {
	t             testing.TB
	dir           string
	client, peers int // ports
	cmd           *exec.Cmd
	log           *bytes.Buffer
}

// startEtcd starts a server, which ends with the test.
func startEtcd(t testing.TB) *etcd {
	t.Helper()
	if _, err := exec.LookPath("etcd"); err != nil {
		t.Skip("no etcd: apt-get install etcd-server")
	}
	e := &etcd{t: t, dir: t.TempDir(), client: freeport.Get(t), peers: freeport.Get(t)}
	e.start()
	t.Cleanup(e.kill)
	return e
}

func (e *etcd) start() {
	e.t.Helper()
	client, peers := fmt.Sprintf("http://127.0.0.1:%d", e.client), fmt.Sprintf("http://127.0.0.1:%d", e.peers)
	e.cmd = exec.Command("etcd", "--name", "test", "--data-dir", filepath.Join(e.dir, "data"),
		"--listen-client-urls", client, "--advertise-client-urls", client,
		"--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers, "--initial-cluster", "test="+peers)
	e.log = new(bytes.Buffer)
	e.cmd.Stderr = e.log
	require.NoError(e.t, e.cmd.Start())
	c := e.connect(e.t, e.address())
	deadline := time.Now().Add(2 * time.Minute)
	for {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		_, err := c.Get(ctx, "x")
		cancel()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			e.kill()
			require.NoError(e.t, err, "etcd does not answer: %s", e.log)
		}
	}
}

// kill ends the server as a crash would.
func (e *etcd) kill() {
	e.cmd.Process.Signal(syscall.SIGKILL)
	e.cmd.Wait()
}

func (e *etcd) address() string { return fmt.Sprintf("127.0.0.1:%d", e.client) }

func (e *etcd) connect(t testing.TB, address string) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{address}, DialTimeout: 5 * time.Second, Logger: zap.NewNop()})
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}
