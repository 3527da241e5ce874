package sse_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/internal/testbed/ssetest"
	"github.com/blobseal/blobseal/sse"
)

// heard is what an observer heard.
type heard struct {
	plain int64
	ends  []error
}

func (h *heard) hear(plain int64, err error) {
	h.plain += plain
	if err != nil {
		h.ends = append(h.ends, err)
	}
}

var observedObject = sse.Object{Bucket: "b", Key: "k"}

func observedCipher(t *testing.T) sse.Cipher {
	c, err := sse.NewCustomer(bytes.Repeat([]byte{7}, 32))
	require.NoError(t, err)
	return c
}

// encryptObserved encrypts plain in one of several ways.
func encryptObserved(t *testing.T, c sse.Cipher, plain []byte, how string, h *heard) (*sse.Envelope, []byte) {
	e, err := c.Encrypt(t.Context(), observedObject)
	require.NoError(t, err)
	observed := e.Observed(h.hear)
	_, err = e.Reader(bytes.NewReader(plain)).Read(make([]byte, 1))
	require.ErrorIs(t, err, sse.ErrUsed, "the observed Encryption took the place of this one")
	var body bytes.Buffer
	switch how {
	case "write":
		w := observed.Writer(&body)
		for rest := plain; len(rest) > 0; rest = rest[min(len(rest), 10_000):] {
			_, err := w.Write(rest[:min(len(rest), 10_000)])
			require.NoError(t, err)
		}
		require.NoError(t, w.Close())
		require.NoError(t, w.Close())
	case "read from":
		w := observed.Writer(&body)
		_, err := w.(io.ReaderFrom).ReadFrom(bytes.NewReader(plain))
		require.NoError(t, err)
		require.NoError(t, w.Close())
	case "read":
		_, err := io.Copy(&body, struct{ io.Reader }{observed.Reader(bytes.NewReader(plain))})
		require.NoError(t, err)
	case "write to":
		_, err := observed.Reader(bytes.NewReader(plain)).(io.WriterTo).WriteTo(&body)
		require.NoError(t, err)
	}
	return observed.Envelope(), body.Bytes()
}

// TestObservedStreams: an observer hears of all plaintext bytes of an object and,
// once, of its end, however the stream is used.
func TestObservedStreams(t *testing.T) {
	c := observedCipher(t)
	for _, size := range []int{0, 1, sse.ChunkSize - 1, sse.ChunkSize, sse.ChunkSize + 1, 40 * sse.ChunkSize, 40*sse.ChunkSize + 5} {
		plain := bytes.Repeat([]byte("x"), size)
		for _, how := range []string{"write", "read from", "read", "write to"} {
			var h heard
			env, body := encryptObserved(t, c, plain, how, &h)
			require.Equal(t, heard{int64(size), []error{io.EOF}}, h, "%s of %d", how, size)

			d, err := c.Decrypt(t.Context(), observedObject, env)
			require.NoError(t, err)
			var whole, copied, part, random heard
			got, err := io.ReadAll(struct{ io.Reader }{d.Observed(whole.hear).Reader(bytes.NewReader(body))})
			require.NoError(t, err)
			require.Equal(t, plain, got)
			require.Equal(t, heard{int64(size), []error{io.EOF}}, whole)
			_, err = io.Copy(io.Discard, d.Observed(copied.hear).Reader(bytes.NewReader(body)))
			require.NoError(t, err)
			require.Equal(t, heard{int64(size), []error{io.EOF}}, copied)
			_, err = io.Copy(io.Discard, d.Observed(part.hear).RangeReader(bytes.NewReader(body), 0, int64(size)))
			require.NoError(t, err)
			require.Equal(t, heard{plain: int64(size)}, part, "a range has no end")
			at, err := d.Observed(random.hear).ReaderAt(bytes.NewReader(body), int64(len(body)))
			require.NoError(t, err)
			_, err = io.Copy(io.Discard, at)
			require.NoError(t, err)
			require.Equal(t, heard{plain: int64(size)}, random)
		}
	}
}

// TestObserversHearFailures: an observer hears of the error that ends a stream,
// once, and of no end.
func TestObserversHearFailures(t *testing.T) {
	c := observedCipher(t)
	plain := bytes.Repeat([]byte("x"), 3*sse.ChunkSize)
	var h heard
	env, body := encryptObserved(t, c, plain, "write", &h)
	d, err := c.Decrypt(t.Context(), observedObject, env)
	require.NoError(t, err)

	var cut heard
	r := d.Observed(cut.hear).Reader(bytes.NewReader(body[:len(body)-1]))
	_, err = io.ReadAll(r)
	require.ErrorIs(t, err, sse.ErrTruncated)
	_, again := r.Read(make([]byte, 1))
	require.Equal(t, err, again)
	require.Equal(t, []error{err}, cut.ends)

	var short heard
	_, err = d.Observed(short.hear).ReaderAt(bytes.NewReader(body), int64(len(body)-1))
	require.ErrorIs(t, err, sse.ErrCorrupt)
	require.Equal(t, []error{err}, short.ends)

	full := errors.New("disk is full")
	e, err := c.Encrypt(t.Context(), observedObject)
	require.NoError(t, err)
	var failed, second heard
	w := e.Observed(failed.hear).Observed(second.hear).Writer(fullDisk{full})
	_, err = w.Write(plain)
	require.ErrorIs(t, err, full)
	require.ErrorIs(t, w.Close(), full)
	require.Len(t, failed.ends, 1)
	require.ErrorIs(t, failed.ends[0], full)
	require.Equal(t, failed, second, "both observers hear the same")
}

type fullDisk struct{ err error }

func (w fullDisk) Write([]byte) (int, error) { return 0, w.err }

// observing is a Cipher whose objects have observers.
type observing struct {
	sse.Cipher
	sealed, opened *heard
}

func (o observing) Encrypt(ctx context.Context, obj sse.Object) (*sse.Encryption, error) {
	e, err := o.Cipher.Encrypt(ctx, obj)
	if err != nil {
		return nil, err
	}
	return e.Observed(o.sealed.hear), nil
}

func (o observing) Decrypt(ctx context.Context, obj sse.Object, env *sse.Envelope) (*sse.Decryption, error) {
	d, err := o.Cipher.Decrypt(ctx, obj, env)
	if err != nil {
		return nil, err
	}
	return d.Observed(o.opened.hear), nil
}

// TestObservedParts: observers hear of the bytes of composite objects.
func TestObservedParts(t *testing.T) {
	c := observing{observedCipher(t), new(heard), new(heard)}
	plain := bytes.Repeat([]byte("x"), 2*sse.ChunkSize+3)
	_, object := ssetest.SealParts(t, c, observedObject, nil, plain)
	require.Equal(t, heard{plain: int64(len(plain))}, *c.sealed)

	r, err := sse.NewReaderAt(t.Context(), bytes.NewReader(object), int64(len(object)), c, observedObject)
	require.NoError(t, err)
	got, err := io.ReadAll(r)
	require.NoError(t, err)
	require.Equal(t, plain, got)
	require.Equal(t, heard{plain: int64(len(plain))}, *c.opened)
}
