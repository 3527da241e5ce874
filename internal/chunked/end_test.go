package chunked_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/internal/chunked"
)

const sealed = chunked.SealedChunkSize

// claimed is the plaintext size that a body's size suggests, true or not.
func claimed(body int) int64 {
	size, err := chunked.PlaintextSize(int64(body))
	if err != nil { // no size of a body: take all that could come
		size = int64(body/sealed) * chunk
	}
	return size
}

// TestCutBodyStopsShort reads bodies that were cut, and stops at the length
// that the cut body's size suggests, without asking for the end behind it.
// SPEC MSG-9
func TestCutBodyStopsShort(t *testing.T) {
	c := newCipher(t)
	for _, size := range []int{1, chunk - 1, chunk, chunk + 1, 3 * chunk, 3*chunk + 5, batch, batch + chunk} {
		plaintext := pattern(size)
		body := encrypt(t, c, plaintext, 1)
		cuts := []int{0, 1, 15, 16, 17, len(body) - 1, len(body) - 16, len(body) - 17, len(body) - sealed}
		last := len(body) / sealed
		for _, k := range []int{1, 2, last - 1, last} {
			for _, d := range []int{-1, 0, 15, 16, 17} {
				cuts = append(cuts, k*sealed+d)
			}
		}
		for _, cut := range cuts {
			if cut < 0 || cut >= len(body) {
				continue
			}
			for _, step := range []int{1000, sealed, sealed + 16, 1 << 20} {
				claim := claimed(cut)
				for name, read := range limitedReadings {
					got, err := read(c, bySteps(body[:cut], step), claim)
					what := fmt.Sprintf("%s, %d bytes, cut to %d, by %d", name, size, cut, step)
					if claim > 0 {
						require.Less(t, int64(len(got)), claim, what)
						require.ErrorIs(t, err, chunked.ErrCorrupt, what)
					}
					require.True(t, bytes.HasPrefix(plaintext, got), what)
					if whole := cut / sealed * chunk; step == 1<<20 {
						require.GreaterOrEqual(t, len(got), whole-1, "%s: held back too much", what)
					}
				}
			}
		}
	}
}

// limitedReadings read n bytes of a body, and no more.
var limitedReadings = map[string]func(c *chunked.Cipher, body io.Reader, n int64) ([]byte, error){
	"ReadFull": func(c *chunked.Cipher, body io.Reader, n int64) ([]byte, error) {
		p := make([]byte, n)
		m, err := io.ReadFull(c.Reader(body), p)
		return p[:m], err
	},
	"small reads": func(c *chunked.Cipher, body io.Reader, n int64) ([]byte, error) {
		return limited(c.Reader(body), n, 4096)
	},
	"reads of a chunk": func(c *chunked.Cipher, body io.Reader, n int64) ([]byte, error) {
		return limited(c.Reader(body), n, chunk)
	},
	"reads of 32 KiB": func(c *chunked.Cipher, body io.Reader, n int64) ([]byte, error) {
		return limited(c.Reader(body), n, 32<<10)
	},
	"WriteTo": func(c *chunked.Cipher, body io.Reader, n int64) ([]byte, error) {
		return writeTo(c.Reader(body))
	},
	"WriteTo of a source that pushes": func(c *chunked.Cipher, body io.Reader, n int64) ([]byte, error) {
		return writeTo(c.Reader(io.MultiReader(body)))
	},
	"Read, then WriteTo": func(c *chunked.Cipher, body io.Reader, n int64) ([]byte, error) {
		r := c.Reader(body)
		p := make([]byte, 3)
		m, err := io.ReadFull(r, p)
		if err != nil {
			return p[:m], err
		}
		rest, err := writeTo(r)
		return append(p, rest...), err
	},
	"range": func(c *chunked.Cipher, body io.Reader, n int64) ([]byte, error) {
		_, length, err := chunked.CiphertextRange(0, n)
		if err != nil {
			return nil, err
		}
		return limited(c.RangeReader(io.LimitReader(body, length), 0, n), n, 5000)
	},
	"range, WriteTo": func(c *chunked.Cipher, body io.Reader, n int64) ([]byte, error) {
		return writeTo(c.RangeReader(body, 0, n))
	},
	"open range": func(c *chunked.Cipher, body io.Reader, n int64) ([]byte, error) {
		return limited(c.RangeReader(body, 0, -1), n, 5000)
	},
}

// limited reads n bytes of r with a buffer of the given size. Behind what Read
// returns, the buffer must hold nothing that was not released.
func limited(r io.Reader, n int64, size int) (got []byte, err error) {
	p := make([]byte, size)
	for int64(len(got)) < n && err == nil {
		var m int
		m, err = r.Read(p[:min(int64(size), n-int64(len(got)))])
		got = append(got, p[:m]...)
		if len(bytes.Trim(p[m:], "\x00")) > 0 {
			return make([]byte, n), errors.New("unreleased bytes in the buffer")
		}
		clear(p)
	}
	return got, err
}

// TestLiveData: whenever the source is asked for more, all that it returned so
// far was released: everything but an unfinished chunk, and the last byte of a
// whole chunk if fewer than 17 bytes follow it.
// SPEC MSG-9
func TestLiveData(t *testing.T) {
	c := newCipher(t)
	for _, size := range []int{2*chunk + 10, 3 * chunk} {
		plaintext := pattern(size)
		body := encrypt(t, c, plaintext, 1)
		for _, step := range []int{16, 17, 1000, sealed - 1, sealed, sealed + 1, sealed + 16, sealed + 17, 5*sealed + 3} {
			for name, copyAll := range map[string]func(dst io.Writer, r *chunked.Reader) error{
				"WriteTo": func(dst io.Writer, r *chunked.Reader) error {
					_, err := r.OnProcs(4).WriteTo(dst)
					return err
				},
				"small reads": func(dst io.Writer, r *chunked.Reader) error { return copyBy(dst, r, 700) },
				"large reads": func(dst io.Writer, r *chunked.Reader) error { return copyBy(dst, r, 2*batch) },
			} {
				seen := 0
				src := &stepReader{body, step}
				live := readerFunc(func(p []byte) (int, error) {
					given := len(body) - len(src.rest)
					due := given / sealed * chunk
					if due > 0 && given%sealed < 17 {
						due--
					}
					if seen < due {
						return 0, fmt.Errorf("asked for more after %d bytes, when %d of %d were released", given, seen, due)
					}
					return src.Read(p)
				})
				err := copyAll(writerFunc(func(p []byte) (int, error) {
					seen += len(p)
					return len(p), nil
				}), c.Reader(live))
				require.NoError(t, err, "%s, %d bytes by %d", name, size, step)
				require.Equal(t, size, seen)
			}
		}
	}
}

// copyBy copies with a buffer of one size.
func copyBy(dst io.Writer, src io.Reader, size int) error {
	_, err := io.CopyBuffer(dst, struct{ io.Reader }{src}, make([]byte, size))
	return err
}
