package localkms_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/localkms"
)

// TestMergeBackups: two backups, neither of which has everything, save a service that no
// process knows any more.
func TestMergeBackups(t *testing.T) {
	ctx, one := t.Context(), open(t, nil, nil)
	id := one.key()
	base := one.Document()
	two := open(t, nil, func(o *localkms.Options) { o.Now = one.clock.Now })
	copyOf := func(document []byte) *service {
		store := keyring.NewMemStore()
		_, err := store.Swap(ctx, "", document)
		require.NoError(t, err)
		return open(t, store, func(o *localkms.Options) { o.Now = one.clock.Now })
	}
	foreign := two.Document()
	two = copyOf(base)
	_, err := one.RotateKey(ctx, id)
	require.NoError(t, err)
	ciphertext := one.encrypt(id, "x", nil)
	made := two.key()
	require.NoError(t, two.DisableKey(ctx, id))

	s := copyOf(base)
	require.NoError(t, s.Merge(ctx, one.Document()))
	s.decrypts(ciphertext, "x", nil)
	require.NoError(t, s.Merge(ctx, two.Document()))
	require.Equal(t, localkms.Disabled, s.describe(id).State)
	require.Equal(t, 2, s.describe(id).Rotation.Versions)
	s.describe(made)

	generation := s.Stats().Generation
	for _, document := range [][]byte{base, one.Document(), two.Document(), s.Document()} {
		require.NoError(t, s.Merge(ctx, document))
	}
	require.Equal(t, generation, s.Stats().Generation, "nothing is new")
	require.ErrorIs(t, s.Merge(ctx, foreign), keyring.ErrOtherRing)
	require.ErrorIs(t, s.Merge(ctx, base[:len(base)-1]), keyring.ErrDamaged)
	elsewhere := copyOf(base)
	require.NoError(t, elsewhere.ChangeRoot(ctx, keyRoot(t, 2)))
	require.ErrorIs(t, s.Merge(ctx, elsewhere.Document()), keyring.ErrRoot)
	require.NoError(t, s.EnableKey(ctx, id))
	s.decrypts(ciphertext, "x", nil)
	_, err = s.DescribeKey(ctx, id)
	require.NotErrorIs(t, err, kms.ErrNotFound)
}
