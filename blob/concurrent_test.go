package blob_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	gcblob "gocloud.dev/blob"
	"gocloud.dev/gcerrors"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/blob/internal/blobtest"
	"github.com/blobseal/blobseal/internal/testbed/seeds"
	"github.com/blobseal/blobseal/sse"
)

// TestConcurrent runs writers, readers, copies and deletes of a few keys at once. A read
// returns one whole version. An operation that fails says why, and never reports damage.
func TestConcurrent(t *testing.T) {
	for _, store := range blobtest.Stores {
		t.Run(store.Name, func(t *testing.T) { testConcurrent(t, store.Open(t), store.Name == "mem") })
	}
}

// testConcurrent is TestConcurrent on one store. On an atomic store, size, metadata and
// content always belong to one version, so nothing else may fail. A file bucket keeps them
// in two files, which it replaces one after the other.
func testConcurrent(t *testing.T, inner *gcblob.Bucket, atomically bool) {
	b := blobtest.NewBucket(t, inner, nil)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	keys := []string{"a", "b", "c"}
	version := func(n int) []byte { return bytes.Repeat([]byte{byte(n)}, n*997%(3*chunk)+1) }
	var reads, writes, torn atomic.Int64
	fine := func(err error) bool {
		code := gcerrors.Code(err)
		return err == nil || ctx.Err() != nil || code == gcerrors.NotFound || !atomically && code == gcerrors.Unknown
	}
	workers := []func(key string) error{
		func(key string) error {
			writes.Add(1)
			return b.WriteAll(ctx, key, version(rand.IntN(255)+1), nil)
		},
		func(key string) error {
			p, err := b.ReadAll(ctx, key)
			if err == nil {
				reads.Add(1)
				if !bytes.Equal(version(int(p[0])), p) {
					return fmt.Errorf("a whole read of %d bytes is no version", len(p))
				}
			}
			return err
		},
		func(key string) error {
			off := int64(rand.IntN(2 * chunk))
			r, err := b.NewRangeReader(ctx, key, off, 100, nil)
			if err != nil {
				if gcerrors.Code(err) == gcerrors.FailedPrecondition { // ErrChanged
					torn.Add(1)
					return nil
				}
				return err
			}
			defer r.Close()
			p, err := io.ReadAll(r)
			if err == nil && len(p) > 0 {
				reads.Add(1)
				whole := version(int(p[0]))
				if atomically && int64(len(whole)) != r.Size() || !bytes.Equal(whole[off:min(int64(len(whole)), off+100)], p) {
					return fmt.Errorf("a part is of no version")
				}
			}
			return err
		},
		func(key string) error {
			err := b.Copy(ctx, key, keys[rand.IntN(len(keys))], nil)
			if gcerrors.Code(err) == gcerrors.FailedPrecondition {
				torn.Add(1)
				return nil
			}
			return err
		},
		func(key string) error {
			if rand.IntN(10) > 0 {
				return nil
			}
			return b.Delete(ctx, key)
		},
		func(string) error {
			_, _, err := b.ListPage(ctx, gcblob.FirstPageToken, 10, nil)
			return err
		},
	}
	var running sync.WaitGroup
	failures := make(chan error, 2*len(workers))
	until := time.Now().Add(seeds.StressTime(t, time.Second))
	for i := range 2 * len(workers) {
		running.Go(func() {
			for ctx.Err() == nil && (time.Now().Before(until) || reads.Load() == 0) {
				if err := workers[i%len(workers)](keys[rand.IntN(len(keys))]); !fine(err) {
					failures <- fmt.Errorf("worker %d: %w", i%len(workers), err)
					cancel()
				}
			}
		})
	}
	running.Wait()
	close(failures)
	for err := range failures {
		require.NoError(t, err)
	}
	t.Logf("%d reads, %d writes, %d gave up on an object that changed", reads.Load(), writes.Load(), torn.Load())
}

// TestPrefixedAndSingleKey wraps an encrypted bucket in gocloud's own wrappers.
func TestPrefixedAndSingleKey(t *testing.T) {
	ctx := context.Background()
	inner := blobtest.NewMem(t)
	b := blobtest.NewBucket(t, inner, nil)
	var ours *blob.Bucket
	prefixed := gcblob.PrefixedBucket(b.Bucket, "dir/")
	require.True(t, prefixed.As(&ours))
	require.Same(t, b, ours)
	require.NoError(t, prefixed.WriteAll(ctx, "k", []byte("p"), nil))
	require.Equal(t, "p", string(blobtest.ReadAll(t, prefixed, "k")))
	exists, err := inner.Exists(ctx, "dir/k")
	require.NoError(t, err)
	require.True(t, exists)

	// A store may be one of them, but not a bucket that encrypts: it would refuse
	// every write, whose metadata is reserved.
	below := blobtest.NewBucket(t, gcblob.PrefixedBucket(blobtest.NewMem(t), "below/"), nil)
	require.NoError(t, below.WriteAll(ctx, "k", []byte("q"), nil))
	require.Equal(t, "q", string(blobtest.ReadAll(t, below.Bucket, "k")))
	for _, store := range []*gcblob.Bucket{b.Bucket, prefixed} {
		_, err := blob.NewBucket(store, "outer", sse.NewManaged(blobtest.NewRing(t)), nil)
		require.ErrorIs(t, err, sse.ErrInvalid)
	}

	single := gcblob.SingleKeyBucket(b.Bucket, "dir/k")
	require.True(t, single.As(&ours))
	require.Equal(t, "p", string(blobtest.ReadAll(t, single, "whatever")))
}
