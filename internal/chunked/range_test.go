package chunked_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/internal/chunked"
)

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
