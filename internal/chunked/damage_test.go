package chunked_test

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/internal/chunked"
)

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
				"ReadAt": func(p []byte) (int, error) { return chunked.OnProcs(4, at).ReadAt(p, 0) },
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
