package keyring

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/blobseal/blobseal/kms/tinkkms"
)

// testKMSRoot is a root in a key service whose key is 32 times 02.
func testKMSRoot(t testing.TB) tink.AEADWithContext {
	key, err := NewKeyRoot(bytes.Repeat([]byte{2}, 32))
	require.NoError(t, err)
	client, err := tinkkms.New(key, "test-kms://root", nil)
	require.NoError(t, err)
	root, err := NewKMSRoot(client, "test-kms://root", nil)
	require.NoError(t, err)
	return root
}

func FuzzKMSHeader(f *testing.F) {
	header := marshalKMSHeader("key", []byte("wrapped"))
	f.Add(append(header, "message"...))
	f.Add(header[:9])
	f.Add([]byte{})
	f.Add([]byte{2, 0, 0, 0, 0})
	f.Add([]byte{2, 0, 1, 'k', 0xff, 0xff})
	f.Fuzz(func(t *testing.T, ciphertext []byte) {
		keyID, wrapped, message, err := parseKMSHeader(ciphertext)
		if err != nil {
			return
		}
		require.NotEmpty(t, keyID)
		require.LessOrEqual(t, len(keyID), maxKMSKeyID)
		require.NotEmpty(t, wrapped)
		require.LessOrEqual(t, len(wrapped), maxKMSWrapped)
		require.Equal(t, ciphertext, append(marshalKMSHeader(keyID, wrapped), message...))
	})
}
