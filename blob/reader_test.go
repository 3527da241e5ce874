package blob_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/require"
	gcblob "gocloud.dev/blob"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/blob/internal/blobtest"
	"github.com/blobseal/blobseal/internal/testbed/ssetest"
	"github.com/blobseal/blobseal/sse"
)

const chunk, sealedChunk = 16384, 16400

// TestRequests lists the requests that each operation makes to the store.
func TestRequests(t *testing.T) {
	const size = 5*chunk + 100
	body := func(chunks int64) int64 { return blob.DefaultEnvelopeSize + chunks*sealedChunk }
	get := func(off, n int64) string { return fmt.Sprintf("GET k %d %d", off, n) }
	tail := get(body(5), sealedChunk)
	envelope := get(0, blob.DefaultEnvelopeSize)
	ctx := context.Background()
	read := func(off, n int64) func(*gcblob.Bucket) error {
		return func(b *gcblob.Bucket) error {
			p, err := blobtest.ReadRange(b, "k", off, n)
			if err == nil && !bytes.Equal(p, blobtest.Content(size)[off:min(size, off+n)]) {
				return errors.New("wrong content")
			}
			return err
		}
	}
	for _, test := range []struct {
		name string
		do   func(*gcblob.Bucket) error
		want []string
		opts blob.Options
	}{
		{"write", func(b *gcblob.Bucket) error { return b.WriteAll(ctx, "k", blobtest.Content(size), nil) },
			[]string{"PUT k"}, blob.Options{}},
		{"read all", func(b *gcblob.Bucket) error { _, err := b.ReadAll(ctx, "k"); return err },
			[]string{get(0, -1)}, blob.Options{}},
		{"download", func(b *gcblob.Bucket) error { return b.Download(ctx, "k", io.Discard, nil) },
			[]string{get(0, -1)}, blob.Options{}},
		{"attributes", func(b *gcblob.Bucket) error { _, err := b.Attributes(ctx, "k"); return err },
			[]string{"HEAD k"}, blob.Options{}},
		{"delete", func(b *gcblob.Bucket) error { return b.Delete(ctx, "k") },
			[]string{"DELETE k"}, blob.Options{}},
		{"list", func(b *gcblob.Bucket) error { _, err := b.List(nil).Next(ctx); return err },
			[]string{"LIST"}, blob.Options{}},
		{"list with a look", func(b *gcblob.Bucket) error { _, err := b.List(nil).Next(ctx); return err },
			[]string{envelope, "LIST"}, blob.Options{LookWhenListing: true}},
		{"range in the middle", read(chunk+5, 10),
			[]string{envelope, get(body(1), sealedChunk), tail}, blob.Options{}},
		{"range over a boundary", read(2*chunk-1, 2),
			[]string{envelope, get(body(1), 2*sealedChunk), tail}, blob.Options{}},
		{"range that reaches the last chunk", read(4*chunk, chunk+1),
			[]string{envelope, get(body(4), 2*sealedChunk)}, blob.Options{}},
		{"range that ends where the last chunk begins", read(4*chunk, chunk),
			[]string{envelope, get(body(4), sealedChunk+17), tail}, blob.Options{}},
		{"range to the end", read(3*chunk+9, size-3*chunk-9),
			[]string{envelope, get(body(3), 3*sealedChunk)}, blob.Options{}},
		{"range at the start, envelope and chunk in one", read(10, 10),
			[]string{get(0, body(1)), tail}, blob.Options{}},
		{"range without the check of the length", read(chunk+5, 10),
			[]string{envelope, get(body(1), sealedChunk)}, blob.Options{SkipLengthCheck: true}},
		{"range at the start without the check of the length", read(0, 10),
			[]string{get(0, body(1))}, blob.Options{SkipLengthCheck: true}},
		{"copy", func(b *gcblob.Bucket) error { return b.Copy(ctx, "k2", "k", nil) },
			[]string{get(0, -1), "HEAD k", "HEAD k", "PUT k2"}, blob.Options{}},
	} {
		t.Run(test.name, func(t *testing.T) {
			spy, inner := blobtest.NewSpy(t)
			b := blobtest.NewBucket(t, inner, &test.opts)
			require.NoError(t, b.WriteAll(ctx, "k", blobtest.Content(size), nil))
			spy.Take()
			require.NoError(t, test.do(b.Bucket))
			slices.Sort(test.want)
			require.Equal(t, test.want, spy.Take())
			reading, writing, _ := spy.State()
			require.Zero(t, reading)
			require.Zero(t, writing)
		})
	}
}

// TestRangeSideBySide: a short range requests envelope and chunks at the same time.
func TestRangeSideBySide(t *testing.T) {
	spy, inner := blobtest.NewSpy(t)
	b := blobtest.NewBucket(t, inner, &blob.Options{SkipLengthCheck: true})
	require.NoError(t, b.WriteAll(context.Background(), "k", blobtest.Content(3*chunk), nil))
	arrived := make(chan struct{}, 2)
	both := make(chan struct{})
	go func() {
		<-arrived
		<-arrived
		close(both)
	}()
	spy.Hook = func(ctx context.Context, call string) error {
		if call == "read k" {
			return nil
		}
		arrived <- struct{}{}
		select {
		case <-both:
			return nil
		case <-time.After(10 * time.Second):
			return errors.New("the other request does not come")
		}
	}
	p, err := blobtest.ReadRange(b.Bucket, "k", chunk, 5)
	require.NoError(t, err)
	require.Equal(t, blobtest.Content(3 * chunk)[chunk:chunk+5], p)
}

// TestRanges reads every range around chunk boundaries, from buckets with envelopes of the
// expected, a smaller and a larger size, and without length checks.
func TestRanges(t *testing.T) {
	ctx := context.Background()
	edges := []int64{0, 1, chunk - 1, chunk, chunk + 1, 2*chunk - 1, 2 * chunk, 2*chunk + 1, 3*chunk + 7, 1 << 40}
	for _, opts := range []blob.Options{{}, {SkipLengthCheck: true}, {EnvelopeSize: 400}, {EnvelopeSize: 5000}, {AllowPlain: true}} {
		t.Run(fmt.Sprintf("%+v", opts), func(t *testing.T) {
			_, inner := blobtest.NewSpy(t)
			cipher := sse.NewManaged(blobtest.NewRing(t))
			writes := blobtest.NewBucketWith(t, inner, cipher, nil)
			b := blobtest.NewBucketWith(t, inner, cipher, &opts)
			for _, size := range []int{0, 1, 100, chunk - 1, chunk, chunk + 1, 2 * chunk, 2*chunk + 500} {
				want := blobtest.Content(size)
				key := fmt.Sprint(size)
				require.NoError(t, writes.WriteAll(ctx, key, want, nil))
				for _, off := range edges {
					for _, n := range append(edges, -1) {
						r, err := b.NewRangeReader(ctx, key, off, n, nil)
						require.NoError(t, err, "%d+%d of %d", off, n, size)
						got, err := io.ReadAll(r)
						require.NoError(t, err)
						from := min(off, int64(size))
						to := int64(size)
						if n >= 0 {
							to = min(from+n, to)
						}
						require.True(t, bytes.Equal(want[from:to], got), "%d+%d of %d", off, n, size)
						require.EqualValues(t, size, r.Size())
						require.NoError(t, r.Close())
					}
				}
			}
		})
	}
}

// TestReaderManners: seeks, small reads, io/fs and iotest get what was written.
func TestReaderManners(t *testing.T) {
	ctx := context.Background()
	for _, store := range blobtest.Stores {
		t.Run(store.Name, func(t *testing.T) {
			b := blobtest.NewBucket(t, store.Open(t), nil)
			want := blobtest.Content(2*chunk + 77)
			require.NoError(t, b.WriteAll(ctx, "dir/k", want, nil))

			r, err := b.NewReader(ctx, "dir/k", nil)
			require.NoError(t, err)
			require.NoError(t, iotest.TestReader(r, want))
			require.NoError(t, r.Close())

			r, err = b.NewRangeReader(ctx, "dir/k", chunk+1, 1000, nil)
			require.NoError(t, err)
			require.NoError(t, iotest.TestReader(r, want[chunk+1:chunk+1001]))
			require.NoError(t, r.Close())

			p, err := fs.ReadFile(b, "dir/k")
			require.NoError(t, err)
			require.True(t, bytes.Equal(want, p))
			info, err := fs.Stat(b, "dir/k")
			require.NoError(t, err)
			require.EqualValues(t, len(want), info.Size())
			var names []string
			require.NoError(t, fs.WalkDir(b, ".", func(path string, _ fs.DirEntry, err error) error {
				names = append(names, path)
				return err
			}))
			require.Equal(t, []string{".", "dir", "dir/k"}, names)

			objects, errs := b.List(nil).All(ctx)
			for o, download := range objects {
				var got bytes.Buffer
				require.EqualValues(t, len(want), o.Size)
				require.NoError(t, download(&got, nil))
				require.True(t, bytes.Equal(want, got.Bytes()))
			}
			require.NoError(t, errs())
			require.NoError(t, fstest.TestFS(b, "dir/k")) // closes the bucket: it opens and closes "."
		})
	}
}

// TestHalfRead: closing a reader early leaks nothing.
func TestHalfRead(t *testing.T) {
	ctx := context.Background()
	spy, inner := blobtest.NewSpy(t)
	b := blobtest.NewBucket(t, inner, nil)
	require.NoError(t, b.WriteAll(ctx, "k", blobtest.Content(100*chunk), nil))
	var asked []context.Context
	var mu sync.Mutex
	spy.Hook = func(ctx context.Context, _ string) error {
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, ctx)
		return nil
	}
	before := runtime.NumGoroutine()
	for _, off := range []int64{0, 1, 5 * chunk} {
		for _, n := range []int64{-1, 50 * chunk} {
			r, err := b.NewRangeReader(ctx, "k", off, n, nil)
			require.NoError(t, err)
			_, err = io.ReadFull(r, make([]byte, 3*chunk))
			require.NoError(t, err)
			require.NoError(t, r.Close())
		}
	}
	reading, _, _ := spy.State()
	require.Zero(t, reading)
	for _, ctx := range asked {
		require.Error(t, ctx.Err(), "the caller's ctx would hold on to it")
	}
	blobtest.NoneLeft(t, before)
}

// TestCancelRead: when the caller's ctx ends, every request of a read ends.
func TestCancelRead(t *testing.T) {
	spy, inner := blobtest.NewSpy(t)
	b := blobtest.NewBucket(t, inner, nil)
	require.NoError(t, b.WriteAll(context.Background(), "k", blobtest.Content(4*chunk), nil))
	ctx, cancel := context.WithCancel(context.Background())
	waiting := make(chan struct{}, 2)
	spy.Hook = func(ctx context.Context, call string) error {
		waiting <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	}
	go func() {
		<-waiting
		<-waiting
		cancel()
	}()
	_, err := b.NewRangeReader(ctx, "k", chunk, chunk, nil)
	require.ErrorIs(t, err, context.Canceled)
	reading, _, _ := spy.State()
	require.Zero(t, reading)

	// And in the middle of a stream.
	spy.Hook = nil
	ctx, cancel = context.WithCancel(context.Background())
	r, err := b.NewReader(ctx, "k", nil)
	require.NoError(t, err)
	_, err = io.ReadFull(r, make([]byte, 10))
	require.NoError(t, err)
	cancel()
	_, err = io.ReadAll(r)
	require.ErrorIs(t, err, context.Canceled)
	require.NoError(t, r.Close())
}

// TestFailureEndsTheOther: when one request or the key fails, the read cancels the request
// that runs beside it.
func TestFailureEndsTheOther(t *testing.T) {
	body := func(chunks int64) int64 { return blob.DefaultEnvelopeSize + chunks*sealedChunk }
	for _, test := range []struct {
		name, fails, waits string
		req                blob.Request
		want               error
	}{
		{"the envelope", fmt.Sprintf("GET k 0 %d", blob.DefaultEnvelopeSize), fmt.Sprintf("GET k %d %d", body(1), sealedChunk), blob.Request{}, errBoom},
		{"the key", "", fmt.Sprintf("GET k %d %d", body(4), sealedChunk), blob.Request{Cipher: ssetest.NewCustomer(t, 1)}, sse.ErrMode},
	} {
		t.Run(test.name, func(t *testing.T) {
			spy, inner := blobtest.NewSpy(t)
			b := blobtest.NewBucket(t, inner, nil)
			require.NoError(t, b.WriteAll(context.Background(), "k", blobtest.Content(4*chunk), nil))
			var ended atomic.Bool
			spy.Hook = func(ctx context.Context, call string) error {
				switch call {
				case test.fails:
					return errBoom
				case test.waits:
					select {
					case <-ctx.Done():
						ended.Store(true)
						return ctx.Err()
					case <-time.After(10 * time.Second):
					}
				}
				return nil
			}
			_, err := blobtest.With(t, b, test.req).NewRangeReader(context.Background(), "k", chunk, 10, nil)
			require.ErrorIs(t, err, test.want)
			require.True(t, ended.Load(), "the other request was not cancelled")
		})
	}
}
