package sse_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/kms"
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

func TestNothingIsWrittenWhenTheKeyPhaseFails(t *testing.T) {
	refused := errors.New("no key for you")
	var dst bytes.Buffer
	_, err := sse.NewWriter(t.Context(), &dst, refusing{refused}, object, nil)
	require.ErrorIs(t, err, refused)
	require.Zero(t, dst.Len())
	c := newCustomer(t, customerKey)
	_, err = sse.NewWriter(t.Context(), &dst, c, object, &sse.WriterOptions{EnvelopeSize: 100})
	require.ErrorIs(t, err, sse.ErrTooLarge)
	require.Zero(t, dst.Len())
	full := errors.New("disk full")
	_, err = sse.NewWriter(t.Context(), failingWriter{full}, c, object, nil)
	require.ErrorIs(t, err, full)
	_, err = sse.NewWriter(t.Context(), failingWriter{}, c, object, nil)
	require.ErrorIs(t, err, io.ErrShortWrite)
	_, err = sse.NewReader(t.Context(), iotest.ErrReader(full), c, object)
	require.ErrorIs(t, err, full)
	require.NotErrorIs(t, err, sse.ErrFormat)
}

type refusing struct{ err error }

func (refusing) Mode() sse.Mode { return sse.ModeCustomer }

func (r refusing) Encrypt(context.Context, sse.Object) (*sse.Encryption, error) { return nil, r.err }

type failingWriter struct{ err error }

func (w failingWriter) Write([]byte) (int, error) { return 0, w.err }

// TestBadArguments: what the format cannot hold is refused, not cut. SPEC LIM-1 LIM-2
func TestBadArguments(t *testing.T) {
	c := newCustomer(t, customerKey)
	huge := make(kms.Context) // 4 GiB and a little, which in 32 bits is a little
	for value := strings.Repeat("v", 32<<20); len(huge) < 128; {
		huge[fmt.Sprint(len(huge))] = value
	}
	for _, n := range []int{0, 16, 31, 33} {
		_, err := sse.NewCustomer(make([]byte, n))
		require.ErrorIs(t, err, sse.ErrInvalid)
		require.ErrorContains(t, err, fmt.Sprintf("%d bytes", n))
	}
	for name, tc := range map[string]struct {
		obj  sse.Object
		want error
	}{
		"bucket":        {sse.Object{Bucket: strings.Repeat("b", 65536)}, sse.ErrTooLarge},
		"key":           {sse.Object{Key: strings.Repeat("k", 65536)}, sse.ErrTooLarge},
		"context":       {sse.Object{Context: kms.Context{"k": strings.Repeat("v", 8192)}}, sse.ErrTooLarge},
		"huge context":  {sse.Object{Context: huge}, sse.ErrTooLarge},
		"reserved":      {sse.Object{Context: kms.Context{"blobseal:object": "v"}}, sse.ErrInvalid},
		"empty name":    {sse.Object{Context: kms.Context{"": "v"}}, sse.ErrInvalid},
		"name not text": {sse.Object{Context: kms.Context{"\xff": "v"}}, sse.ErrInvalid},
		"not text":      {sse.Object{Context: kms.Context{"k": "\xff"}}, sse.ErrInvalid},
	} {
		_, err := c.Encrypt(t.Context(), tc.obj)
		require.ErrorIs(t, err, tc.want, name)
	}
	for name, obj := range map[string]sse.Object{
		"longest bucket":  {Bucket: strings.Repeat("b", 65535)},
		"longest key":     {Key: strings.Repeat("k", 65535)},
		"largest context": {Context: kms.Context{"k": strings.Repeat("v", 8192-5)}},
		"not UTF-8":       {Bucket: "\xff\x00", Key: "\x00"},
	} {
		got, err := open(c, obj, seal(t, c, obj, []byte("fits"), nil))
		require.NoError(t, err, name)
		require.Equal(t, "fits", string(got), name)
	}
	_, err := sse.CiphertextSize(-1)
	require.ErrorIs(t, err, sse.ErrInvalid)
	_, err = sse.CiphertextSize(1 << 52)
	require.ErrorIs(t, err, sse.ErrTooLarge)
	_, err = sse.PlaintextSize(15)
	require.ErrorIs(t, err, sse.ErrTruncated) // SPEC MSG-7
	_, _, err = sse.CiphertextRange(-1, 5)
	require.ErrorIs(t, err, sse.ErrInvalid)
}

// A service that has lost an envelope, or never had one, is told so by every mode.
func TestNoEnvelope(t *testing.T) {
	for mode, m := range ciphers(t) {
		for _, env := range []*sse.Envelope{nil, new(sse.Envelope)} {
			for _, d := range []sse.Decrypter{m[0], sse.ByMode{mode: m[0]}, sse.ByMode{0: m[0]}, sse.ByMode{}} {
				_, err := d.Decrypt(t.Context(), sse.Object{}, env)
				require.ErrorIs(t, err, sse.ErrFormat)
				require.NotErrorIs(t, err, sse.ErrMode)
			}
		}
	}
}

// TestAnyContextIsExplicit: a caller who forgets the context gets an error, and
// loses nothing.
func TestAnyContextIsExplicit(t *testing.T) {
	ctx := t.Context()
	forgotten := sse.Object{Bucket: object.Bucket, Key: object.Key}
	both := anyContext(object)
	both.Context = object.Context
	for mode, cs := range ciphers(t) {
		_, err := cs[0].Encrypt(ctx, anyContext(object))
		require.ErrorIs(t, err, sse.ErrInvalid, mode)
		e, err := cs[0].Encrypt(ctx, object)
		require.NoError(t, err)
		_, err = cs[0].Decrypt(ctx, forgotten, e.Envelope())
		require.ErrorIs(t, err, sse.ErrKey, mode)
		_, err = cs[0].Decrypt(ctx, both, e.Envelope())
		require.ErrorIs(t, err, sse.ErrInvalid, mode)
		d, err := cs[0].Decrypt(ctx, object, e.Envelope())
		require.NoError(t, err)
		for _, obj := range []sse.Object{forgotten, both} {
			_, err = cs[0].Rewrap(ctx, obj, d)
			require.ErrorIs(t, err, sse.ErrInvalid, mode)
		}
	}
}
