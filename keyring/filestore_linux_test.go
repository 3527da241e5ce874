package keyring_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/keyring"
)

// A pipe in the place of the file is refused. Opening it would wait for a writer for ever.
func TestFileStoreMeetsPipes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ring")
	store := fileStore(t, path)
	ring := create(t, store, nil)
	require.NoError(t, os.Remove(path+".lock"))
	require.NoError(t, syscall.Mkfifo(path+".lock", 0o600))
	_, err := ring.Rotate(t.Context())
	require.ErrorIs(t, err, keyring.ErrStore)
	require.ErrorContains(t, err, "ring.lock is not a regular file")
	require.NoError(t, os.Remove(path+".lock"))
	rotate(t, ring)

	require.NoError(t, os.Remove(path))
	require.NoError(t, syscall.Mkfifo(path, 0o600))
	err = ring.Refresh(t.Context())
	require.ErrorContains(t, err, "ring is not a regular file")
	require.NotErrorIs(t, err, keyring.ErrNotExist)
}
