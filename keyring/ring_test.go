package keyring_test

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/blobseal/blobseal/keyring"
)

// keyRoot returns a root whose key is 32 times b.
func keyRoot(t testing.TB, b byte) tink.AEADWithContext {
	t.Helper()
	root, err := keyring.NewKeyRoot(bytes.Repeat([]byte{b}, 32))
	require.NoError(t, err)
	return root
}

func TestRotatedRingOpensBothVersions(t *testing.T) {
	ctx := t.Context()
	store := keyring.NewMemStore()
	ring, err := keyring.Open(ctx, store, keyRoot(t, 1), &keyring.Options{Create: true})
	require.NoError(t, err)
	old, err := ring.Primary(ctx)
	require.NoError(t, err)
	sealed, err := old.Seal([]byte("data key"), []byte("context"))
	require.NoError(t, err)

	info, err := ring.Rotate(ctx)
	require.NoError(t, err)
	primary, err := ring.Primary(ctx)
	require.NoError(t, err)
	require.Equal(t, info.ID, primary.ID())
	require.NotEqual(t, old.ID(), primary.ID())

	again, err := keyring.Open(ctx, store, keyRoot(t, 1), nil)
	require.NoError(t, err)
	require.Equal(t, ring.Keys(), again.Keys())
	key, err := again.Key(ctx, old.ID())
	require.NoError(t, err)
	opened, err := key.Open(sealed, []byte("context"))
	require.NoError(t, err)
	require.Equal(t, "data key", string(opened))
}
