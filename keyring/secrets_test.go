package keyring_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/blobseal/blobseal/keyring"
)

// spellings are ways in which a printer could show b, or the beginning of it.
func spellings(b []byte) []string {
	var all []string
	for _, part := range [][]byte{b, b[:6]} {
		decimal := strings.Trim(fmt.Sprint(part), "[]")
		goHex := strings.Trim(fmt.Sprintf("%#v", part), "[]byte{}")
		quoted := strings.Trim(fmt.Sprintf("%q", part), `"`)
		all = append(all,
			string(part), hex.EncodeToString(part), fmt.Sprintf("%X", part), fmt.Sprintf("% x", part),
			decimal, strings.ReplaceAll(decimal, " ", ", "), strings.ReplaceAll(decimal, " ", ","),
			goHex, quoted,
			base64.StdEncoding.EncodeToString(part)[:8*len(part)/6-2], base64.URLEncoding.EncodeToString(part)[:8*len(part)/6-2])
	}
	return all
}

// show prints v in every way that programs print.
func show(t *testing.T, out *bytes.Buffer, v any) {
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "% x", "%#x", "%d", "%o", "%b", "%c", "%U", "%t", "%p", "%e"} {
		fmt.Fprintf(out, verb+"\n", v)
	}
	fmt.Fprintln(out, fmt.Sprint(v), fmt.Errorf("oops: %v", v))
	if b, err := json.Marshal(v); err == nil {
		out.Write(b)
	}
	slog.New(slog.NewJSONHandler(out, nil)).Info("x", "v", v)
	slog.New(slog.NewTextHandler(out, nil)).Info("x", "v", v)
}

func TestNothingSecretIsPrinted(t *testing.T) {
	ctx := t.Context()
	rootKey := []byte("root KEY of letters, not all. \x00\x01")
	letters := []byte("root KEY that is made of letters")
	passphrase := []byte("PASSphrase of letters")
	keyRoot, err := keyring.NewKeyRoot(rootKey)
	require.NoError(t, err)
	passphraseRoot, err := keyring.NewPassphraseRoot(passphrase, cheap)
	require.NoError(t, err)
	secrets := [][]byte{rootKey, letters, passphrase}

	log, lines := newLogger()
	store := newHooked()
	ring, err := keyring.Create(ctx, store, keyRoot, &keyring.Options{Logger: log})
	require.NoError(t, err)
	first := primary(t, ring)
	rotate(t, ring)
	key, err := ring.Key(ctx, first)
	require.NoError(t, err)
	newest, err := ring.Primary(ctx)
	require.NoError(t, err)
	masters, err := keyring.MasterKeys(ctx, keyRoot, document(t, store))
	require.NoError(t, err)
	require.Len(t, masters, 2)
	for _, m := range masters {
		secrets = append(secrets, m)
	}
	secrets = append(secrets, key.KEK(), newest.KEK())
	dek := []byte("data KEY that is made of letters")
	secrets = append(secrets, dek)
	sealed, err := key.Seal(dek, []byte("context"))
	require.NoError(t, err)

	errs := ringErrors(t, ring, store, key, sealed, passphraseRoot, [][]byte{letters, passphrase})
	data := document(t, store.Store)

	type holder struct {
		Key  *keyring.Key
		ring *keyring.Ring
		root any
		Root any
		val  keyring.Key
	}
	h := holder{key, ring, keyRoot, passphraseRoot, *key}
	var out bytes.Buffer
	for _, v := range []any{
		key, *key, newest, []*keyring.Key{key, newest}, map[string]*keyring.Key{"k": key}, ring, []*keyring.Ring{ring},
		keyRoot, passphraseRoot, []any{keyRoot, passphraseRoot}, ring.Versions(), h, &h, errors.Join(errs...), store, keyring.Options{},
	} {
		show(t, &out, v)
	}
	for _, err := range errs {
		show(t, &out, err)
	}
	text := out.String() + lines.String()
	require.Contains(t, text, first)
	require.Contains(t, text, ring.ID())
	requireNone(t, text, secrets)
	for _, secret := range secrets { // no secret is in the document, or in what a key sealed
		require.False(t, bytes.Contains(data, secret[:8]))
		require.False(t, bytes.Contains(sealed, secret[:8]))
	}
}

// requireNone fails if text has one of the secrets in any spelling.
func requireNone(t *testing.T, text string, secrets [][]byte) {
	t.Helper()
	for i, secret := range secrets {
		for _, s := range spellings(secret) {
			if strings.Contains(text, s) {
				require.Fail(t, "a secret was printed", "secret %d, as %q", i, s)
			}
		}
	}
}

// ringErrors makes mistakes with a ring, its store and its keys, and returns the errors. It
// ends with the store down.
func ringErrors(t *testing.T, ring *keyring.Ring, store *hooked, key *keyring.Key, sealed []byte, other tink.AEADWithContext, notKeys [][]byte) (errs []error) {
	ctx := t.Context()
	fails := func(err error) {
		t.Helper()
		require.Error(t, err)
		errs = append(errs, err)
	}
	_, err := key.Open(sealed, nil)
	fails(err)
	_, err = key.Open(sealed[:20], nil)
	fails(err)
	_, err = keyring.Open(ctx, store, other, nil)
	fails(err)
	for _, text := range notKeys {
		_, err = keyring.ParseKey(text)
		fails(err)
	}
	_, err = keyring.NewKeyRoot(notKeys[1])
	fails(err)
	fails(ring.ChangeRoot(ctx, &fakeRoot{AEADWithContext: other, decrypt: func(context.Context) error { return errDown }}))
	_, err = ring.SetState(ctx, primary(t, ring), keyring.Disabled)
	fails(err)
	require.NoError(t, ring.ChangeRoot(ctx, other))
	store.down()
	_, err = ring.Rotate(ctx)
	fails(err)
	fails(ring.Refresh(ctx))
	data := document(t, store.Store)
	_, err = keyring.Open(ctx, stored(t, data[:len(data)-1]), other, nil)
	fails(err)
	return errs
}
