package blob_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	gcblob "gocloud.dev/blob"
	"gocloud.dev/gcerrors"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/blob/internal/blobtest"
	"github.com/blobseal/blobseal/sse"
)

// TestOneFailingRequest: if one request of a range read fails, the others end, and the caller
// gets that error.
func TestOneFailingRequest(t *testing.T) {
	boom := errors.New("boom")
	for fail, name := range []string{"envelope", "chunks", "last chunk"} {
		t.Run(name, func(t *testing.T) {
			spy, inner := blobtest.NewSpy(t)
			b := blobtest.NewBucket(t, inner, nil)
			require.NoError(t, b.WriteAll(context.Background(), "k", blobtest.Content(4*chunk), nil))
			calls := []string{
				fmt.Sprintf("GET k 0 %d", blob.DefaultEnvelopeSize),
				fmt.Sprintf("GET k %d %d", blob.DefaultEnvelopeSize+sealedChunk, sealedChunk),
				fmt.Sprintf("GET k %d %d", blob.DefaultEnvelopeSize+4*sealedChunk, sealedChunk),
			}
			spy.Hook = func(_ context.Context, call string) error {
				if call == calls[fail] {
					return boom
				}
				return nil
			}
			_, err := b.NewRangeReader(context.Background(), "k", chunk, 10, nil)
			require.ErrorIs(t, err, boom)
			reading, _, _ := spy.State()
			require.Zero(t, reading)
		})
	}
}

// TestBrokenAnswer: a response that breaks off, as on a cut connection, is an error or is
// requested again.
func TestBrokenAnswer(t *testing.T) {
	ctx := context.Background()
	spy, inner := blobtest.NewSpy(t)
	cipher := sse.NewManaged(blobtest.NewRing(t))
	b := blobtest.NewBucketWith(t, inner, cipher, nil)
	want := blobtest.Content(3*chunk + 5)
	require.NoError(t, b.WriteAll(ctx, "k", want, nil))
	for _, envelope := range []int{500, blob.DefaultEnvelopeSize, 3000} {
		b := blobtest.NewBucketWith(t, inner, cipher, &blob.Options{EnvelopeSize: envelope})
		for _, off := range []int64{0, 10, chunk, 3 * chunk, 5 * chunk} {
			for _, n := range []int64{-1, 0, 7, 2 * chunk} {
				breakReads(t, spy, b, want, off, n, 6)
			}
		}
	}
}

// breakReads reads a range of the object k, which is want, while the store breaks off the
// first response to a read, then the second, and so on before limit.
func breakReads(t *testing.T, spy *blobtest.Spy, b *blob.Bucket, want []byte, off, n int64, limit int32) {
	from, to := min(off, int64(len(want))), int64(len(want))
	if n >= 0 {
		to = min(from+n, to)
	}
	for nth := int32(1); nth < limit; nth++ {
		var reads atomic.Int32
		spy.Hook = func(_ context.Context, call string) error {
			if call == "read k" && reads.Add(1) == nth {
				return io.ErrUnexpectedEOF
			}
			return nil
		}
		got, err := blobtest.ReadRange(b.Bucket, "k", off, n)
		spy.Hook = nil
		if err == nil {
			require.True(t, bytes.Equal(want[from:to], got), "%d+%d", off, n)
		} else {
			require.ErrorIs(t, err, io.ErrUnexpectedEOF)
			require.True(t, bytes.HasPrefix(want[from:to], got), "%d+%d", off, n)
		}
		reading, _, _ := spy.State()
		require.Zero(t, reading)
	}
}

// replaceStored replaces the bytes of a stored object and keeps its metadata.
func replaceStored(t testing.TB, inner *gcblob.Bucket, key string, p []byte) {
	attrs, err := inner.Attributes(context.Background(), key)
	require.NoError(t, err)
	require.NoError(t, inner.WriteAll(context.Background(), key, p, &gcblob.WriterOptions{
		ContentType: attrs.ContentType, Metadata: attrs.Metadata,
	}))
}

// TestDamage flips every bit of a stored object and cuts it at every byte. No read returns
// wrong bytes, no read of the whole object succeeds, and damage never makes an encrypted
// object plain.
func TestDamage(t *testing.T) {
	ctx := context.Background()
	for _, mixed := range []bool{false, true} {
		t.Run(fmt.Sprintf("mixed=%v", mixed), func(t *testing.T) {
			inner := blobtest.NewMem(t)
			b := blobtest.NewBucket(t, inner, &blob.Options{EnvelopeSize: 320, AllowPlain: mixed})
			want := blobtest.Content(50)
			require.NoError(t, b.WriteAll(ctx, "k", want, nil))
			good := blobtest.ReadAll(t, inner, "k")
			check := func(p []byte, what string, at int) {
				replaceStored(t, inner, "k", p)
				_, err := b.ReadAll(ctx, "k")
				require.Error(t, err, "%s %d", what, at)
				require.True(t, isOurs(err), "%s %d: %v", what, at, err)
				got, err := blobtest.ReadRange(b.Bucket, "k", 3, 7)
				require.Error(t, err, "%s %d", what, at)
				require.Empty(t, got)
			}
			for bit := range len(good) * 8 {
				bad := bytes.Clone(good)
				bad[bit/8] ^= 1 << (bit % 8)
				check(bad, "bit", bit)
			}
			for n := range len(good) {
				check(good[:n], "cut to", n)
			}
			check(append(bytes.Clone(good), 0), "longer by", 1)
			replaceStored(t, inner, "k", good)
			require.Equal(t, want, blobtest.ReadAll(t, b.Bucket, "k"))
		})
	}
}

// isOurs reports whether damage may cause err.
func isOurs(err error) bool {
	for _, kind := range []error{sse.ErrFormat, sse.ErrVersion, sse.ErrKey, sse.ErrCorrupt, sse.ErrMode} {
		if errors.Is(err, kind) {
			return true
		}
	}
	return false
}

// TestDamagedChunks: a read returns the bytes before the damage, or nothing. Any range notices
// a cut or an extended object unless SkipLengthCheck waives that.
func TestDamagedChunks(t *testing.T) {
	ctx := context.Background()
	inner := blobtest.NewMem(t)
	cipher := sse.NewManaged(blobtest.NewRing(t))
	b := blobtest.NewBucketWith(t, inner, cipher, nil)
	waived := blobtest.NewBucketWith(t, inner, cipher, &blob.Options{SkipLengthCheck: true})
	want := blobtest.Content(3*chunk + 10)
	require.NoError(t, b.WriteAll(ctx, "k", want, nil))
	good := blobtest.ReadAll(t, inner, "k")

	flipped := bytes.Clone(good)
	flipped[blob.DefaultEnvelopeSize+sealedChunk+5] ^= 1 // in chunk 1
	replaceStored(t, inner, "k", flipped)
	got, err := blobtest.ReadRange(b.Bucket, "k", 0, -1)
	require.ErrorIs(t, err, sse.ErrCorrupt)
	require.Equal(t, gcerrors.Internal, gcerrors.Code(err))
	require.True(t, bytes.Equal(want[:chunk], got))
	_, err = blobtest.ReadRange(b.Bucket, "k", chunk+3, 3)
	var where *sse.ChunkError
	require.ErrorAs(t, err, &where)
	require.EqualValues(t, 1, where.Chunk)
	got, err = blobtest.ReadRange(b.Bucket, "k", 2*chunk, 3)
	require.NoError(t, err, "another chunk")
	require.Equal(t, want[2*chunk:2*chunk+3], got)

	for name, stored := range map[string][]byte{
		"cut between chunks": good[:blob.DefaultEnvelopeSize+2*sealedChunk],
		"cut in a chunk":     good[:blob.DefaultEnvelopeSize+2*sealedChunk+100],
		"longer":             append(bytes.Clone(good), make([]byte, 20)...),
		"longer by a chunk":  append(bytes.Clone(good), make([]byte, 2*sealedChunk)...),
		"only an envelope":   good[:blob.DefaultEnvelopeSize],
	} {
		t.Run(name, func(t *testing.T) {
			replaceStored(t, inner, "k", stored)
			_, err := b.ReadAll(ctx, "k")
			require.ErrorIs(t, err, sse.ErrCorrupt)
			_, err = blobtest.ReadRange(b.Bucket, "k", 10, 10)
			require.ErrorIs(t, err, sse.ErrCorrupt)
			_, err = blobtest.ReadRange(b.Bucket, "k", 1<<20, 10)
			require.ErrorIs(t, err, sse.ErrCorrupt, "beyond the end")
			_, err = blobtest.ReadRange(waived.Bucket, "k", 1<<20, 10)
			require.ErrorIs(t, err, sse.ErrCorrupt, "beyond the end, whose check is not waived")
			if len(stored) > blob.DefaultEnvelopeSize+2*sealedChunk+16 {
				got, err := blobtest.ReadRange(waived.Bucket, "k", 10, 10)
				require.NoError(t, err)
				require.Equal(t, want[10:20], got)
			}
		})
	}
}
