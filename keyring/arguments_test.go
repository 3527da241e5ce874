package keyring_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/keyring/keyringtest"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/cache"
	"github.com/blobseal/blobseal/kms/kmstest"
)

// Arguments that are never valid are ErrInvalid, and nothing else happens.
func TestInvalidArguments(t *testing.T) {
	ctx := t.Context()
	key := bytes.Repeat([]byte("\x81secret\x9e"), 4)
	root, err := keyring.NewKeyRoot(key)
	require.NoError(t, err)
	ring, err := keyring.Create(ctx, keyring.NewMemStore(), root, nil)
	require.NoError(t, err)
	fake := kmstest.NewFake("key")
	printable, err := keyring.NewKeyRoot(bytes.Repeat([]byte("secret78"), 4))
	require.NoError(t, err, "a ring may be under one already")
	short, err := keyring.NewPassphraseRoot([]byte("secretshort"), nil)
	require.NoError(t, err, "likewise")

	open := func(opts keyring.Options) error {
		store := keyring.NewMemStore()
		_, err := keyring.Create(ctx, store, root, &opts)
		_, _, absent := store.Load(ctx)
		require.ErrorIs(t, absent, keyring.ErrNotExist)
		return err
	}
	second := func(_ any, err error) error { return err }
	for name, err := range map[string]error{
		"no store":             second(keyring.Open(ctx, nil, root, nil)),
		"nil store":            second(keyring.Open(ctx, (*keyringtest.Store)(nil), root, nil)),
		"nil store to create":  second(keyring.Create(ctx, (*keyringtest.Store)(nil), root, nil)),
		"nil root":             second(keyring.Open(ctx, keyring.NewMemStore(), (*nilRoot)(nil), nil)),
		"nil root to create":   second(keyring.Create(ctx, keyring.NewMemStore(), (*nilRoot)(nil), nil)),
		"nil new root":         ring.ChangeRoot(ctx, (*nilRoot)(nil)),
		"nil key service":      second(keyring.NewKMSRoot((*cache.Client)(nil), "key", nil)),
		"no root":              second(keyring.Open(ctx, keyring.NewMemStore(), nil, nil)),
		"hard age":             open(keyring.Options{HardAge: -1}),
		"refresh interval":     open(keyring.Options{RefreshInterval: time.Second - 1}),
		"no new root":          ring.ChangeRoot(ctx, nil),
		"state":                second(ring.SetState(ctx, ring.Versions()[0].ID, "enabled ")),
		"no path":              second(keyring.NewFileStore("")),
		"zero key":             second(keyring.NewKeyRoot(make([]byte, 32))),
		"zero key from a file": second(keyring.ParseKey(make([]byte, 32))),
		"zero key as text":     second(keyring.ParseKey(bytes.Repeat([]byte("00"), 32))),
		"printable new key":    second(keyring.Create(ctx, keyring.NewMemStore(), printable, nil)),
		"to a printable key":   ring.ChangeRoot(ctx, printable),
		"short new passphrase": second(keyring.Create(ctx, keyring.NewMemStore(), short, nil)),
		"to a short one":       ring.ChangeRoot(ctx, short),
		"empty passphrase":     second(keyring.ParsePassphrase([]byte("\r\n"))),
		"no key":               second(keyring.NewKeyRoot(nil)),
		"short key":            second(keyring.NewKeyRoot(key[1:])),
		"key as text":          second(keyring.ParseKey(bytes.Repeat([]byte("secret78"), 4))),
		"key in no encoding":   second(keyring.ParseKey([]byte("secret"))),
		"no passphrase":        second(keyring.NewPassphraseRoot(nil, nil)),
		"costs":                second(keyring.NewPassphraseRoot([]byte("secret"), &keyring.PassphraseParams{Memory: 1})),
		"no key service":       second(keyring.NewKMSRoot(nil, "key", nil)),
		"no id":                second(keyring.NewKMSRoot(fake, "", nil)),
		"long id":              second(keyring.NewKMSRoot(fake, strings.Repeat("k", 2049), nil)),
		"context":              second(keyring.NewKMSRoot(fake, "key", &keyring.KMSRootOptions{Context: kms.Context{"blobseal:purpose": "x"}})),
	} {
		require.ErrorIs(t, err, keyring.ErrInvalid, name)
		require.ErrorContains(t, err, "keyring: ", name)
		require.NotContains(t, err.Error(), "secret", name)
	}
	require.EqualValues(t, 1, ring.Stats().Generation)
	require.Empty(t, fake.Calls())
}

// nilRoot is for roots that are nil pointers.
type nilRoot struct{ keyring.Root }
