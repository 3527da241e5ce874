package chunked_test

import (
	"bytes"
	"cmp"
	"errors"
	"io"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/internal/chunked"
)

// limitedWriter fails once it has taken n bytes.
type limitedWriter struct {
	n     int
	err   error
	short bool // report fewer bytes without an error
	calls int  // after the failure
}

func (w *limitedWriter) Write(p []byte) (int, error) {
	if w.n < 0 {
		w.calls++
	}
	if w.n -= len(p); w.n < 0 {
		if w.short {
			return len(p) - 1, nil
		}
		return 0, w.err
	}
	return len(p), nil
}

// SPEC ERR-3
func TestFailingDestination(t *testing.T) {
	c := newCipher(t)
	full := errors.New("disk full")
	plaintext := pattern(12*batch + 5)
	body := encrypt(t, c, plaintext, 1)
	for _, room := range []int{0, 5, chunked.SealedChunkSize, 5 * batch, 12 * batch} {
		for _, want := range []error{full, io.ErrShortWrite, io.EOF} {
			for name, run := range map[string]func(dst io.Writer) (again func() error, err error){
				"Write": func(dst io.Writer) (func() error, error) {
					w := c.WriterFrom(dst, 0, 3)
					_, err := w.Write(plaintext)
					if err == nil {
						err = w.Close()
					}
					return func() error { _, err := w.Write(plaintext); return errors.Join(err, w.Close()) }, err
				},
				"small Writes": func(dst io.Writer) (func() error, error) {
					w := c.Writer(dst)
					_, err := io.CopyBuffer(struct{ io.Writer }{w}, bySteps(plaintext, 5000), make([]byte, 5000))
					if err == nil {
						err = w.Close()
					}
					return w.Close, err
				},
				"ReadFrom": func(dst io.Writer) (func() error, error) {
					w := c.WriterFrom(dst, 0, 3)
					_, err := w.ReadFrom(bytes.NewReader(plaintext))
					if err == nil {
						err = w.Close()
					}
					return w.Close, err
				},
				"WriteTo, encrypting": func(dst io.Writer) (func() error, error) {
					r := c.EncryptingReaderFrom(bytes.NewReader(plaintext), 0, 3)
					_, err := r.WriteTo(dst)
					return func() error { _, err := r.Read(make([]byte, 1)); return err }, err
				},
				"WriteTo, decrypting": func(dst io.Writer) (func() error, error) {
					r := c.Reader(bytes.NewReader(body)).OnProcs(3)
					_, err := r.WriteTo(dst)
					return func() error { _, err := r.Read(make([]byte, 1)); return err }, err
				},
			} {
				dst := &limitedWriter{n: room, err: want, short: want == io.ErrShortWrite}
				again, err := run(dst)
				require.ErrorIs(t, err, want, "%s, room for %d", name, room)
				require.False(t, err == io.EOF, "%s, room for %d: a good end", name, room)
				require.ErrorIs(t, again(), want, "%s, room for %d: did not stay failed", name, room)
				require.Zero(t, dst.calls, "%s, room for %d: wrote after a failure", name, room)
			}
		}
	}
}

// SPEC BODY-2 ERR-3
func TestFailingSource(t *testing.T) {
	c := newCipher(t)
	broken := errors.New("connection reset")
	plaintext := pattern(3*batch + 500)
	body := encrypt(t, c, plaintext, 1)
	for _, keep := range []int{0, 1, chunk, chunk + 1, 2*batch + 100} {
		src := func(p []byte) io.Reader {
			return io.MultiReader(bytes.NewReader(p[:keep]), iotest.ErrReader(broken))
		}
		// Decryption: the error stays, and only a prefix comes out.
		for _, size := range []int{100, 5 * batch} {
			got, err := drainBy(c.Reader(src(body)), size)
			require.ErrorIs(t, err, broken)
			require.True(t, bytes.HasPrefix(plaintext, got))
		}
		got, err := writeTo(c.Reader(src(body)).OnProcs(2))
		require.ErrorIs(t, err, broken)
		require.True(t, bytes.HasPrefix(plaintext, got))
		// Encryption: no body that passes for whole.
		got, err = drainBy(c.EncryptingReader(src(plaintext)), 100)
		require.ErrorIs(t, err, broken)
		_, err = drain(c.Reader(bytes.NewReader(got)))
		require.ErrorIs(t, err, chunked.ErrTruncated)
		var dst bytes.Buffer
		w := c.Writer(&dst)
		_, err = w.ReadFrom(src(plaintext))
		require.ErrorIs(t, err, broken)
		require.ErrorIs(t, w.Close(), broken)
		_, err = drain(c.Reader(&dst))
		require.ErrorIs(t, err, chunked.ErrTruncated)
	}
	// Sources that break the contract of io.Reader.
	_, err := drain(c.Reader(readerFunc(func(p []byte) (int, error) { return 0, nil })))
	require.ErrorIs(t, err, io.ErrNoProgress)
	for _, n := range []int{-1, 1 << 30} {
		_, err = drain(c.Reader(readerFunc(func(p []byte) (int, error) { return n, nil })))
		require.ErrorContains(t, err, "invalid count")
	}
	// A source that shrinks under a ReaderAt.
	at, err := c.ReaderAt(bytes.NewReader(body), int64(len(body)))
	require.NoError(t, err)
	require.NotNil(t, at)
	_, err = c.ReaderAt(bytes.NewReader(body[:len(body)-1]), int64(len(body)))
	require.ErrorIs(t, err, chunked.ErrTruncated)
}

// deafSource is an io.WriterTo that does not look at errors.
type deafSource struct{ p []byte }

func (deafSource) Read([]byte) (int, error) { panic("unused") }

func (s deafSource) WriteTo(w io.Writer) (int64, error) {
	w.Write(s.p)
	return int64(len(s.p)), nil
}

// eagerSource writes itself, and calls its end io.EOF, which WriteTo should not.
type eagerSource struct{ bytes.Reader }

func (s *eagerSource) WriteTo(w io.Writer) (int64, error) {
	n, err := s.Reader.WriteTo(w)
	return n, cmp.Or(err, io.EOF)
}

// TestSourceWhoseWriteToReturnsEOF: such an end is proved like any other. SPEC ERR-3
func TestSourceWhoseWriteToReturnsEOF(t *testing.T) {
	c := newCipher(t)
	plaintext := pattern(3*batch + 500)
	body := encrypt(t, c, plaintext, 1)
	source := func(p []byte) io.Reader { return &eagerSource{*bytes.NewReader(p)} }
	got, err := writeTo(c.Reader(source(body)))
	require.NoError(t, err)
	require.Equal(t, plaintext, got)
	for _, cut := range []int{0, chunked.SealedChunkSize, 3 * chunked.SealedChunkSize} {
		got, err = writeTo(c.Reader(source(body[:cut])))
		require.ErrorIs(t, err, chunked.ErrTruncated, cut)
		require.Less(t, len(got), len(plaintext))
	}
	got, err = writeTo(c.EncryptingReader(source(plaintext)))
	require.NoError(t, err)
	got, err = drain(c.Reader(bytes.NewReader(got)))
	require.NoError(t, err)
	require.Equal(t, plaintext, got)
}

// TestDestinationIsAClosedWriter: its error is not the end of the writer over it.
func TestDestinationIsAClosedWriter(t *testing.T) {
	c := newCipher(t)
	inner := c.Writer(io.Discard)
	require.NoError(t, inner.Close())
	_, closed := inner.Write([]byte("x"))
	outer := c.Writer(inner)
	require.Error(t, outer.Close())
	require.Error(t, outer.Close())
	outer = c.Writer(io.Discard)
	_, err := outer.ReadFrom(iotest.ErrReader(closed))
	require.ErrorIs(t, err, closed)
	require.ErrorIs(t, outer.Close(), closed)
}

func TestSourceThatHidesErrors(t *testing.T) {
	c := newCipher(t)
	plaintext := pattern(batch)
	full := errors.New("disk full")
	writes := 0
	_, err := c.EncryptingReader(deafSource{plaintext}).WriteTo(writerFunc(func(p []byte) (int, error) {
		if writes++; writes == 1 {
			return 0, full
		}
		return len(p), nil
	}))
	require.ErrorIs(t, err, full)
	require.Equal(t, 1, writes, "nothing is written after a failure")
	body := encrypt(t, c, plaintext, 1)
	body[chunk] ^= 1
	r := c.Reader(deafSource{body})
	_, err = r.WriteTo(io.Discard)
	require.Equal(t, &chunked.ChunkError{Chunk: 0}, err)
	_, err = r.Read(make([]byte, 1))
	require.Equal(t, &chunked.ChunkError{Chunk: 0}, err)
}

func TestClosedWriter(t *testing.T) {
	var dst bytes.Buffer
	w := newCipher(t).Writer(&dst)
	n, err := w.Write(nil)
	require.NoError(t, err)
	require.Zero(t, n)
	require.Zero(t, dst.Len())
	require.NoError(t, w.Close())
	require.NoError(t, w.Close())
	require.Equal(t, chunked.TagSize, dst.Len())
	_, err = w.Write([]byte("late"))
	require.ErrorContains(t, err, "closed writer")
	_, err = w.ReadFrom(bytes.NewReader([]byte("late")))
	require.ErrorContains(t, err, "closed writer")
	require.NoError(t, w.Close())
	require.Equal(t, chunked.TagSize, dst.Len())
}
