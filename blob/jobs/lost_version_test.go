package jobs_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/blob/internal/blobtest"
	"github.com/blobseal/blobseal/blob/jobs"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/sse"
)

// loadCounter is a ring's store that counts its loads.
type loadCounter struct {
	keyring.Store
	loads atomic.Int64
}

func (c *loadCounter) Load(ctx context.Context) ([]byte, string, error) {
	c.loads.Add(1)
	return c.Store.Load(ctx)
}

// lostVersion returns a bucket of n objects under a version that its ring's document
// no longer has, and the ring's store.
func lostVersion(t testing.TB, n int) (*blob.Bucket, *loadCounter) {
	root, err := keyring.NewKeyRoot(blobtest.Content(32))
	require.NoError(t, err)
	before := keyring.NewMemStore()
	ring, err := keyring.Create(ctx, before, root, nil)
	require.NoError(t, err)
	document, _, err := before.Load(ctx)
	require.NoError(t, err)
	_, err = ring.Rotate(ctx)
	require.NoError(t, err)
	inner := blobtest.NewMem(t)
	b := blobtest.NewBucketWith(t, inner, sse.NewManaged(ring), &blob.Options{})
	for i := range n {
		require.NoError(t, b.WriteAll(ctx, fmt.Sprintf("%04d", i), nil, nil))
	}
	restored := &loadCounter{Store: keyring.NewMemStore()}
	_, err = restored.Swap(ctx, "", document)
	require.NoError(t, err)
	ring, err = keyring.Open(ctx, restored, root, nil)
	require.NoError(t, err)
	restored.loads.Store(0)
	return blobtest.NewBucketWith(t, inner, sse.NewManaged(ring), &blob.Options{}), restored
}

// TestCheckOfALostVersion: the ring's store is asked at most once a second for a
// version that it does not have, and nothing waits for it meanwhile.
func TestCheckOfALostVersion(t *testing.T) {
	const n = 2000
	b, store := lostVersion(t, n)
	began := time.Now()
	found := 0
	for f, err := range jobs.Check(ctx, b, &jobs.CheckOptions{Depth: jobs.CheckEnvelopes}) {
		require.NoError(t, err)
		require.Equal(t, jobs.VerdictWrongKey, f.Verdict)
		require.ErrorIs(t, f.Err, keyring.ErrUnknownKey)
		found++
	}
	require.Equal(t, n, found)
	require.LessOrEqual(t, store.loads.Load(), 2+int64(time.Since(began)/time.Second))
}

// BenchmarkCheckOfALostVersion is to be compared with BenchmarkCheckOfAKnownVersion.
func BenchmarkCheckOfALostVersion(b *testing.B) {
	bucket, _ := lostVersion(b, 1000)
	benchmarkCheck(b, bucket, 1000)
}

func BenchmarkCheckOfAKnownVersion(b *testing.B) {
	bucket := blobtest.NewBucketWith(b, blobtest.NewMem(b), sse.NewManaged(blobtest.NewRing(b)), &blob.Options{})
	for i := range 1000 {
		require.NoError(b, bucket.WriteAll(ctx, fmt.Sprintf("%04d", i), nil, nil))
	}
	benchmarkCheck(b, bucket, 1000)
}

func benchmarkCheck(b *testing.B, bucket *blob.Bucket, n int) {
	for b.Loop() {
		found := 0
		for _, err := range jobs.Check(ctx, bucket, &jobs.CheckOptions{Depth: jobs.CheckEnvelopes}) {
			require.NoError(b, err)
			found++
		}
		require.Equal(b, n, found)
	}
	b.ReportMetric(float64(n*b.N)/b.Elapsed().Seconds(), "objects/s")
}
