package jobs_test

import (
	"errors"
	"io"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	gcblob "gocloud.dev/blob"
	"gocloud.dev/gcerrors"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/blob/internal/blobtest"
	"github.com/blobseal/blobseal/blob/jobs"
)

// forbidden maps a refused read to NotFound, as gocloud's driver for Google's store
// maps 403.
func forbidden(t testing.TB) error {
	_, err := blobtest.NewMem(t).Attributes(ctx, "there is no such object")
	require.Equal(t, gcerrors.NotFound, gcerrors.Code(err))
	return err
}

// TestForbiddenReadIsNoDeletion: a store that refuses to serve what it lists makes
// jobs fail. Retire then destroys nothing.
func TestForbiddenReadIsNoDeletion(t *testing.T) {
	w := newWorld(t, blobtest.NewMem(t))
	for _, key := range []string{"dir/a", "dir/b", "dir/c"} {
		w.put(t, key, 5000, nil)
	}
	first := w.entry(t, "dir/a").Seal.KeyID
	w.rotate(t)
	refused := forbidden(t)
	w.store.set(func(op, key string) error {
		if key == "dir/b" && (op == "open" || op == "attributes" || op == "delete") {
			return refused
		}
		return nil
	})

	var unreadable []string
	for e, err := range jobs.Inventory(ctx, w.Bucket, nil) {
		require.NoError(t, err)
		if e.Err != nil {
			require.NotEqual(t, gcerrors.NotFound, gcerrors.Code(e.Err))
			unreadable = append(unreadable, e.Key)
		}
	}
	require.Equal(t, []string{"dir/b"}, unreadable)

	verdicts := make(map[string]jobs.Verdict)
	for f, err := range jobs.Check(ctx, w.Bucket, nil) {
		require.NoError(t, err)
		verdicts[f.Key] = f.Verdict
	}
	require.Equal(t, map[string]jobs.Verdict{"dir/a": jobs.VerdictGood, "dir/b": jobs.VerdictUnreadable, "dir/c": jobs.VerdictGood}, verdicts)

	report, err := jobs.Rewrap(ctx, w.Bucket, nil)
	require.ErrorIs(t, err, jobs.ErrIncomplete)
	require.EqualValues(t, 1, report.Failed)
	require.EqualValues(t, 2, report.Done)

	var inUse *jobs.InUseError
	_, err = jobs.Retire(ctx, w.ring, first, &jobs.RetireOptions{Destroy: true, Quarantine: jobs.NoQuarantine}, w.Bucket)
	require.ErrorAs(t, err, &inUse)
	require.EqualValues(t, 1, inUse.Unclear)

	shredded, err := jobs.ShredPrefix(ctx, w.Bucket, "dir/", io.Discard, nil)
	require.ErrorIs(t, err, jobs.ErrIncomplete)
	require.ErrorContains(t, err, `first: "dir/b"`)
	require.EqualValues(t, 1, shredded.Failed)
	require.EqualValues(t, 2, shredded.Objects)

	w.store.set(nil)
	w.requireUnchanged(t, "dir/b", 5000)
}

// TestDeletedMeanwhile: an object that is gone from the listing too is no failure.
func TestDeletedMeanwhile(t *testing.T) {
	for name, run := range map[string]func(w *world) error{
		"inventory": func(w *world) error {
			for e, err := range jobs.Inventory(ctx, w.Bucket, nil) {
				if err = errors.Join(err, e.Err); err != nil {
					return err
				}
			}
			return nil
		},
		"check": func(w *world) error {
			for f, err := range jobs.Check(ctx, w.Bucket, nil) {
				if err = errors.Join(err, f.Err); err != nil {
					return err
				}
			}
			return nil
		},
		"rewrap": func(w *world) error { _, err := jobs.Rewrap(ctx, w.Bucket, nil); return err },
		"shred": func(w *world) error {
			_, err := jobs.ShredPrefix(ctx, w.Bucket, "dir/", io.Discard, nil)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, blobtest.NewMem(t))
			for _, key := range []string{"dir/a", "dir/b", "dir/bb", "dir/c"} {
				w.put(t, key, 5000, nil)
			}
			w.rotate(t)
			var once sync.Once
			w.store.set(func(op, key string) error {
				if key == "dir/b" && op != "list" {
					once.Do(func() { require.NoError(t, w.store.Bucket.Delete(ctx, key)) })
				}
				return nil
			})
			require.NoError(t, run(w))
		})
	}
}

// TestChangedObjectsAreRetried: a job attempts again what other writers change, and
// says what remains.
func TestChangedObjectsAreRetried(t *testing.T) {
	for name, changes := range map[string]int{"twice": 2, "always": 1 << 30} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, blobtest.NewMem(t))
			for _, key := range []string{"a", "b", "c"} {
				w.put(t, key, 5000, nil)
			}
			old := blobtest.ReadAll(t, w.Inner(), "b")
			older := blobtest.Content(5000)
			w.put(t, "b", 5000, nil)
			w.rotate(t)
			attrs, err := w.store.Bucket.Attributes(ctx, "b")
			require.NoError(t, err)
			var changed int
			w.store.set(func(op, key string) error {
				if key == "b" && op == "close" && changed < changes {
					changed++
					return nil
				}
				if key == "b" && op == "write" && changed < changes {
					changed++ // another process puts an object under the old key
					return w.store.Bucket.WriteAll(ctx, "b", old, &gcblob.WriterOptions{Metadata: attrs.Metadata})
				}
				return nil
			})
			report, err := jobs.Rewrap(ctx, w.Bucket, &jobs.RewrapOptions{Job: jobs.Job{Workers: 1}})
			w.store.set(nil)
			if name == "twice" {
				require.NoError(t, err)
				require.EqualValues(t, 3, report.Done)
			} else {
				require.ErrorIs(t, err, jobs.ErrIncomplete)
				require.ErrorIs(t, err, blob.ErrChanged)
				require.ErrorContains(t, err, `"b"`)
				require.EqualValues(t, 1, report.Failed)
				require.EqualValues(t, 2, report.Done)
			}
			require.Equal(t, older, blobtest.ReadAll(t, w.Bucket.Bucket, "b"))
		})
	}
}
