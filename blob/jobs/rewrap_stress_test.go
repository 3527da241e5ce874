package jobs_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"gocloud.dev/gcerrors"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/blob/internal/blobtest"
	jobstore "github.com/blobseal/blobseal/blob/internal/store"
	"github.com/blobseal/blobseal/blob/jobs"
	"github.com/blobseal/blobseal/internal/testbed/seeds"
	"github.com/blobseal/blobseal/sse"
)

// numbered is content that tells its number, and all of which depends on it.
func numbered(n uint64) []byte {
	size := 8 + int(n*7919%40_000)
	p := binary.BigEndian.AppendUint64(nil, n)
	for len(p) < size {
		p = append(p, byte(n), byte(len(p)), byte(len(p)>>8))
	}
	return p
}

// numberOf checks that p is one whole numbered content.
func numberOf(p []byte) (uint64, error) {
	if len(p) < 8 {
		return 0, fmt.Errorf("%d bytes", len(p))
	}
	n := binary.BigEndian.Uint64(p)
	if !bytes.Equal(p, numbered(n)) {
		return 0, fmt.Errorf("%d bytes that begin as number %d are not it", len(p), n)
	}
	return n, nil
}

// TestRewrapAmongOthers: writers, readers, deleters, rotations, rewraps, checks and
// inventories on the same keys. A key that has one owner always has what that one did
// last; of the others every read gives one whole version. It takes as long as
// BLOBSEAL_STRESS says, and until something was read and something rewrapped. It is long
// because all workers share its counters, and each is a few lines.
func TestRewrapAmongOthers(t *testing.T) {
	for _, store := range blobtest.Stores[:1] {
		t.Run(store.Name, func(t *testing.T) {
			w := newWorld(t, store.Open(t))
			until := time.Now().Add(seeds.StressTime(t, time.Second))
			var group sync.WaitGroup
			var failed atomic.Pointer[error]
			var numbers, reads, rewraps, done atomic.Int64
			each := func(do func(r *rand.Rand) error) {
				group.Go(func() {
					r := rand.New(rand.NewPCG(rand.Uint64(), 1))
					for failed.Load() == nil && (time.Now().Before(until) || reads.Load() == 0 || done.Load() == 0) {
						if err := do(r); err != nil {
							failed.CompareAndSwap(nil, &err)
						}
					}
				})
			}
			ciphers := []sse.Cipher{nil, nil, w.kms, w.ssec}
			write := func(r *rand.Rand, key string) (uint64, error) {
				n := uint64(numbers.Add(1))
				view := blobtest.With(t, w.Bucket, blob.Request{Cipher: ciphers[r.IntN(len(ciphers))]})
				return n, view.WriteAll(ctx, key, numbered(n), nil)
			}

			// Owned keys.
			for i := range 3 {
				key := fmt.Sprint("owned/", i)
				each(func(r *rand.Rand) error {
					n, err := write(r, key)
					if err != nil {
						return err
					}
					for range r.IntN(4) {
						p, err := w.ReadAll(ctx, key)
						if err != nil {
							return fmt.Errorf("%s: %w", key, err)
						}
						if got, err := numberOf(p); err != nil || got != n {
							return fmt.Errorf("%s: %d was written, %d is there: %v", key, n, got, err)
						}
					}
					if r.IntN(3) == 0 {
						if err := w.Delete(ctx, key); err != nil {
							return fmt.Errorf("%s: %w", key, err)
						}
						for range 3 {
							if there, err := w.Exists(ctx, key); there || err != nil {
								return fmt.Errorf("%s is back: %v", key, err)
							}
						}
					}
					return nil
				})
			}
			// Keys of all.
			shared := func(r *rand.Rand) string { return fmt.Sprint("shared/", r.IntN(4)) }
			absent := func(err error) bool { return gcerrors.Code(err) == gcerrors.NotFound }
			for range 2 {
				each(func(r *rand.Rand) error { _, err := write(r, shared(r)); return err })
				each(func(r *rand.Rand) error {
					key := shared(r)
					p, err := w.ReadAll(ctx, key)
					if absent(err) {
						return nil
					}
					if err == nil {
						reads.Add(1)
						_, err = numberOf(p)
					}
					return err
				})
			}
			each(func(r *rand.Rand) error { // parts of versions, each of one
				key := shared(r)
				p, err := blobtest.ReadRange(w.Bucket.Bucket, key, 8, 1000)
				switch {
				case absent(err), errors.Is(err, blob.ErrChanged):
					return nil
				case err != nil:
					return fmt.Errorf("range: %w", err)
				}
				for i := 0; i+2 < len(p); i += 3 {
					if p[i] != p[0] || p[i+1] != byte(8+i+1-1) && p[i+1] != byte(8+i) {
						return fmt.Errorf("%s: a range is of several versions", key)
					}
				}
				return nil
			})
			each(func(r *rand.Rand) error {
				err := w.Delete(ctx, shared(r))
				if absent(err) {
					return nil
				}
				return err
			})
			each(func(r *rand.Rand) error {
				if r.IntN(2) == 0 {
					if _, err := w.ring.Rotate(ctx); err != nil {
						return err
					}
				}
				to := []sse.Cipher{nil, w.kms, w.ssec}[r.IntN(3)]
				report, err := jobs.Rewrap(ctx, w.Bucket, &jobs.RewrapOptions{To: to, Force: r.IntN(2) == 0})
				rewraps.Add(1)
				done.Add(report.Done)
				if errors.Is(err, jobs.ErrSkipped) {
					return nil
				}
				for _, failure := range report.Failures {
					if !errors.Is(failure.Err, blob.ErrChanged) && !errors.Is(failure.Err, jobstore.ErrHidden) {
						return fmt.Errorf("%w: %s: %w", err, failure.Key, failure.Err)
					}
					err = nil // at each attempt, another writer was faster
				}
				return err
			})
			each(func(r *rand.Rand) error {
				for f, err := range jobs.Check(ctx, w.Bucket, &jobs.CheckOptions{Depth: jobs.Depth(r.IntN(3))}) {
					if err != nil {
						return err
					}
					if f.Verdict != jobs.VerdictGood && !errors.Is(f.Err, blob.ErrChanged) {
						// Three versions in three looks are possible, a damaged object is not.
						if again := w.verdicts(t, &jobs.CheckOptions{Filter: jobs.Filter{Prefix: f.Key}})[f.Key]; again != jobs.VerdictGood && again != 0 {
							return fmt.Errorf("%s is %v: %w", f.Key, f.Verdict, f.Err)
						}
					}
				}
				return nil
			})
			group.Wait()
			if err := failed.Load(); err != nil {
				require.NoError(t, *err)
			}
			t.Logf("%d writes, %d reads, %d rewraps of %d objects", numbers.Load(), reads.Load(), rewraps.Load(), done.Load())
		})
	}
}
