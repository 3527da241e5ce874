package keyring_test

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/argon2"

	"github.com/blobseal/blobseal/internal/chunked"
	"github.com/blobseal/blobseal/keyring"
)

// cheap are the weakest costs that are allowed.
var cheap = &keyring.PassphraseParams{Time: 2, Memory: 19 << 10, Threads: 1}

const passphraseHeader = 26

func passphraseRoot(t testing.TB, passphrase string) *countedRoot {
	root, err := keyring.NewPassphraseRoot([]byte(passphrase), cheap)
	require.NoError(t, err)
	return &countedRoot{root}
}

func TestPassphraseRoot(t *testing.T) {
	testRoot(t, passphraseRoot(t, "one").AEADWithContext, passphraseRoot(t, "two").AEADWithContext, passphraseHeader)

	_, err := keyring.NewPassphraseRoot(nil, nil)
	require.Error(t, err)
	_, err = keyring.NewPassphraseRoot([]byte{}, cheap)
	require.Error(t, err)

	passphrase := []byte("one")
	root, err := keyring.NewPassphraseRoot(passphrase, cheap)
	require.NoError(t, err)
	clear(passphrase)
	sealed, err := root.EncryptWithContext(t.Context(), []byte("x"), nil)
	require.NoError(t, err)
	_, err = passphraseRoot(t, "one").DecryptWithContext(t.Context(), sealed, nil)
	require.NoError(t, err, "the passphrase was copied")
}

// The layout, written out by hand.
func TestPassphraseLayout(t *testing.T) {
	sealed, err := passphraseRoot(t, "one").EncryptWithContext(t.Context(), []byte("x"), []byte("ad"))
	require.NoError(t, err)
	salt := sealed[10:26]
	header := []byte{1, 0, 0, 0, 2, 0, 0, 19 * 1024 >> 8, 0, 1}
	header = append(header, salt...)
	require.Equal(t, header, sealed[:passphraseHeader])
	key := argon2.IDKey([]byte("one"), salt, 2, 19*1024, 1, 32)
	context := "github.com/blobseal/blobseal/v1 passphrase root\x00" + string(header) + "ad"
	got, err := chunked.OpenMessage(key, []byte(context), sealed[passphraseHeader:])
	require.NoError(t, err)
	require.Equal(t, "x", string(got))
}

func TestPassphraseCosts(t *testing.T) {
	def, err := keyring.NewPassphraseRoot([]byte("one"), nil)
	require.NoError(t, err)
	sealed, err := def.EncryptWithContext(t.Context(), []byte("x"), nil)
	require.NoError(t, err)
	require.Equal(t, []byte{1, 0, 0, 0, 3, 0, 1, 0, 0, 4}, sealed[:10], "second recommendation of RFC 9106")

	cheapSealed, err := passphraseRoot(t, "one").EncryptWithContext(t.Context(), []byte("x"), nil)
	require.NoError(t, err)
	for name, p := range map[string]keyring.PassphraseParams{
		"time":          {Time: 1},
		"memory":        {Memory: 19<<10 - 1},
		"too long":      {Time: 17},
		"too large":     {Memory: 1<<20 + 1},
		"far too large": {Memory: 1<<32 - 1},
		"far too long":  {Time: 1<<32 - 1},
		"threads":       {Threads: 17},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := keyring.NewPassphraseRoot([]byte("one"), &p)
			require.ErrorContains(t, err, "argon2id")

			// Stored costs have the same bounds.
			bad := bytes.Clone(cheapSealed)
			if p.Time != 0 {
				binary.BigEndian.PutUint32(bad[1:], p.Time)
			}
			if p.Memory != 0 {
				binary.BigEndian.PutUint32(bad[5:], p.Memory)
			}
			if p.Threads != 0 {
				bad[9] = p.Threads
			}
			root := passphraseRoot(t, "one")
			_, err = root.DecryptWithContext(t.Context(), bad, nil)
			require.ErrorIs(t, err, keyring.ErrRoot)
			require.ErrorContains(t, err, "argon2id")
			require.Zero(t, root.derived(), "nothing was derived")
		})
	}
	// Costs within bounds, but above those of this root: anyone who can write to the store
	// could make each refresh take seconds and a gigabyte.
	for name, p := range map[string]keyring.PassphraseParams{
		"more memory": {Time: 2, Memory: 19<<10 + 1, Threads: 1},
		"more passes": {Time: 3, Memory: 19 << 10, Threads: 1},
		"the most":    {Time: 16, Memory: 1 << 20, Threads: 1},
	} {
		t.Run(name, func(t *testing.T) {
			bad := bytes.Clone(cheapSealed)
			binary.BigEndian.PutUint32(bad[1:], p.Time)
			binary.BigEndian.PutUint32(bad[5:], p.Memory)
			root := passphraseRoot(t, "one")
			_, err := root.DecryptWithContext(t.Context(), bad, nil)
			require.ErrorIs(t, err, keyring.ErrRoot)
			require.ErrorContains(t, err, "PassphraseParams")
			require.Zero(t, root.derived(), "nothing was derived")
		})
	}
	for name, at := range map[string]int{"kdf": 0, "threads": 9} {
		bad := bytes.Clone(cheapSealed)
		bad[at] = 0
		_, err = passphraseRoot(t, "one").DecryptWithContext(t.Context(), bad, nil)
		require.ErrorIs(t, err, keyring.ErrRoot, name)
	}

	// Costs edited within bounds derive another key.
	for at, b := range map[int]byte{4: 3, 8: 1, 9: 2, 25: cheapSealed[25] ^ 1} {
		bad := bytes.Clone(cheapSealed)
		bad[at] = b
		_, err = passphraseRoot(t, "one").DecryptWithContext(t.Context(), bad, nil)
		require.ErrorIs(t, err, keyring.ErrRoot, "byte %d", at)
	}
}

// An attacker who writes a document that does not open cannot choose the salt of later
// documents: the attacker might have tables for it.
func TestPassphraseSaltIsNobodysChoice(t *testing.T) {
	ctx := t.Context()
	planted, err := passphraseRoot(t, "another's").EncryptWithContext(ctx, []byte("x"), nil)
	require.NoError(t, err)
	root := passphraseRoot(t, "one")
	_, err = root.DecryptWithContext(ctx, planted, nil)
	require.ErrorIs(t, err, keyring.ErrRoot)
	sealed, err := root.EncryptWithContext(ctx, []byte("x"), nil)
	require.NoError(t, err)
	require.Equal(t, planted[:10], sealed[:10], "the same costs")
	require.NotEqual(t, planted[10:passphraseHeader], sealed[10:passphraseHeader])

	// A salt stays in use, whatever documents come between.
	reader := passphraseRoot(t, "one")
	_, err = reader.DecryptWithContext(ctx, sealed, nil)
	require.NoError(t, err)
	_, err = reader.DecryptWithContext(ctx, planted, nil)
	require.ErrorIs(t, err, keyring.ErrRoot)
	again, err := reader.EncryptWithContext(ctx, []byte("x"), nil)
	require.NoError(t, err)
	require.Equal(t, sealed[:passphraseHeader], again[:passphraseHeader])
}

func TestPassphraseKeysAreKept(t *testing.T) {
	ctx := t.Context()
	root := passphraseRoot(t, "one")
	sealed, err := root.EncryptWithContext(ctx, []byte("x"), nil)
	require.NoError(t, err)
	again, err := root.EncryptWithContext(ctx, []byte("x"), nil)
	require.NoError(t, err)
	require.Equal(t, sealed[:passphraseHeader], again[:passphraseHeader], "the same salt, so the same key")
	require.NotEqual(t, sealed[passphraseHeader:], again[passphraseHeader:])
	require.Equal(t, 1, root.derived())

	reader := passphraseRoot(t, "one")
	for _, s := range [][]byte{sealed, again, sealed} {
		_, err := reader.DecryptWithContext(ctx, s, nil)
		require.NoError(t, err)
	}
	next, err := reader.EncryptWithContext(ctx, []byte("x"), nil)
	require.NoError(t, err)
	require.Equal(t, sealed[:passphraseHeader], next[:passphraseHeader], "what it read with it writes with")
	require.Equal(t, 1, reader.derived())

	// Keys for salts that others write do not accumulate.
	for range 10 {
		other, err := passphraseRoot(t, "one").EncryptWithContext(ctx, []byte("x"), nil)
		require.NoError(t, err)
		_, err = reader.DecryptWithContext(ctx, other, nil)
		require.NoError(t, err)
		require.LessOrEqual(t, reader.derived(), 4)
	}
	_, err = reader.DecryptWithContext(ctx, sealed, nil)
	require.NoError(t, err)
}

// A ring under a passphrase moves to the same passphrase with higher costs.
func TestStrongerPassphraseRoot(t *testing.T) {
	ctx := t.Context()
	store := keyring.NewMemStore()
	ring, err := keyring.Create(ctx, store, passphraseRoot(t, "one passphrase").AEADWithContext, nil)
	require.NoError(t, err)
	stronger, err := keyring.NewPassphraseRoot([]byte("one passphrase"), &keyring.PassphraseParams{Time: 3, Memory: 20 << 10, Threads: 2})
	require.NoError(t, err)
	before := document(t, store)
	require.NoError(t, ring.ChangeRoot(ctx, stronger))
	require.NotEqual(t, before, document(t, store))
	_, err = keyring.Open(ctx, store, stronger, nil)
	require.NoError(t, err)
	_, err = keyring.Open(ctx, store, passphraseRoot(t, "one passphrase").AEADWithContext, nil)
	require.ErrorIs(t, err, keyring.ErrRoot, "a weaker root does not spend that much")
	_, err = keyring.Open(ctx, store, passphraseRoot(t, "two").AEADWithContext, nil)
	require.ErrorIs(t, err, keyring.ErrRoot)
	strong := []byte{1, 0, 0, 0, 3, 0, 0, 20 * 1024 >> 8, 0, 2}
	require.True(t, bytes.Contains(document(t, store), strong))

	// A ring that is opened with other costs uses them when it next writes.
	store = keyring.NewMemStore()
	_, err = keyring.Create(ctx, store, passphraseRoot(t, "one passphrase").AEADWithContext, nil)
	require.NoError(t, err)
	ring, err = keyring.Open(ctx, store, stronger, nil)
	require.NoError(t, err)
	rotate(t, ring)
	require.True(t, bytes.Contains(document(t, store), strong))
}
