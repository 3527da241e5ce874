// Package ssetest makes ciphers for tests, and objects, which it also opens.
package ssetest

import (
	"bytes"
	"context"
	"io"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/kms/kmstest"
	"github.com/blobseal/blobseal/sse"
)

// NewKMS returns a cipher of SSE-KMS with a key service of its own, which has one key.
func NewKMS(t testing.TB, keyID string) *sse.KMS {
	t.Helper()
	cipher, err := sse.NewKMS(kmstest.NewFake(keyID), keyID, nil)
	require.NoError(t, err)
	return cipher
}

// NewCustomer returns a cipher of SSE-C. Its key follows from seed.
func NewCustomer(t testing.TB, seed byte) *sse.Customer {
	t.Helper()
	cipher, err := sse.NewCustomer(bytes.Repeat([]byte{seed}, 32))
	require.NoError(t, err)
	return cipher
}

// Seal returns a self-contained object.
func Seal(t testing.TB, enc sse.Encrypter, obj sse.Object, plaintext []byte, opts *sse.WriterOptions) []byte {
	t.Helper()
	var object bytes.Buffer
	w, err := sse.NewWriter(context.Background(), &object, enc, obj, opts)
	require.NoError(t, err)
	_, err = w.Write(plaintext)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return object.Bytes()
}

// Open reads a self-contained object as a stream.
func Open(ctx context.Context, dec sse.Decrypter, obj sse.Object, object []byte) ([]byte, error) {
	r, err := sse.NewReader(ctx, bytes.NewReader(object), dec, obj)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

// SealParts uploads an object in parts, numbered from one. It returns the upload and the
// object.
func SealParts(t testing.TB, enc sse.Encrypter, obj sse.Object, opts *sse.TrailerOptions, parts ...[]byte) (*sse.Multipart, []byte) {
	t.Helper()
	upload, err := sse.StartMultipart(context.Background(), enc, obj)
	require.NoError(t, err)
	var object bytes.Buffer
	var receipts [][]byte
	for i, plaintext := range parts {
		part, err := upload.Part(i + 1)
		require.NoError(t, err)
		_, err = object.ReadFrom(part.Reader(bytes.NewReader(plaintext)))
		require.NoError(t, err)
		receipt, err := part.Receipt()
		require.NoError(t, err)
		receipts = append(receipts, receipt)
	}
	trailer, err := upload.Trailer(receipts, opts)
	require.NoError(t, err)
	return upload, append(object.Bytes(), trailer...)
}
