package keyring_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/blobseal/blobseal/internal/chunked"
	"github.com/blobseal/blobseal/keyring"
)

// testRoot tests the common behavior of this package's roots. other has another secret;
// header is the length of the bytes before the message. The test is long because it checks
// one message in every way.
func testRoot(t *testing.T, root, other tink.AEADWithContext, header int) {
	ctx := t.Context()
	plaintext, ad := []byte("a keyset"), []byte("associated")
	sealed, err := root.EncryptWithContext(ctx, plaintext, ad)
	require.NoError(t, err)
	require.Len(t, sealed, header+56+len(plaintext)+16)
	got, err := root.DecryptWithContext(ctx, sealed, ad)
	require.NoError(t, err)
	require.Equal(t, plaintext, got)

	_, err = other.DecryptWithContext(ctx, sealed, ad)
	require.ErrorIs(t, err, keyring.ErrRoot)
	for _, ad := range []string{"", "associate", "associated\x00", "Associated"} {
		_, err = root.DecryptWithContext(ctx, sealed, []byte(ad))
		require.ErrorIs(t, err, keyring.ErrRoot)
	}
	head := header + chunked.HeadSize
	for n := range sealed {
		_, err := root.DecryptWithContext(ctx, sealed[:n], ad)
		if n < head {
			require.ErrorIs(t, err, keyring.ErrRoot, "%d bytes", n)
		} else {
			require.ErrorIs(t, err, keyring.ErrDamaged, "%d bytes", n)
		}
	}
	for i := 8 * header; i < 8*len(sealed); i++ {
		flipped := bytes.Clone(sealed)
		flipped[i/8] ^= 1 << (i % 8)
		_, err := root.DecryptWithContext(ctx, flipped, ad)
		if i/8 < head {
			require.ErrorIs(t, err, keyring.ErrRoot, "bit %d", i)
		} else {
			require.ErrorIs(t, err, keyring.ErrDamaged, "bit %d", i)
		}
	}

	ended, cancel := context.WithCancel(ctx)
	cancel()
	_, err = root.EncryptWithContext(ended, plaintext, ad)
	require.ErrorIs(t, err, context.Canceled)
	_, err = root.DecryptWithContext(ended, sealed, ad)
	require.ErrorIs(t, err, context.Canceled)

	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			sealed, err := root.EncryptWithContext(ctx, plaintext, ad)
			if err == nil {
				_, err = root.DecryptWithContext(ctx, sealed, ad)
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()

	empty, err := root.EncryptWithContext(ctx, nil, nil)
	require.NoError(t, err)
	got, err = root.DecryptWithContext(ctx, empty, nil)
	require.NoError(t, err)
	require.Empty(t, got)
}

func TestKeyRoot(t *testing.T) {
	testRoot(t, keyRoot(t, 1), keyRoot(t, 2), 0)
	for _, n := range []int{0, 16, 31, 33, 64} {
		_, err := keyring.NewKeyRoot(make([]byte, n))
		require.ErrorContains(t, err, fmt.Sprintf("%d bytes", n))
	}

	key := bytes.Repeat([]byte{1}, 32)
	root, err := keyring.NewKeyRoot(key)
	require.NoError(t, err)
	clear(key)
	sealed, err := root.EncryptWithContext(t.Context(), []byte("x"), []byte("ad"))
	require.NoError(t, err)
	_, err = keyRoot(t, 1).DecryptWithContext(t.Context(), sealed, []byte("ad"))
	require.NoError(t, err, "the key was copied")

	// The rest is a Cobblestone-256 message, under the context of the layout.
	got, err := chunked.OpenMessage(bytes.Repeat([]byte{1}, 32), []byte("github.com/blobseal/blobseal/v1 key root\x00ad"), sealed)
	require.NoError(t, err)
	require.Equal(t, "x", string(got))
}

func TestParseKey(t *testing.T) {
	key := make([]byte, 32)
	for i := range key {
		key[i] = byte(7 * i)
	}
	h, b := hex.EncodeToString(key), base64.StdEncoding.EncodeToString(key)
	for name, text := range map[string]string{
		"raw": string(key), "hex": h, "HEX": fmt.Sprintf("%X", key), "base64": b,
		"hex line": h + "\n", "hex CRLF": h + "\r\n", "base64 line": b + "\n", "base64 CRLF": b + "\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			in := []byte(text)
			got, err := keyring.ParseKey(in)
			require.NoError(t, err)
			require.Equal(t, key, got)
			clear(in)
			require.Equal(t, key, got)
		})
	}
	printable := "0123456789abcdef0123456789abcdef"
	for name, text := range map[string]string{
		"empty": "", "newline": "\n", "raw and newline": string(key) + "\n", "31 bytes": string(key[:31]),
		"33 bytes": string(key) + "x", "text of 32": printable, "text of 32 and newline": printable + "\n",
		"hex of 31": h[:62], "hex of 33": h + "00", "hex and space": h + " ", "space and hex": " " + h, "two newlines": h + "\n\n",
		"bad hex": h[:63] + "g", "base64 of 31": base64.StdEncoding.EncodeToString(key[:31]),
		"raw base64": base64.RawStdEncoding.EncodeToString(key), "URL base64": base64.URLEncoding.EncodeToString(bytes.Repeat([]byte{0xff}, 32)),
		"loose base64": b[:42] + "b=", "base64 of 33": base64.StdEncoding.EncodeToString(append(key, 1)), "folded base64": b[:20] + "\n" + b[21:],
		"quoted": `"` + h + `"`, "prefixed": "0x" + h,
	} {
		t.Run(name, func(t *testing.T) {
			got, err := keyring.ParseKey([]byte(text))
			require.Error(t, err)
			require.Nil(t, got)
			if len(text) > 8 {
				require.NotContains(t, err.Error(), text[:8])
			}
		})
	}
}

func TestParsePassphrase(t *testing.T) {
	for text, want := range map[string]string{
		"correct horse\n":    "correct horse",
		"correct horse\r\n":  "correct horse",
		"correct horse":      "correct horse",
		" correct horse\n\n": " correct horse\n",
		"a\r":                "a\r",
	} {
		got, err := keyring.ParsePassphrase([]byte(text))
		require.NoError(t, err)
		require.Equal(t, want, string(got), "%q", text)
	}
}
