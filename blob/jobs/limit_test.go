package jobs_test

import (
	"context"
	"fmt"
	"io"
	"iter"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/blob/internal/blobtest"
	"github.com/blobseal/blobseal/blob/jobs"
	"github.com/blobseal/blobseal/keyring"
)

// failsAt is a limiter that fails before its nth object.
type failsAt struct{ n atomic.Int32 }

func (l *failsAt) Wait(context.Context) error {
	if l.n.Add(-1) <= 0 {
		return errRigged
	}
	return nil
}

// count returns how many values come before the end or an error.
func count[T any](values iter.Seq2[T, error]) (n int64, err error) {
	for _, err := range values {
		if err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

// TestLimiterThatFails: a limiter that fails ends every job with its error. What was done
// before counts, and nothing else was done.
func TestLimiterThatFails(t *testing.T) {
	const n, third = 10, 3
	limiter := func() jobs.Limiter {
		l := new(failsAt)
		l.n.Store(third)
		return l
	}
	for name, run := range map[string]func(t *testing.T, w *world) (done int64, err error){
		"inventory": func(t *testing.T, w *world) (int64, error) {
			return count(jobs.Inventory(ctx, w.Bucket, &jobs.InventoryOptions{Workers: 1, Limit: limiter()}))
		},
		"check": func(t *testing.T, w *world) (int64, error) {
			return count(jobs.Check(ctx, w.Bucket, &jobs.CheckOptions{Workers: 1, Limit: limiter()}))
		},
		"unused": func(t *testing.T, w *world) (int64, error) {
			totals, err := jobs.CheckUnused(ctx, w.entry(t, "dir/0").Seal, &jobs.InventoryOptions{Workers: 1, Limit: limiter()}, w.Bucket)
			return totals.Objects, err
		},
		"rewrap": func(t *testing.T, w *world) (int64, error) {
			report, err := jobs.Rewrap(ctx, w.Bucket, &jobs.RewrapOptions{Force: true, Job: jobs.Job{Workers: 1, Limit: limiter(), Checkpoint: keyring.NewMemStore()}})
			require.Zero(t, report.Failed)
			return report.Done, err
		},
		"retire": func(t *testing.T, w *world) (int64, error) {
			first := w.entry(t, "dir/0").Seal.KeyID
			w.rotate(t)
			version, err := jobs.Retire(ctx, w.ring, first, &jobs.RetireOptions{Workers: 1, Limit: limiter()}, w.Bucket)
			require.Equal(t, keyring.Enabled, version.State)
			return third - 1, err
		},
		"shred": func(t *testing.T, w *world) (int64, error) {
			report, err := jobs.ShredPrefix(ctx, w.Bucket, "dir/", io.Discard, &jobs.ShredOptions{Workers: 1, Limit: limiter()})
			require.Zero(t, report.Objects+report.Failed, "the batch was not full")
			return third - 1, err
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, blobtest.NewMem(t))
			for i := range n {
				w.put(t, fmt.Sprintf("dir/%d", i), 10, nil)
			}
			done, err := run(t, w)
			require.ErrorIs(t, err, errRigged)
			require.EqualValues(t, third-1, done)
			for i := range n {
				w.requireUnchanged(t, fmt.Sprintf("dir/%d", i), 10)
			}
		})
	}
}
