//go:build unix

package audit_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/kms/audit"
)

// Root writes to the trail of a service, and begins a new file: the service, which is
// another user, can still write to the file and to its lock.
func TestTrailStaysItsOwners(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can make files of other users")
	}
	const nobody = 65534
	dir := t.TempDir()
	path := filepath.Join(dir, "audit.jsonl")
	write := func(maxSize int64) {
		sink, err := audit.OpenFileSink(path, &audit.FileSinkOptions{MaxSize: maxSize})
		require.NoError(t, err)
		for range 10 {
			require.NoError(t, sink.Write(t.Context(), audit.Record{EventID: "e", Outcome: "success"}))
		}
		require.NoError(t, sink.Close())
	}
	write(1 << 20)
	require.NoError(t, os.Chown(path, nobody, nobody))
	require.NoError(t, os.Chmod(path, 0o640))
	require.NoError(t, os.Remove(path+".lock"))
	write(1000)
	require.FileExists(t, path+".000001")
	for _, name := range []string{path, path + ".lock"} {
		info, err := os.Stat(name)
		require.NoError(t, err)
		require.EqualValues(t, nobody, info.Sys().(*syscall.Stat_t).Uid, name)
		require.EqualValues(t, 0o640, info.Mode().Perm(), name)
	}
}
