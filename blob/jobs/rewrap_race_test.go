package jobs_test

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	gcblob "gocloud.dev/blob"
	"gocloud.dev/gcerrors"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/blob/internal/blobtest"
	"github.com/blobseal/blobseal/blob/jobs"
	"github.com/blobseal/blobseal/sse"
)

// TestRewrapFaults: whatever fails, each object is whole, under the old key or the
// new, the failure is reported, and a second run mends it.
func TestRewrapFaults(t *testing.T) {
	for _, op := range []string{"attributes", "open", "read", "create", "write", "close"} {
		for nth := 1; nth <= 4; nth++ {
			for _, size := range []int{10, 100_000} {
				t.Run(fmt.Sprintf("%s %d of %d bytes", op, nth, size), func(t *testing.T) {
					w := newWorld(t, blobtest.NewMem(t))
					old := primary(t, w.ring)
					for _, key := range []string{"a", "b", "c"} {
						w.put(t, key, size, nil)
					}
					newID := w.rotate(t)
					n := 0
					w.store.set(func(o, key string) error {
						if o == op && key == "b" {
							if n++; n == nth {
								return fmt.Errorf("%s: %w", op, errRigged)
							}
						}
						return nil
					})
					report, err := jobs.Rewrap(ctx, w.Bucket, nil)
					hit := n >= nth
					w.store.set(nil)
					want := newID
					if hit {
						require.ErrorIs(t, err, jobs.ErrIncomplete)
						require.EqualValues(t, 1, report.Failed)
						require.Equal(t, "b", report.Failures[0].Key)
						require.ErrorContains(t, report.Failures[0].Err, errRigged.Error())
						want = old
					} else {
						require.NoError(t, err)
					}
					require.Equal(t, newID, w.entry(t, "a").Seal.KeyID)
					require.Equal(t, want, w.entry(t, "b").Seal.KeyID)
					require.Equal(t, newID, w.entry(t, "c").Seal.KeyID)
					for _, key := range []string{"a", "b", "c"} {
						w.requireUnchanged(t, key, size)
					}
					report, err = jobs.Rewrap(ctx, w.Bucket, nil)
					require.NoError(t, err)
					require.Equal(t, hit, report.Done == 1)
				})
			}
		}
	}
}

// A store that cuts a read short without a word does not make a short object.
func TestRewrapNoticesAShortRead(t *testing.T) {
	w := newWorld(t, blobtest.NewMem(t))
	w.put(t, "a", 100_000, nil)
	w.rotate(t)
	w.store.set(func(op, key string) error {
		if op == "read" && w.store.count("read") == 60 {
			return io.EOF
		}
		return nil
	})
	report, err := jobs.Rewrap(ctx, w.Bucket, nil)
	require.ErrorIs(t, err, jobs.ErrIncomplete)
	require.EqualValues(t, 1, report.Failed)
	w.store.set(nil)
	w.requireUnchanged(t, "a", 100_000)
}

// TestRewrapGivesWay: what others do to an object while it is being rewrapped,
// at every step, through this bucket or behind its back, stays done.
func TestRewrapGivesWay(t *testing.T) {
	does := map[string]func(t *testing.T, w *world, stale []byte){
		"written":             func(t *testing.T, w *world, _ []byte) { w.put(t, "b", 33, nil) },
		"written, same size":  func(t *testing.T, w *world, _ []byte) { w.put(t, "b", 5000, nil) },
		"deleted":             func(t *testing.T, w *world, _ []byte) { require.NoError(t, w.Delete(ctx, "b")) },
		"deleted behind":      func(t *testing.T, w *world, _ []byte) { require.NoError(t, w.store.Bucket.Delete(ctx, "b")) },
		"deleted and written": func(t *testing.T, w *world, _ []byte) { require.NoError(t, w.Delete(ctx, "b")); w.put(t, "b", 33, nil) },
		"written behind": func(t *testing.T, w *world, stale []byte) {
			require.NoError(t, w.store.Bucket.WriteAll(ctx, "b", stale, nil))
		},
	}
	// The object's own look-ups: attributes, open and reads, create, and all of the
	// writes; then attributes again. Behind the last look, only IfUnchanged helps.
	steps := []string{"attributes 1", "open 1", "read 1", "read 3", "create 1", "write 1", "attributes 2", "open 2"}
	for i := range 2 * len(steps) {
		step, coarse := steps[i/2], i%2 == 1
		locked := step == "attributes 2" || step == "open 2"
		for _, what := range slices.Sorted(maps.Keys(does)) {
			if locked && !strings.HasSuffix(what, " behind") {
				continue // this bucket's own writers wait for the lock
			}
			t.Run(fmt.Sprintf("%s before %s, coarse=%v", what, step, coarse), func(t *testing.T) {
				w := newWorld(t, blobtest.NewMem(t))
				w.store.coarse = coarse
				w.put(t, "b", 77, nil)
				stale := blobtest.ReadAll(t, w.Inner(), "b") // a whole object, of another time
				for _, key := range []string{"a", "b", "c"} {
					w.put(t, key, 5000, nil)
				}
				w.rotate(t)
				n, fired := 0, false
				w.store.set(func(op, key string) error {
					if key != "b" || fired || op != step[:len(step)-2] {
						return nil
					}
					if n++; n == int(step[len(step)-1]-'0') {
						fired = true
						does[what](t, w, stale)
					}
					return nil
				})
				report, err := jobs.Rewrap(ctx, w.Bucket, &jobs.RewrapOptions{Job: jobs.Job{Workers: 1}})
				require.True(t, fired)
				w.store.set(nil)
				require.NoError(t, err)
				require.EqualValues(t, 3, report.Done+report.Deleted+report.Current)
				require.GreaterOrEqual(t, report.Done, int64(2))

				switch what {
				case "deleted", "deleted behind":
					_, err := w.ReadAll(ctx, "b")
					require.Equal(t, gcerrors.NotFound, gcerrors.Code(err), "it stays deleted")
				case "written behind":
					require.Equal(t, blobtest.Content(77), blobtest.ReadAll(t, w.Bucket.Bucket, "b"))
				case "written, same size":
					require.Equal(t, blobtest.Content(5000), blobtest.ReadAll(t, w.Bucket.Bucket, "b"))
				default:
					require.Equal(t, blobtest.Content(33), blobtest.ReadAll(t, w.Bucket.Bucket, "b"))
				}
				w.requireUnchanged(t, "a", 5000)
				w.requireUnchanged(t, "c", 5000)
			})
		}
	}
}

// Where the store's condition guards against others, and its attributes tell
// nothing, this bucket's own writes are still not overwritten.
func TestRewrapGivesWayToItsOwnBucket(t *testing.T) {
	w := newWorld(t, blobtest.NewMem(t))
	w.store.coarse = true
	w.Bucket = blobtest.NewBucketWith(t, w.Inner(), sse.NewManaged(w.ring), &blob.Options{
		IfUnchanged: func(func(any) bool, *gcblob.Attributes) error { return nil },
	})
	w.put(t, "a", 10, nil)
	w.rotate(t)
	var written []byte
	w.store.set(func(op, _ string) error {
		if op == "write" && written == nil {
			written = []byte("0123456789")
			return w.WriteAll(ctx, "a", written, nil)
		}
		return nil
	})
	report, err := jobs.Rewrap(ctx, w.Bucket, nil)
	require.NoError(t, err)
	require.EqualValues(t, 1, report.Current, "the next attempt finds what was written, under the newest key")
	w.store.set(nil)
	require.Equal(t, written, blobtest.ReadAll(t, w.Bucket.Bucket, "a"))
}

// What a store's own condition refuses was changed meanwhile.
func TestRewrapHeedsTheStoresCondition(t *testing.T) {
	w := newWorld(t, blobtest.NewMem(t))
	w.put(t, "a", 10, nil)
	etag := ""
	w.Bucket = blobtest.NewBucketWith(t, w.Inner(), sse.NewManaged(w.ring), &blob.Options{
		IfUnchanged: func(_ func(any) bool, attrs *gcblob.Attributes) error { etag = attrs.ETag; return nil },
	})
	w.rotate(t)
	stored, err := w.Inner().Attributes(ctx, "a")
	require.NoError(t, err)
	w.store.set(func(op, key string) error {
		if op == "close" {
			return gcerrors.ErrFailedPrecondition
		}
		return nil
	})
	report, err := jobs.Rewrap(ctx, w.Bucket, nil)
	require.ErrorIs(t, err, jobs.ErrIncomplete)
	require.ErrorIs(t, err, blob.ErrChanged)
	require.ErrorContains(t, err, `"a"`)
	require.EqualValues(t, 1, report.Failed)
	require.Equal(t, 4, w.store.count("close"), "it is attempted again before the job gives up")
	require.Equal(t, stored.ETag, etag)
}

// A store that does not find where to write does not say that the object is gone,
// which the listing still shows: the object stays undone, and the job says so.
func TestRewrapWithNowhereToWrite(t *testing.T) {
	gone := func() error { _, err := blobtest.NewMem(t).Attributes(ctx, "gone"); return err }()
	require.Equal(t, gcerrors.NotFound, gcerrors.Code(gone))
	for _, op := range []string{"create", "write", "close"} {
		for _, condition := range []bool{false, true} {
			store, outer := rig(t, blobtest.NewMem(t))
			opts := &blob.Options{}
			if condition {
				opts.IfUnchanged = func(func(any) bool, *gcblob.Attributes) error { return nil }
			}
			b := blobtest.NewBucket(t, outer, opts)
			require.NoError(t, b.WriteAll(ctx, "a", blobtest.Content(100), nil))
			store.set(func(o, _ string) error {
				if o == op {
					return gone
				}
				return nil
			})
			report, err := jobs.Rewrap(ctx, b, &jobs.RewrapOptions{Force: true})
			require.ErrorIs(t, err, jobs.ErrIncomplete, op)
			require.EqualValues(t, 1, report.Failed)
			require.Zero(t, report.Deleted)
		}
	}
}
