package chunked_test

import (
	"bytes"
	"io"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/internal/chunked"
)

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
