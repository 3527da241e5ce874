package chunked_test

import (
	"bytes"
	"fmt"
	"io"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/internal/chunked"
	"github.com/blobseal/blobseal/internal/testbed/fakeclock"
)

// Calls inside and outside of a bubble of testing/synctest share nothing that it
// watches.
func TestBubbles(t *testing.T) {
	c := newCipher(t)
	plaintext := pattern(6 * batch)
	for range 3 {
		encrypt(t, c, plaintext, 3)
		fakeclock.Test(t, func(t *testing.T) { encrypt(t, c, plaintext, 3) })
	}
}

// A source or destination that panics takes no goroutine with it: the bubble
// fails if one is left.
func TestPanicLeavesNoWorkers(t *testing.T) {
	fakeclock.Test(t, func(t *testing.T) {
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
	}
}

// TestPanicOfADestinationStays: the same for destinations. SPEC BODY-2 ERR-3
func TestPanicOfADestinationStays(t *testing.T) {
	c := newCipher(t)
	plaintext := pattern(6*batch + 500)
	body := encrypt(t, c, plaintext, 1)
	for _, calls := range []int{0, 1, 2, 5} {
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
