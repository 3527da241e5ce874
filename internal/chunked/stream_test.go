package chunked_test

import (
	"bytes"
	"crypto/hkdf"
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/internal/bubble"
	"github.com/blobseal/blobseal/internal/chunked"
)

const (
	chunk = chunked.ChunkSize
	batch = chunked.BatchChunks * chunk
)

// boundaries are the plaintext sizes where something changes.
var boundaries = []int{
	0, 1, 100, chunk - 1, chunk, chunk + 1, 2*chunk - 1, 2 * chunk, 2*chunk + 1,
	batch - 1, batch, batch + 1, batch + chunk, 3*batch + 5*chunk + 17, 20 * batch,
}

// pattern returns n bytes that differ from chunk to chunk.
func pattern(n int) []byte {
	p := make([]byte, n)
	src := rand.NewChaCha8([32]byte{1})
	src.Read(p)
	return p
}

func newCipher(t testing.TB) *chunked.Cipher {
	t.Helper()
	c, _, err := chunked.New(make([]byte, chunked.KeySize), []byte("test"))
	require.NoError(t, err)
	return c
}

// encryptings are all the ways to make a body. The pieces are step bytes long.
var encryptings = []struct {
	name string
	make func(c *chunked.Cipher, plaintext []byte, step int) ([]byte, error)
}{
	{"Write", func(c *chunked.Cipher, plaintext []byte, step int) ([]byte, error) {
		var body bytes.Buffer
		w := c.Writer(&body)
		for rest := plaintext; len(rest) > 0; {
			n, err := w.Write(rest[:min(step, len(rest))])
			if err != nil {
				return nil, err
			}
			rest = rest[n:]
		}
		return closed(&body, w, nil)
	}},
	{"Write, three cores", func(c *chunked.Cipher, plaintext []byte, step int) ([]byte, error) {
		var body bytes.Buffer
		w := c.WriterFrom(&body, 0, 3)
		_, err := w.Write(plaintext)
		return closed(&body, w, err)
	}},
	{"ReadFrom", func(c *chunked.Cipher, plaintext []byte, step int) ([]byte, error) {
		var body bytes.Buffer
		w := c.WriterFrom(&body, 0, 2)
		n, err := w.ReadFrom(bySteps(plaintext, step))
		if err == nil && n != int64(len(plaintext)) {
			err = fmt.Errorf("ReadFrom returned %d", n)
		}
		return closed(&body, w, err)
	}},
	{"Write, ReadFrom and Write", func(c *chunked.Cipher, plaintext []byte, step int) ([]byte, error) {
		var body bytes.Buffer
		w := c.Writer(&body)
		third := len(plaintext) / 3
		_, err1 := w.Write(plaintext[:third])
		n, err2 := w.ReadFrom(bytes.NewReader(plaintext[third : 2*third]))
		if n != int64(third) {
			return nil, fmt.Errorf("ReadFrom returned %d of %d", n, third)
		}
		_, err3 := w.Write(plaintext[2*third:])
		return closed(&body, w, errors.Join(err1, err2, err3))
	}},
	{"Read", func(c *chunked.Cipher, plaintext []byte, step int) ([]byte, error) {
		return drainBy(c.EncryptingReader(bytes.NewReader(plaintext)), step)
	}},
	{"Read from pieces", func(c *chunked.Cipher, plaintext []byte, step int) ([]byte, error) {
		return drainBy(c.EncryptingReader(bySteps(plaintext, step)), 3*batch)
	}},
	{"Read large, two cores", func(c *chunked.Cipher, plaintext []byte, step int) ([]byte, error) {
		return drainBy(c.EncryptingReaderFrom(bytes.NewReader(plaintext), 0, 2), 40*batch)
	}},
	{"WriteTo", func(c *chunked.Cipher, plaintext []byte, step int) ([]byte, error) {
		r := c.EncryptingReaderFrom(bySteps(plaintext, step), 0, 2)
		head := make([]byte, min(step, 50)) // some is read first, so that a rest is left over
		n, err := io.ReadFull(r, head)
		if n > 0 && errors.Is(err, io.ErrUnexpectedEOF) {
			err = nil
		}
		body := bytes.NewBuffer(head[:n])
		m, err2 := r.WriteTo(body)
		if err2 == nil && int(m)+n != body.Len() {
			err2 = fmt.Errorf("WriteTo returned %d", m)
		}
		return body.Bytes(), errors.Join(err, err2)
	}},
}

// closed returns the body after the writer's Close.
func closed(body *bytes.Buffer, w io.Closer, err error) ([]byte, error) {
	err = errors.Join(err, w.Close())
	return body.Bytes(), err
}

// bySteps is a reader that gives step bytes at a time and has no WriteTo.
func bySteps(p []byte, step int) io.Reader { return &stepReader{p, step} }

type stepReader struct {
	rest []byte
	step int
}

func (r *stepReader) Read(p []byte) (int, error) {
	if len(r.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), r.step)], r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// TestEveryWayGivesTheSameBody: the output is a function of the plaintext, not
// of how it came or on how many cores it was sealed.
func TestEveryWayGivesTheSameBody(t *testing.T) {
	c := newCipher(t)
	for _, size := range boundaries {
		plaintext := pattern(size)
		want := encrypt(t, c, plaintext, 1)
		wantSize, err := chunked.CiphertextSize(int64(size))
		require.NoError(t, err)
		require.EqualValues(t, wantSize, len(want))
		for _, way := range encryptings {
			for _, step := range []int{1, 100, chunk - 1, chunk, chunk + 1, batch + 3} {
				if step == 1 && size > 4*chunk {
					continue // slow, and nothing new
				}
				got, err := way.make(c, plaintext, step)
				require.NoError(t, err, "%s: %d by %d", way.name, size, step)
				require.True(t, bytes.Equal(want, got), "%s: %d by %d", way.name, size, step)
			}
		}
		for _, way := range readings {
			got, err := way.read(c, want)
			require.NoError(t, err, "%s: %d", way.name, size)
			require.True(t, bytes.Equal(plaintext, got), "%s: %d", way.name, size)
		}
		require.NoError(t, iotest.TestReader(c.Reader(bytes.NewReader(want)), plaintext))
	}
}

// SPEC MSG-8
func TestRanges(t *testing.T) {
	c := newCipher(t)
	for _, size := range boundaries {
		plaintext := pattern(size)
		body := encrypt(t, c, plaintext, 1)
		at, err := c.ReaderAt(bytes.NewReader(body), int64(len(body)))
		require.NoError(t, err)
		rng := rand.New(rand.NewPCG(1, uint64(size)))
		offs := []int{0, 1, chunk - 1, chunk, chunk + 1, size - 1, size, size / 2, size - chunk, rng.IntN(size + 1)}
		lens := []int{-1, 0, 1, chunk - 1, chunk, chunk + 1, 2 * chunk, batch, size, size + 5, rng.IntN(size + 1)}
		for _, off := range offs {
			if off < 0 || off > size {
				continue
			}
			for _, n := range lens {
				want := plaintext[off:]
				if n >= 0 {
					want = want[:min(n, len(want))]
				}
				name := fmt.Sprintf("size %d, off %d, n %d", size, off, n)
				from, length, err := chunked.CiphertextRange(int64(off), int64(n))
				require.NoError(t, err)
				for _, procs := range []int{1, 3} {
					// A source that holds what CiphertextRange says and then fails.
					src := body[from:]
					var end io.Reader = iotest.ErrReader(errors.New("read too much"))
					if length < 0 || length > int64(len(src)) {
						end = bytes.NewReader(nil)
					} else {
						src = src[:length]
					}
					r := func() *chunked.Reader {
						return c.RangeReader(io.MultiReader(bytes.NewReader(src), end), int64(off), int64(n)).OnProcs(procs)
					}
					got, err := drainBy(r(), 700)
					require.NoError(t, err, name)
					require.True(t, bytes.Equal(want, got), name)
					got, err = drainBy(r(), size+1)
					require.NoError(t, err, name)
					require.True(t, bytes.Equal(want, got), name)
					got, err = writeTo(r())
					require.NoError(t, err, name)
					require.True(t, bytes.Equal(want, got), name)
				}
				if n >= 0 {
					p := make([]byte, n)
					m, err := at.ReadAt(p, int64(off))
					require.True(t, bytes.Equal(want, p[:m]), name)
					if m < n {
						require.Equal(t, io.EOF, err, name)
					} else if err != io.EOF {
						require.NoError(t, err, name)
					}
				}
			}
		}
	}
}

func TestRangeOfACutBody(t *testing.T) {
	c := newCipher(t)
	body := encrypt(t, c, pattern(3*chunk+5), 1)
	read := func(off, n int64, keep int) error {
		from, _, err := chunked.CiphertextRange(off, n)
		require.NoError(t, err)
		_, err = drain(c.RangeReader(bytes.NewReader(body[from:keep]), off, n))
		return err
	}
	require.NoError(t, read(0, chunk-1, chunked.SealedChunkSize))
	require.ErrorIs(t, read(0, chunk, chunked.SealedChunkSize), chunked.ErrTruncated)
	require.NoError(t, read(0, chunk, chunked.SealedChunkSize+17))
	require.ErrorIs(t, read(0, chunk+1, chunked.SealedChunkSize), chunked.ErrTruncated)
	require.ErrorIs(t, read(0, -1, 2*chunked.SealedChunkSize), chunked.ErrTruncated)
	require.ErrorIs(t, read(chunk, 10, chunked.SealedChunkSize+500), chunked.ErrCorrupt)
	_, err := drain(c.RangeReader(bytes.NewReader(body), -1, 5))
	require.ErrorIs(t, err, chunked.ErrInvalid)
	_, err = drain(c.RangeReader(bytes.NewReader(body), chunked.MaxPlaintextSize+1, 5))
	require.ErrorIs(t, err, chunked.ErrTooLarge)
	at, err := c.ReaderAt(bytes.NewReader(body), int64(len(body)))
	require.NoError(t, err)
	_, err = at.ReadAt(make([]byte, 1), -1)
	require.ErrorIs(t, err, chunked.ErrInvalid)
}

// TestDamage changes a body in the ways a store can, and reads it in every way.
// SPEC MSG-5 MSG-6
func TestDamage(t *testing.T) {
	c, other := newCipher(t), newCipher(t)
	plaintext := pattern(batch*2 + 3*chunk + 100)
	body := encrypt(t, c, plaintext, 1)
	sealed := func(i int) []byte {
		return body[i*chunked.SealedChunkSize:][:chunked.SealedChunkSize]
	}
	edit := func(f func(b []byte) []byte) []byte { return f(bytes.Clone(body)) }
	damages := map[string][]byte{
		"first bit":  edit(func(b []byte) []byte { b[0] ^= 1; return b }),
		"last bit":   edit(func(b []byte) []byte { b[len(b)-1] ^= 0x80; return b }),
		"middle bit": edit(func(b []byte) []byte { b[len(b)/2] ^= 4; return b }),
		"swapped chunks": edit(func(b []byte) []byte {
			copy(b[chunked.SealedChunkSize:], sealed(2))
			copy(b[2*chunked.SealedChunkSize:], sealed(1))
			return b
		}),
		"duplicated chunk": edit(func(b []byte) []byte {
			return append(bytes.Clone(sealed(0)), b...)
		}),
		"dropped chunk":       body[chunked.SealedChunkSize:],
		"dropped last chunk":  body[:len(body)/chunked.SealedChunkSize*chunked.SealedChunkSize],
		"appended byte":       edit(func(b []byte) []byte { return append(b, 0) }),
		"appended chunk":      edit(func(b []byte) []byte { return append(b, sealed(0)...) }),
		"appended last chunk": edit(func(b []byte) []byte { return append(b, body[len(body)-116:]...) }),
		"empty":               nil,
		"cut in a tag":        body[:len(body)-3],
		"cut to 15 bytes":     body[:15],
		"another's chunk": edit(func(b []byte) []byte {
			copy(b[chunked.SealedChunkSize:], encrypt(t, other, plaintext, 1)[chunked.SealedChunkSize:][:chunked.SealedChunkSize])
			return b
		}),
		"another's body": encrypt(t, other, plaintext, 1),
	}
	for name, damaged := range damages {
		for _, way := range readings {
			got, err := way.read(c, damaged)
			require.ErrorIs(t, err, chunked.ErrCorrupt, "%s, %s", name, way.name)
			require.True(t, bytes.HasPrefix(plaintext, got), "%s, %s: wrong plaintext", name, way.name)
		}
	}
	_, err := drain(c.Reader(bytes.NewReader(damages["dropped last chunk"])))
	require.ErrorIs(t, err, chunked.ErrTruncated)

	// The first bad chunk is named, whatever the number of cores.
	for _, procs := range []int{1, 2, 5} {
		_, err := writeTo(c.Reader(bytes.NewReader(damages["swapped chunks"])).OnProcs(procs))
		var bad *chunked.ChunkError
		require.ErrorAs(t, err, &bad)
		require.EqualValues(t, 1, bad.Chunk)
	}
}

// TestNothingBehindABadChunk: what a failed large read leaves in the caller's
// buffer behind the good prefix is zero.
// SPEC MSG-5
func TestNothingBehindABadChunk(t *testing.T) {
	c := newCipher(t)
	plaintext := bytes.Repeat([]byte{0xAA}, 6*batch)
	whole := encrypt(t, c, plaintext, 1)
	for _, bad := range []int{2, 2 * chunked.BatchChunks} { // behind the latter, workers open others
		body := bytes.Clone(whole)
		body[bad*chunked.SealedChunkSize+7] ^= 1
		at, err := c.ReaderAt(bytes.NewReader(body), int64(len(body)))
		require.NoError(t, err)
		for range 10 {
			for name, read := range map[string]func(p []byte) (int, error){
				"Read":   c.Reader(bytes.NewReader(body)).OnProcs(4).Read,
				"ReadAt": func(p []byte) (int, error) { return at.OnProcs(4).ReadAt(p, 0) },
			} {
				p := make([]byte, 6*batch)
				n, err := read(p)
				require.ErrorIs(t, err, chunked.ErrCorrupt, name)
				require.Equal(t, bad*chunk, n, name)
				require.True(t, bytes.Equal(plaintext[:n], p[:n]), name)
				require.True(t, bytes.Equal(make([]byte, len(p)-n), p[n:]), name)
			}
		}
	}
}

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
		for _, short := range []bool{false, true} {
			want := full
			if short {
				want = io.ErrShortWrite
			}
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
				dst := &limitedWriter{n: room, err: full, short: short}
				again, err := run(dst)
				require.ErrorIs(t, err, want, "%s, room for %d", name, room)
				require.ErrorIs(t, again(), want, "%s, room for %d: did not stay failed", name, room)
				require.Zero(t, dst.calls, "%s, room for %d: wrote after a failure", name, room)
			}
		}
	}
}

// Calls inside and outside of a bubble of testing/synctest share nothing that it
// watches.
func TestBubbles(t *testing.T) {
	c := newCipher(t)
	plaintext := pattern(6 * batch)
	for range 3 {
		encrypt(t, c, plaintext, 3)
		bubble.Test(t, func(t *testing.T) { encrypt(t, c, plaintext, 3) })
	}
}

// A source or destination that panics takes no goroutine with it: the bubble
// fails if one is left.
func TestPanicLeavesNoWorkers(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		c := newCipher(t)
		plaintext := pattern(6*batch + 5)
		after := func(n int) func() {
			return func() {
				if n--; n < 0 {
					panic("stop")
				}
			}
		}
		for n := range 6 {
			tick := after(n)
			dst := writerFunc(func(p []byte) (int, error) { tick(); return len(p), nil })
			require.PanicsWithValue(t, "stop", func() { c.WriterFrom(dst, 0, 3).Write(plaintext) })
			tick = after(n)
			src := bytes.NewReader(plaintext)
			require.PanicsWithValue(t, "stop", func() {
				c.WriterFrom(io.Discard, 0, 3).ReadFrom(readerFunc(func(p []byte) (int, error) { tick(); return src.Read(p) }))
			})
		}
	})
}

// TestPanicStays: what a source gave before it panicked, or a destination took, is
// not known, so that the stream has failed, and no body that lacks a part of its
// plaintext passes for whole. SPEC BODY-2 ERR-3
func TestPanicStays(t *testing.T) {
	c := newCipher(t)
	plaintext := pattern(6*batch + 500)
	body := encrypt(t, c, plaintext, 1)
	for _, calls := range []int{0, 1, 2, 5} {
		for _, step := range []int{1000, chunk, 2 * batch} {
			name := fmt.Sprintf("%d calls of %d bytes", calls, step)
			bad := func(p []byte) io.Reader { // panics once, after so many calls
				src, n := bySteps(p, step), 0
				return readerFunc(func(p []byte) (int, error) {
					if n++; n == calls+1 {
						panic("stop")
					}
					return src.Read(p)
				})
			}
			fails := func(call func() error) {
				t.Helper()
				require.PanicsWithValue(t, "stop", func() { call() }, name)
				err := call()
				require.ErrorContains(t, err, "panicked", name)
				require.Equal(t, err, call(), name)
			}
			// Encryption.
			var dst bytes.Buffer
			w, src := c.Writer(&dst), bad(plaintext)
			fails(func() error { _, err := w.ReadFrom(src); return err })
			require.ErrorContains(t, w.Close(), "panicked", name)
			_, err := drain(c.Reader(&dst))
			require.ErrorIs(t, err, chunked.ErrTruncated, name)
			for _, size := range []int{100, 5 * batch} {
				r := c.EncryptingReader(bad(plaintext))
				fails(func() error { _, err := drainBy(r, size); return err })
			}
			r := c.EncryptingReader(bad(plaintext))
			fails(func() error { _, err := r.WriteTo(io.Discard); return err })

			// Decryption.
			r = c.Reader(bad(body))
			fails(func() error { _, err := drainBy(r, 5*batch); return err })
			r = c.Reader(bad(body))
			fails(func() error { _, err := r.WriteTo(io.Discard); return err })
		}
		// A destination.
		bad := func() io.Writer {
			n := 0
			return writerFunc(func(p []byte) (int, error) {
				if n++; n == calls+1 {
					panic("stop")
				}
				return len(p), nil
			})
		}
		call := func(f func() error) {
			t.Helper()
			require.PanicsWithValue(t, "stop", func() { f() }, calls)
			require.ErrorContains(t, f(), "panicked", calls)
		}
		w := c.Writer(bad())
		call(func() error { _, err := w.Write(plaintext); return err })
		require.ErrorContains(t, w.Close(), "panicked")
		r := c.Reader(bytes.NewReader(body))
		_, err := r.Read(make([]byte, 10)) // so that some is left over
		require.NoError(t, err)
		dst := bad()
		call(func() error { _, err := r.WriteTo(dst); return err })
		_, err = r.Read(make([]byte, 10))
		require.ErrorContains(t, err, "panicked")
	}
	w := c.Writer(writerFunc(func([]byte) (int, error) { panic("stop") }))
	require.Panics(t, func() { w.Close() })
	require.ErrorContains(t, w.Close(), "panicked", "an object that was perhaps not sealed")

	// A source that writes itself, and panics, or hides that the destination did.
	r := c.EncryptingReader(hidingSource{plaintext, false})
	require.Panics(t, func() { r.WriteTo(io.Discard) })
	_, err := r.Read(make([]byte, 10))
	require.ErrorContains(t, err, "panicked")
	r = c.EncryptingReader(hidingSource{plaintext, true})
	_, err = r.WriteTo(writerFunc(func([]byte) (int, error) { panic("stop") }))
	require.ErrorContains(t, err, "panicked")
}

// hidingSource writes itself. It panics at its end, or hides panics.
type hidingSource struct {
	p    []byte
	hide bool
}

func (hidingSource) Read([]byte) (int, error) { panic("unused") }

func (s hidingSource) WriteTo(w io.Writer) (n int64, err error) {
	if s.hide {
		defer func() { recover() }()
	} else {
		defer panic("stop")
	}
	m, err := w.Write(s.p)
	return int64(m), err
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

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestUnclosedWriterIsTruncated(t *testing.T) {
	c := newCipher(t)
	for _, size := range boundaries {
		var dst bytes.Buffer
		w := c.Writer(&dst)
		_, err := w.Write(pattern(size))
		require.NoError(t, err)
		_, err = drain(c.Reader(&dst))
		require.ErrorIs(t, err, chunked.ErrTruncated, size)
	}
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

// Each call goes on where the one before left off.
func TestWritesAndReadFromsInTurns(t *testing.T) {
	c := newCipher(t)
	plaintext := pattern(9*batch + 77)
	var body bytes.Buffer
	w := c.Writer(&body)
	for i, rest := 0, plaintext; len(rest) > 0; i++ {
		part := rest[:min(2*batch+5001, len(rest))]
		rest = rest[len(part):]
		if i%3 == 2 {
			_, err := w.Write(part)
			require.NoError(t, err)
			continue
		}
		n, err := w.ReadFrom(bytes.NewReader(part))
		require.NoError(t, err)
		require.EqualValues(t, len(part), n)
	}
	require.NoError(t, w.Close())
	require.True(t, bytes.Equal(encrypt(t, c, plaintext, 1), body.Bytes()))
}

// deafSource is an io.WriterTo that does not look at errors.
type deafSource struct{ p []byte }

func (deafSource) Read([]byte) (int, error) { panic("unused") }

func (s deafSource) WriteTo(w io.Writer) (int64, error) {
	w.Write(s.p)
	return int64(len(s.p)), nil
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

// eagerReaderAt reports the end with the last bytes, as an io.ReaderAt may.
type eagerReaderAt struct{ *bytes.Reader }

func (r eagerReaderAt) ReadAt(p []byte, off int64) (int, error) {
	n, err := r.Reader.ReadAt(p, off)
	if err == nil && off+int64(n) == r.Size() {
		err = io.EOF
	}
	return n, err
}

func TestReaderAtWithEagerEnd(t *testing.T) {
	c := newCipher(t)
	plaintext := pattern(3*chunk + 5)
	body := encrypt(t, c, plaintext, 1)
	r, err := c.ReaderAt(eagerReaderAt{bytes.NewReader(body)}, int64(len(body)))
	require.NoError(t, err)
	p := make([]byte, len(plaintext))
	n, err := r.ReadAt(p, 0)
	require.NoError(t, err)
	require.Equal(t, plaintext, p[:n])
}

// TestBurstThenWait: what came before a pause of the source is released before
// the source is asked again, also if other batches are still under way.
func TestBurstThenWait(t *testing.T) {
	c := newCipher(t)
	plaintext := pattern(3*batch + 2*chunk)
	body := encrypt(t, c, plaintext, 1)
	rest, given, seen := body, 0, 0
	burst := readerFunc(func(p []byte) (int, error) {
		if given == 4 && seen < 3*batch+chunk {
			return 0, fmt.Errorf("asked again when only %d bytes were released", seen)
		}
		n := copy(p, rest[:min(len(rest), len(p))])
		if given == 3 {
			n = chunked.SealedChunkSize
		}
		given++
		rest = rest[n:]
		if len(rest) == 0 {
			return n, io.EOF
		}
		return n, nil
	})
	n, err := c.Reader(burst).OnProcs(4).WriteTo(writerFunc(func(p []byte) (int, error) {
		seen += len(p)
		return len(p), nil
	}))
	require.NoError(t, err)
	require.EqualValues(t, len(plaintext), n)
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

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
	c, err := chunked.Raw(make([]byte, 32), bytes.Repeat([]byte{0xF0}, 12))
	require.NoError(t, err)
	for _, i := range []uint64{0, 1, 255, 256, 1<<16 - 1, 1 << 16, 1<<32 + 5, 1<<38 - 1} {
		var want [12]byte
		binary.BigEndian.PutUint64(want[4:], i)
		for j := range want {
			want[j] ^= 0xF0
		}
		require.Equal(t, want, c.Nonce(i))
	}
}

// TestHighIndices starts streams near the places where a counter could wrap,
// and at the end of the longest message.
// SPEC MSG-2 LIM-1
func TestHighIndices(t *testing.T) {
	c := newCipher(t)
	plaintext := pattern(5*batch + 3)
	for _, first := range []uint64{1<<16 - 3, 1<<32 - 3, chunked.MaxChunks - 5*chunked.BatchChunks - 1} {
		for _, procs := range []int{1, 3} {
			var body bytes.Buffer
			w := c.WriterFrom(&body, first, procs)
			_, err := w.Write(plaintext)
			require.NoError(t, err)
			require.NoError(t, w.Close())
			pulled, err := drain(c.EncryptingReaderFrom(bytes.NewReader(plaintext), first, procs))
			require.NoError(t, err)
			require.True(t, bytes.Equal(body.Bytes(), pulled))
			got, err := writeTo(c.ReaderFrom(bytes.NewReader(pulled), first, procs))
			require.NoError(t, err)
			require.True(t, bytes.Equal(plaintext, got))
			_, err = drain(c.ReaderFrom(bytes.NewReader(pulled), first^1, procs))
			require.ErrorIs(t, err, chunked.ErrCorrupt)
		}
	}
	// One whole chunk more than a message can hold, in every direction.
	for _, over := range []uint64{1, 2, chunked.BatchChunks, 3 * chunked.BatchChunks} {
		first := chunked.MaxChunks - over
		long := pattern(int(over) * chunk)
		for _, procs := range []int{1, 3} {
			w := c.WriterFrom(io.Discard, first, procs)
			_, err := w.Write(long)
			require.ErrorIs(t, err, chunked.ErrTooLarge)
			require.ErrorIs(t, w.Close(), chunked.ErrTooLarge)
			w = c.WriterFrom(io.Discard, first, procs)
			_, err = w.ReadFrom(bytes.NewReader(long))
			require.ErrorIs(t, err, chunked.ErrTooLarge)
			w = c.WriterFrom(io.Discard, first, procs)
			_, err = io.Copy(struct{ io.Writer }{w}, bySteps(long, 1000))
			require.ErrorIs(t, err, chunked.ErrTooLarge)
			_, err = drain(c.EncryptingReaderFrom(bytes.NewReader(long), first, procs))
			require.ErrorIs(t, err, chunked.ErrTooLarge)
			_, err = drainBy(c.EncryptingReaderFrom(bytes.NewReader(long), first, procs), 50*batch)
			require.ErrorIs(t, err, chunked.ErrTooLarge)
			var sealed []byte // authentic chunks, of which the last is one too many
			lower := c.WriterFrom(writerFunc(func(p []byte) (int, error) {
				sealed = append(sealed, p...)
				return len(p), nil
			}), first-1, procs)
			_, err = lower.Write(long)
			require.NoError(t, err)
			for _, size := range []int{1000, 50 * batch} {
				_, err = drainBy(c.ReaderFrom(bytes.NewReader(append(sealed, sealed[:chunked.SealedChunkSize]...)), first-1, procs), size)
				require.ErrorIs(t, err, chunked.ErrTooLarge)
			}
		}
	}
}

// SPEC MSG-2 MSG-7
func TestSizes(t *testing.T) {
	for _, tc := range []struct{ plain, body int64 }{
		{0, 16}, {1, 17}, {chunk - 1, chunk + 15}, {chunk, chunk + 32}, {chunk + 1, chunk + 33},
		{2 * chunk, 2*chunk + 48}, {chunked.MaxPlaintextSize, chunked.MaxPlaintextSize + 16<<38},
	} {
		body, err := chunked.CiphertextSize(tc.plain)
		require.NoError(t, err)
		require.Equal(t, tc.body, body)
		plain, err := chunked.PlaintextSize(tc.body)
		require.NoError(t, err)
		require.Equal(t, tc.plain, plain)
	}
	for _, invalid := range []int64{0, 1, 15, chunk + 16, chunk + 31, 2 * (chunk + 16), 5*(chunk+16) + 15} {
		_, err := chunked.PlaintextSize(invalid)
		require.ErrorIs(t, err, chunked.ErrTruncated, invalid)
	}
	for _, f := range []func(int64) (int64, error){chunked.CiphertextSize, chunked.PlaintextSize} {
		_, err := f(-1)
		require.ErrorIs(t, err, chunked.ErrInvalid)
		_, err = f(1<<63 - 1)
		require.ErrorIs(t, err, chunked.ErrTooLarge)
	}
	_, err := chunked.CiphertextSize(chunked.MaxPlaintextSize + 1)
	require.ErrorIs(t, err, chunked.ErrTooLarge)
	_, err = chunked.PlaintextSize(chunked.MaxPlaintextSize + 16<<38 + 1)
	require.ErrorIs(t, err, chunked.ErrTooLarge)
	// Every body size is either invalid or the size of one plaintext.
	for body := int64(0); body < 3*chunked.SealedChunkSize; body++ {
		plain, err := chunked.PlaintextSize(body)
		if err != nil {
			continue
		}
		again, err := chunked.CiphertextSize(plain)
		require.NoError(t, err)
		if again != body {
			t.Fatalf("body %d -> plain %d -> body %d", body, plain, again)
		}
	}
	for _, tc := range []struct{ off, n, wantOff, wantLen int64 }{
		{0, 0, 0, 0}, {0, 1, 0, 16400}, {0, chunk - 1, 0, 16400}, {0, chunk, 0, 16417}, {0, chunk + 1, 0, 32800},
		{chunk - 1, 1, 0, 16417}, {chunk - 1, 2, 0, 32800}, {chunk, 1, 16400, 16400}, {5*chunk + 3, -1, 5 * 16400, -1},
		{chunked.MaxPlaintextSize - chunk, 1, (chunked.MaxChunks - 2) * 16400, 16417},
		{chunked.MaxPlaintextSize, 1 << 62, (chunked.MaxChunks - 1) * 16400, 16400},
	} {
		off, n, err := chunked.CiphertextRange(tc.off, tc.n)
		require.NoError(t, err)
		require.Equal(t, [2]int64{tc.wantOff, tc.wantLen}, [2]int64{off, n}, "%+v", tc)
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

// recordingAt counts what is read from a source, by chunk.
type recordingAt struct {
	io.ReaderAt
	chunks []int64
}

func (r *recordingAt) ReadAt(p []byte, off int64) (int, error) {
	for at := off; at < off+int64(len(p)); at += chunked.SealedChunkSize {
		r.chunks = append(r.chunks, at/chunked.SealedChunkSize)
	}
	return r.ReaderAt.ReadAt(p, off)
}

// SPEC MSG-8
func TestReadAtTouchesOnlyItsChunks(t *testing.T) {
	c := newCipher(t)
	plaintext := pattern(100*chunk + 5)
	body := encrypt(t, c, plaintext, 1)
	src := &recordingAt{ReaderAt: bytes.NewReader(body)}
	at, err := c.ReaderAt(src, int64(len(body)))
	require.NoError(t, err)
	require.Equal(t, []int64{100}, src.chunks, "the last chunk authenticates the length")
	for _, tc := range []struct {
		off  int64
		n    int
		want []int64
	}{
		{40*chunk + 5, 4096, []int64{40}},
		{41*chunk - 100, 4096, []int64{40, 41}},
		{7 * chunk, chunk, []int64{7}},
		{100 * chunk, 5, []int64{100}},
		{100*chunk + 5, 5, nil},
	} {
		src.chunks = nil
		p := make([]byte, tc.n)
		n, _ := at.ReadAt(p, tc.off)
		require.True(t, bytes.Equal(plaintext[tc.off:][:n], p[:n]))
		require.Equal(t, tc.want, src.chunks)
	}
}

// TestNoAllocationPerChunk compares calls that differ only in their length.
func TestNoAllocationPerChunk(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	c := newCipher(t)
	long := pattern(64 * batch)
	body := encrypt(t, c, long, 1)
	out := make([]byte, len(body)+chunk)
	at, err := c.ReaderAt(bytes.NewReader(body), int64(len(body)))
	require.NoError(t, err)
	for name, f := range map[string]func(plain, sealed int){
		"Write": func(plain, _ int) { c.WriterFrom(io.Discard, 0, 1).Write(long[:plain]) },
		"ReadFrom": func(plain, _ int) {
			c.WriterFrom(io.Discard, 0, 1).ReadFrom(bytes.NewReader(long[:plain]))
		},
		"encrypting Read": func(plain, _ int) {
			io.ReadFull(c.EncryptingReaderFrom(bytes.NewReader(long[:plain]), 0, 1), out[:plain])
		},
		"small encrypting Reads": func(plain, _ int) {
			io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{c.EncryptingReader(bytes.NewReader(long[:plain]))}, out[:1000])
		},
		"WriteTo": func(_, sealed int) {
			c.Reader(bytes.NewReader(body[:sealed])).OnProcs(1).WriteTo(io.Discard)
		},
		"Read": func(plain, sealed int) {
			io.ReadFull(c.Reader(bytes.NewReader(body[:sealed])).OnProcs(1), out[:plain])
		},
		"small Reads": func(_, sealed int) {
			io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{c.Reader(bytes.NewReader(body[:sealed]))}, out[:1000])
		},
		"ReadAt": func(plain, _ int) { at.OnProcs(1).ReadAt(out[:plain], 0) },
	} {
		measure := func(batches int) float64 {
			return testing.AllocsPerRun(5, func() {
				f(batches*batch, batches*chunked.BatchChunks*chunked.SealedChunkSize)
			})
		}
		short, long := measure(4), measure(64)
		require.InDelta(t, short, long, 8, "%s: %v allocations for 32 chunks, %v for 512", name, short, long)
	}
}

// TestMemory holds streams to their bounds.
func TestMemory(t *testing.T) {
	if testing.Short() || raceEnabled {
		t.Skip("measures the heap")
	}
	c := newCipher(t)
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC() // twice, so that pools are empty
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc + m.StackInuse)
	}
	const streams = 10_000
	small := pattern(1024)
	body := encrypt(t, c, pattern(4*chunk), 1)
	opened := make([]any, 0, streams)
	for name, open := range map[string]func() any{
		"writers": func() any {
			w := c.Writer(io.Discard)
			w.Write(small)
			return w
		},
		"encrypting readers": func() any {
			r := c.EncryptingReader(bytes.NewReader(body))
			r.Read(make([]byte, 1024))
			return r
		},
		"readers": func() any {
			r := c.Reader(bytes.NewReader(body))
			r.Read(make([]byte, 1024))
			return r
		},
	} {
		before := heap()
		for range streams {
			opened = append(opened, open())
		}
		each := (heap() - before) / streams
		t.Logf("%d open %s hold %d bytes each", streams, name, each)
		require.Less(t, each, int64(64<<10), name)
		runtime.KeepAlive(opened)
		clear(opened)
		opened = opened[:0]
	}

	// A long stream: 256 MiB pass through while the heap is watched.
	before, most := heap(), int64(0)
	watch := writerFunc(func(p []byte) (int, error) {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		most = max(most, int64(m.HeapAlloc+m.StackInuse)-before)
		return len(p), nil
	})
	n, err := c.EncryptingReader(io.LimitReader(zeros{}, 256<<20)).WriteTo(watch)
	require.NoError(t, err)
	require.Greater(t, n, int64(256<<20))
	t.Logf("a stream of 256 MiB grew the heap by at most %d KiB", most>>10)
	require.Less(t, most, int64(4<<20))
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
