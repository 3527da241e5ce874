package keyring_test

import (
	"context"
	"errors"
	"fmt"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/internal/testbed/program"
	"github.com/blobseal/blobseal/keyring"
)

// rotateOnFullDisk fails to rotate, since no file may grow beyond 100 bytes.
func rotateOnFullDisk(ctx context.Context, store keyring.Store) error {
	ring, err := keyring.Open(ctx, store, childRoot(1), nil)
	if err != nil {
		return err
	}
	signal.Ignore(syscall.SIGXFSZ)
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: 100, Max: 100}); err != nil {
		return err
	}
	_, err = ring.Rotate(ctx)
	if !errors.Is(err, keyring.ErrStore) || !errors.Is(err, syscall.EFBIG) {
		return fmt.Errorf("want an error of the store for a file that is too large, got %w", err)
	}
	return ring.Refresh(ctx)
}

func TestFileStoreOnAFullDisk(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "ring")
	store := fileStore(t, path)
	create(t, store, nil)
	before := document(t, store)
	child := program.Start(t, "full", path)
	require.False(t, child.Stdout.Scan())
	require.NoError(t, child.Wait(), "%s", child.Stderr)
	require.Equal(t, before, document(t, store))
	require.ElementsMatch(t, []string{"ring", "ring.lock"}, names(t, dir), "nothing is left behind")
	rotate(t, reopen(t, store))
}
