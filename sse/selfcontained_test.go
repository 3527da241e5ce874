package sse_test

import (
	"bytes"
	"io"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/sse"
)

// TestEncryptingReader: the pull form makes what the push form makes.
func TestEncryptingReader(t *testing.T) {
	ctx, cipher := t.Context(), newCustomer(t, customerKey)
	for _, size := range []int{0, 1, chunk - 1, chunk, 3*chunk + 5} {
		plaintext := pattern(size)
		for name, read := range map[string]func(io.Reader) ([]byte, error){
			"ReadAll":       io.ReadAll,
			"byte by byte":  func(r io.Reader) ([]byte, error) { return io.ReadAll(iotest.OneByteReader(r)) },
			"through Write": func(r io.Reader) ([]byte, error) { var b bytes.Buffer; _, err := io.Copy(&b, r); return b.Bytes(), err },
		} {
			r, err := sse.NewEncryptingReader(ctx, bytes.NewReader(plaintext), cipher, object, &sse.WriterOptions{EnvelopeSize: 1024})
			require.NoError(t, err)
			data, err := read(r)
			require.NoError(t, err, name)
			body, err := sse.CiphertextSize(int64(size))
			require.NoError(t, err)
			require.EqualValues(t, 1024+body, len(data), name)
			got, err := open(cipher, object, data)
			require.NoError(t, err, name)
			require.True(t, bytes.Equal(plaintext, got), name)
		}
	}
	broken := io.MultiReader(bytes.NewReader(pattern(chunk)), iotest.ErrReader(io.ErrNoProgress))
	r, err := sse.NewEncryptingReader(ctx, broken, cipher, object, nil)
	require.NoError(t, err)
	data, err := io.ReadAll(r)
	require.ErrorIs(t, err, io.ErrNoProgress)
	_, err = open(cipher, object, data)
	require.ErrorIs(t, err, sse.ErrTruncated)
	_, err = sse.NewEncryptingReader(ctx, broken, cipher, object, &sse.WriterOptions{EnvelopeSize: 10})
	require.ErrorIs(t, err, sse.ErrTooLarge)
}
