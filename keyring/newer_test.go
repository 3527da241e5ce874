package keyring_test

import (
	"context"
	"crypto/sha256"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/keyring"
)

// newerDocument returns a document as a release with the next format would write it: after
// the version, this release may not know anything.
func newerDocument(data []byte) []byte {
	const magic = "\x89KRG\r\n\x1a\n"
	newer := append([]byte(magic+"\x03"), data[len(magic)+1:len(data)-sha256.Size]...)
	sum := sha256.Sum256(newer)
	return append(newer, sum[:]...)
}

// TestNewerDocument: a process of this release that meets a document of a newer one
// rejects its version in every operation, and does not change the document.
// A running process keeps the versions that it has.
func TestNewerDocument(t *testing.T) {
	store := keyring.NewMemStore()
	ring := create(t, store, nil)
	id := primary(t, ring)
	old := document(t, store)
	newer := newerDocument(old)
	overwrite(t, store, newer)

	open := func(root keyring.Root) error {
		_, err := keyring.Open(t.Context(), store, root, nil)
		return err
	}
	for name, do := range map[string]func(ctx context.Context) error{
		"Open":                 func(context.Context) error { return open(keyRoot(t, 1)) },
		"Open with other root": func(context.Context) error { return open(keyRoot(t, 2)) },
		"Refresh":              ring.Refresh,
		"Rotate":               func(ctx context.Context) error { _, err := ring.Rotate(ctx); return err },
		"SetState": func(ctx context.Context) error {
			_, err := ring.SetState(ctx, id, keyring.Disabled)
			return err
		},
		"SetPeriod":  func(ctx context.Context) error { return ring.SetPeriod(ctx, time.Hour) },
		"ChangeRoot": func(ctx context.Context) error { return ring.ChangeRoot(ctx, keyRoot(t, 2)) },
		"Merge":      func(ctx context.Context) error { return ring.Merge(ctx, newer) },
		"Merge of its own format": func(ctx context.Context) error {
			return ring.Merge(ctx, old)
		},
	} {
		require.ErrorIs(t, do(t.Context()), keyring.ErrVersion, name)
		require.Equal(t, newer, document(t, store), name)
	}

	key, err := ring.Key(t.Context(), id)
	require.NoError(t, err, "a running process goes on")
	require.Equal(t, id, key.ID())
	require.Equal(t, id, primary(t, ring))
	_, err = keyring.Create(t.Context(), store, keyRoot(t, 1), nil)
	require.Error(t, err)
	require.Equal(t, newer, document(t, store))
}
