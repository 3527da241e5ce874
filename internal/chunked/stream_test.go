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

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

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
