package azurekms_test

import (
	"bytes"
	"encoding/hex"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/azurekms"
)

// A data key of the first release: the key of the HSM, the context, the ciphertext
// and the plaintext. Whatever comes later opens it.
const (
	frozenVersion    = "00112233445566778899aabbccddeeff"
	frozenCiphertext = "01022030303131323233333434353536363737383839396161626263636464656566660028092989298a305c170e21ca8c4e360425795587e83e9ac035071624dfab566af6ac52cb7138469f8b06e11e02551aee6cbec3d0510621e01a90592b2acb76091b4b86cc6a48dd95fe7ad0d98adb85a0b7fa61b8b10f421d802786f24be7a2fb75c0124799587385791db9b8abdbaaf1ffe6f9fdb5f36594b54e2f3b11eb72d9be8cad23153576627d09c8565eaa644e2c"
	frozenPlaintext  = "509b4e576fb20f48a214bfc811c9b3da87cbb58317cbeb4b2b6c79108efc18dc"
)

func frozenVault(t testing.TB) *vault {
	t.Helper()
	v := newVault(t)
	kek := make([]byte, 32)
	for i := range kek {
		kek[i] = byte(i)
	}
	v.keys["photos"] = &key{versions: []version{{id: frozenVersion, aes: kek}}}
	return v
}

// SPEC SVC-3
func TestFrozen(t *testing.T) {
	v := frozenVault(t)
	ciphertext, err := hex.DecodeString(frozenCiphertext)
	require.NoError(t, err)
	layout := slices.Concat([]byte{1, 2, byte(len(frozenVersion))}, []byte(frozenVersion), []byte{0, 40}, ciphertext[37:77], ciphertext[77:])
	require.Equal(t, layout, ciphertext)
	require.Len(t, ciphertext[77:], 104)
	plaintext, err := v.client(t, nil).Decrypt(t.Context(), v.id("photos", frozenVersion), ciphertext,
		kms.Context{"blobseal:object": "photos/cat.jpg", "tenant": "7"})
	require.NoError(t, err)
	require.Equal(t, frozenPlaintext, hex.EncodeToString(plaintext))
}

// FuzzCiphertext: what is read as a ciphertext has one form.
func FuzzCiphertext(f *testing.F) {
	ciphertext, err := hex.DecodeString(frozenCiphertext)
	require.NoError(f, err)
	f.Add(ciphertext)
	f.Add(ciphertext[:100])
	f.Add([]byte{1, 1, 1, 'x', 0, 1, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		if again, ok := azurekms.Reparse(data); ok && !bytes.Equal(data, again) {
			t.Fatalf("%x is read as %x", data, again)
		}
	})
}

// FuzzKeyID: what is read as the id of a key is a name, or a URL of a host and a
// path that need no escapes.
func FuzzKeyID(f *testing.F) {
	for _, s := range []string{"photos", "photos/1", "https://photos.vault.azure.net/keys/photos/1", "https://a:1/keys/b", "https://../keys/..", "a/../b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		again, ok := azurekms.ReparseKeyID(s)
		if !ok {
			return
		}
		if !strings.EqualFold(again, s) {
			t.Fatalf("%q is read as %q", s, again)
		}
		u, err := url.Parse(s)
		if err != nil || u.RawQuery != "" || u.Fragment != "" || u.User != nil || u.EscapedPath() != u.Path || strings.Contains(u.Path, "..") {
			t.Fatalf("%q is the URL %#v, %v", s, u, err)
		}
	})
}
