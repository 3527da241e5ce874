package jobs_test

import (
	"fmt"
	"os"
	"runtime"
	"runtime/metrics"
	"slices"
	"strconv"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"gocloud.dev/blob/memblob"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/blob/internal/blobtest"
	"github.com/blobseal/blobseal/blob/jobs"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/sse"
)

// fill makes a bucket in memory of n objects of 1 KiB.
func fill(tb testing.TB, n int) (*blob.Bucket, *keyring.Ring) {
	ring := blobtest.NewRing(tb)
	inner := memblob.OpenBucket(&memblob.Options{NoMD5: true})
	tb.Cleanup(func() { inner.Close() })
	b := blobtest.NewBucketWith(tb, inner, sse.NewManaged(ring), nil)
	var group sync.WaitGroup
	errs := make([]error, 4)
	for part := range errs {
		group.Go(func() {
			for i := part; i < n; i += len(errs) {
				if err := b.WriteAll(ctx, fmt.Sprintf("2026/%02d/%06d", i%100, i), blobtest.Content(1024), nil); err != nil {
					errs[part] = err
				}
			}
		})
	}
	group.Wait()
	for _, err := range errs {
		require.NoError(tb, err)
	}
	return b, ring
}

// liveHeap is how much of the heap is in use. What has a finalizer, as gocloud's
// readers and writers have, and what is in pools, outlives a collection.
func liveHeap() int64 {
	for range 3 {
		runtime.GC()
	}
	s := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(s)
	return int64(s[0].Value.Uint64())
}

// BenchmarkRewrap rewraps 100,000 objects of 1 KiB in memory.
func BenchmarkRewrap(b *testing.B) {
	const n = 100_000
	bucket, ring := fill(b, n)
	b.ReportAllocs()
	for b.Loop() {
		_, err := ring.Rotate(ctx)
		require.NoError(b, err)
		report, err := jobs.Rewrap(ctx, bucket, &jobs.RewrapOptions{Job: jobs.Job{Checkpoint: keyring.NewMemStore()}})
		require.NoError(b, err)
		require.EqualValues(b, n, report.Done)
	}
	b.ReportMetric(float64(b.N)*n/b.Elapsed().Seconds(), "objects/s")
}

// BenchmarkInventory looks at 100,000 objects in memory.
func BenchmarkInventory(b *testing.B) {
	const n = 100_000
	bucket, _ := fill(b, n)
	b.ReportAllocs()
	for b.Loop() {
		var totals jobs.Totals
		for e, err := range jobs.Inventory(ctx, bucket, nil) {
			require.NoError(b, err)
			totals.Add(e)
		}
		require.EqualValues(b, n, totals.Objects)
	}
	b.ReportMetric(float64(b.N)*n/b.Elapsed().Seconds(), "objects/s")
}

// TestJobsAreBounded: what jobs hold does not grow with the bucket. The number of
// objects is BLOBSEAL_OBJECTS, or 5,000.
func TestJobsAreBounded(t *testing.T) {
	n := 5_000
	if text := os.Getenv("BLOBSEAL_OBJECTS"); text != "" {
		var err error
		n, err = strconv.Atoi(text)
		require.NoError(t, err)
	}
	// What awaits its finalizer counts as in use, and may be much on a busy machine:
	// so the peak may be higher than what there is at some time in each second half.
	const bound, peak = 3<<20 + raceHeap, 32 << 20
	b, ring := fill(t, n)
	rotate := func() {
		_, err := ring.Rotate(ctx)
		require.NoError(t, err)
	}
	rotate()
	_, err := jobs.Rewrap(ctx, b, nil) // memblob has its objects in other sizes from now on
	require.NoError(t, err)
	rotate()
	before := liveHeap()
	var samples []int64
	sample := func(i int64) {
		if i%(int64(n)/10) == 1 {
			samples = append(samples, liveHeap()-before)
		}
	}
	judge := func(job string) {
		t.Logf("%s of %d objects: %d KiB at most", job, n, slices.Max(samples)>>10)
		require.Less(t, slices.Max(samples), int64(peak))
		require.Less(t, slices.Min(samples[len(samples)/2:]), int64(bound))
		samples = nil
	}
	done := int64(0)
	report, err := jobs.Rewrap(ctx, b, &jobs.RewrapOptions{Job: jobs.Job{
		Checkpoint: keyring.NewMemStore(),
		Progress:   func(*jobs.Report) { done++; sample(done) },
	}})
	require.NoError(t, err)
	require.EqualValues(t, n, report.Done)
	judge("rewrap")
	done = 0
	for f, err := range jobs.Check(ctx, b, &jobs.CheckOptions{Depth: jobs.CheckBodies}) {
		require.NoError(t, err)
		require.Equal(t, jobs.VerdictGood, f.Verdict)
		done++
		sample(done)
	}
	judge("check")
}
