package localkms_test

import (
	"context"
	"crypto/sha256"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms/localkms"
)

// TestNewerDocument: a process of this release that meets a document of a newer one
// rejects its version, whatever it was asked for, and leaves the document as it is.
// A running process keeps the keys that it has.
func TestNewerDocument(t *testing.T) {
	s := open(t, nil, nil)
	id := s.key()
	sealed := s.encrypt(id, "text", nil)
	data, version, err := s.store.Load(t.Context())
	require.NoError(t, err)
	newer := append(append(data[:magicSize:magicSize], 3), data[magicSize+1:len(data)-sha256.Size]...)
	sum := sha256.Sum256(newer)
	newer = append(newer, sum[:]...)
	_, err = s.store.Swap(t.Context(), version, newer)
	require.NoError(t, err)

	for name, do := range map[string]func(ctx context.Context) error{
		"Open": func(ctx context.Context) error {
			_, err := localkms.Open(ctx, s.store, keyRoot(t, 1), &s.opts)
			return err
		},
		"Refresh": s.Refresh,
		"CreateKey": func(ctx context.Context) error {
			_, err := s.CreateKey(ctx, nil)
			return err
		},
		"RotateKey":   func(ctx context.Context) error { _, err := s.RotateKey(ctx, id); return err },
		"DisableKey":  func(ctx context.Context) error { return s.DisableKey(ctx, id) },
		"CreateAlias": func(ctx context.Context) error { return s.CreateAlias(ctx, "alias/new", id) },
	} {
		require.ErrorIs(t, do(t.Context()), keyring.ErrVersion, name)
		now, _, err := s.store.Load(t.Context())
		require.NoError(t, err)
		require.Equal(t, newer, now, name)
	}
	s.decrypts(sealed, "text", nil)
}

// magicSize is the length of a document's magic, which the version follows.
const magicSize = 8
