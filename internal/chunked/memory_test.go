package chunked_test

import (
	"bytes"
	"io"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/internal/chunked"
)

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
		"ReadAt": func(plain, _ int) { chunked.OnProcs(1, at).ReadAt(out[:plain], 0) },
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
