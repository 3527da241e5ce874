package sse_test

import (
	"bytes"
	"crypto/md5"
	"encoding/base64"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/sse"
)

// TestNilsAreErrors: a cipher that nobody made gives ErrInvalid at its first
// use, as a pointer and inside an interface.
func TestNilsAreErrors(t *testing.T) {
	ctx := t.Context()
	e, err := newCustomer(t, customerKey).Encrypt(ctx, object)
	require.NoError(t, err)
	d, err := newCustomer(t, customerKey).Decrypt(ctx, object, e.Envelope())
	require.NoError(t, err)
	var stored bytes.Buffer
	for name, cipher := range map[string]sse.Cipher{
		"NewManaged(nil)": sse.NewManaged(nil),
		"nil Managed":     (*sse.Managed)(nil),
		"zero Managed":    new(sse.Managed),
		"nil KMS":         (*sse.KMS)(nil),
		"zero KMS":        new(sse.KMS),
		"nil Customer":    (*sse.Customer)(nil),
		"zero Customer":   new(sse.Customer),
	} {
		t.Run(name, func(t *testing.T) {
			require.NotZero(t, cipher.Mode())
			_, err := cipher.Encrypt(ctx, object)
			require.ErrorIs(t, err, sse.ErrInvalid)
			_, err = cipher.Decrypt(ctx, object, e.Envelope())
			require.ErrorIs(t, err, sse.ErrInvalid)
			_, err = cipher.Rewrap(ctx, object, d)
			require.ErrorIs(t, err, sse.ErrInvalid)
			_, err = sse.ByMode{sse.ModeCustomer: cipher}.Decrypt(ctx, object, e.Envelope())
			require.ErrorIs(t, err, sse.ErrInvalid)
			_, err = sse.NewWriter(ctx, &stored, cipher, object, nil)
			require.ErrorIs(t, err, sse.ErrInvalid)
			require.Zero(t, stored.Len())
		})
	}
	var none *sse.Customer
	require.Empty(t, none.KeyMD5())
	_, err = sse.NewWriter(ctx, &stored, nil, object, nil)
	require.ErrorIs(t, err, sse.ErrInvalid)
	_, err = sse.NewEncryptingReader(ctx, &stored, nil, object, nil)
	require.ErrorIs(t, err, sse.ErrInvalid)
	_, err = sse.NewReader(ctx, &stored, nil, object)
	require.ErrorIs(t, err, sse.ErrInvalid)
	_, err = sse.NewReaderAt(ctx, bytes.NewReader(nil), 0, nil, object)
	require.ErrorIs(t, err, sse.ErrInvalid)
	_, err = newCustomer(t, customerKey).Rewrap(ctx, object, nil)
	require.ErrorIs(t, err, sse.ErrInvalid)
	_, err = newCustomer(t, customerKey).Decrypt(ctx, object, nil)
	require.ErrorIs(t, err, sse.ErrFormat)
	_, err = (*sse.Envelope)(nil).MarshalText()
	require.ErrorIs(t, err, sse.ErrInvalid)
}

// TestCustomerKeys: 32 zeros are memory that nobody filled. Text is a key: S3's
// clients send some.
func TestCustomerKeys(t *testing.T) {
	parse := func(key []byte) (*sse.Customer, error) {
		sum := md5.Sum(key)
		return sse.ParseCustomerKey("AES256", base64.StdEncoding.EncodeToString(key), base64.StdEncoding.EncodeToString(sum[:]))
	}
	for name, from := range map[string]func([]byte) (*sse.Customer, error){"NewCustomer": sse.NewCustomer, "ParseCustomerKey": parse} {
		_, err := from(make([]byte, 32))
		require.ErrorIs(t, err, sse.ErrInvalid, name)
		require.ErrorContains(t, err, "zeros", name)
		for _, key := range []string{"0123456789abcdef0123456789abcdef", strings.Repeat("\x00", 31) + "\x01"} {
			c, err := from([]byte(key))
			require.NoError(t, err, name)
			sum := md5.Sum([]byte(key))
			require.Equal(t, base64.StdEncoding.EncodeToString(sum[:]), c.KeyMD5(), name)
			for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x"} {
				require.NotContains(t, fmt.Sprintf(verb, c), key, name)
				require.NotContains(t, fmt.Sprintf(verb, c), fmt.Sprintf("%x", key), name)
			}
		}
	}
}

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

func TestIsEnvelope(t *testing.T) {
	data := seal(t, newCustomer(t, customerKey), object, nil, nil)
	require.True(t, sse.IsEnvelope(data))
	require.True(t, sse.IsEnvelope(data[:8]))
	require.True(t, sse.IsEnvelope([]byte("\x89SSE\r\n\x1a\n\x02")), "a later version")
	require.False(t, sse.IsEnvelope(data[:7]))
	require.False(t, sse.IsEnvelope([]byte("\x89PNG\r\n\x1a\n")))
	require.False(t, sse.IsEnvelope(nil))
}

func TestEnvelopeEqual(t *testing.T) {
	cipher := newCustomer(t, customerKey)
	env := envelope(t, cipher, object)
	same := new(sse.Envelope)
	require.NoError(t, same.UnmarshalBinary(marshal(t, env)))
	require.True(t, env.Equal(same))
	padded, err := env.WithSize(1000)
	require.NoError(t, err)
	require.False(t, env.Equal(padded))
	require.False(t, env.Equal(envelope(t, cipher, object)))
	require.False(t, env.Equal(nil))
	require.False(t, (*sse.Envelope)(nil).Equal(env))
	require.True(t, (*sse.Envelope)(nil).Equal(nil))
}
