package chunked_test

import (
	"bytes"
	"crypto/hkdf"
	"crypto/sha512"
	"encoding/binary"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/internal/chunked"
)

// TestExpand holds the derivation to the standard library's. SPEC MSG-1
func TestExpand(t *testing.T) {
	key, salt := pattern(chunked.KeySize), pattern(chunked.SaltSize)
	for _, n := range []int{0, 1, 55, 56, 57, 127, 128, 129, 300, 8192, 200_000} {
		context := pattern(n)
		want, err := hkdf.Expand(sha512.New, key, chunked.Info+string(salt)+string(context), 76)
		require.NoError(t, err)
		require.Equal(t, want, chunked.Expand(key, salt, context)[:76], n)
	}
}

// SPEC MSG-3
func TestNonces(t *testing.T) {
	c := newCipher(t)
	base := c.Nonce(0)
	for _, i := range []uint64{0, 1, 255, 256, 1<<16 - 1, 1 << 16, 1<<32 + 5, 1<<38 - 1} {
		var want [12]byte
		binary.BigEndian.PutUint64(want[4:], i)
		for j := range want {
			want[j] ^= base[j]
		}
		require.Equal(t, want, c.Nonce(i))
	}
}

func TestSealAndOpenMessage(t *testing.T) {
	key := make([]byte, chunked.KeySize)
	for _, size := range boundaries[:9] {
		plaintext := pattern(size)
		message, err := chunked.Seal(key, []byte("a"), plaintext)
		require.NoError(t, err)
		got, err := chunked.OpenMessage(key, []byte("a"), message)
		require.NoError(t, err)
		require.True(t, bytes.Equal(plaintext, got))
		_, err = chunked.OpenMessage(key, []byte("b"), message)
		require.ErrorIs(t, err, chunked.ErrKey)
		_, err = chunked.OpenMessage(key, []byte("a"), message[:len(message)-1])
		require.ErrorIs(t, err, chunked.ErrCorrupt)
	}
	_, err := chunked.Seal(key[1:], nil, nil)
	require.ErrorContains(t, err, "31 bytes")
	_, err = chunked.Open(key, nil, make([]byte, 55))
	require.ErrorContains(t, err, "55 bytes")
}
