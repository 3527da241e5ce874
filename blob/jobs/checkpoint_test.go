package jobs_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"gocloud.dev/blob/fileblob"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/blob/internal/blobtest"
	"github.com/blobseal/blobseal/blob/jobs"
	"github.com/blobseal/blobseal/blob/stored"
	"github.com/blobseal/blobseal/internal/testbed/ssetest"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/sse"
)

// outcomes runs a rewrap and returns what it did to which key.
func (w *world) outcomes(ctx context.Context, opts jobs.RewrapOptions) (map[string]jobs.Outcome, *jobs.Report, error) {
	all := map[string]jobs.Outcome{}
	opts.Object = func(r jobs.Result) { all[r.Key] = r.Outcome }
	report, err := jobs.Rewrap(ctx, w.Bucket, &opts)
	return all, report, err
}

// stopAfter is a limiter that ends a job before its nth object.
type stopAfter struct {
	n      int
	cancel context.CancelFunc
}

func (s *stopAfter) Wait(ctx context.Context) error {
	if s.n--; s.n < 0 {
		s.cancel()
	}
	return ctx.Err()
}

// A job that was stopped goes on where it was, and does nothing again, also where
// nothing in the objects tells that they are done.
func TestCheckpointResumes(t *testing.T) {
	for _, store := range blobtest.Stores {
		t.Run(store.Name, func(t *testing.T) {
			w := newWorld(t, store.Open(t))
			const n = 30
			for i := range n {
				w.put(t, fmt.Sprintf("d%d/%02d", i%3, i), 10, nil)
			}
			ckpt := keyring.NewMemStore()
			done := map[string]int{}
			runs := 0
			for {
				runs++
				require.Less(t, runs, 50)
				stopped, cancel := context.WithCancel(ctx)
				limit := &stopAfter{7, cancel}
				got, report, err := w.outcomes(stopped, jobs.RewrapOptions{Force: true, Job: jobs.Job{Checkpoint: ckpt, Workers: 1, Limit: limit}})
				cancel()
				require.Equal(t, runs > 1, report.Resumed)
				for key, outcome := range got {
					require.Equal(t, jobs.OutcomeDone, outcome)
					done[key]++
				}
				require.EqualValues(t, len(done), report.Done, "the report is of all runs")
				if err == nil {
					break
				}
				require.ErrorIs(t, err, context.Canceled)
			}
			require.Greater(t, runs, 3)
			require.Len(t, done, n)
			for key, times := range done {
				require.Equal(t, 1, times, key)
				w.requireUnchanged(t, key, 10)
			}

			// It is complete, and the next one begins anew.
			got, report, err := w.outcomes(ctx, jobs.RewrapOptions{Force: true, Job: jobs.Job{Checkpoint: ckpt}})
			require.NoError(t, err)
			require.False(t, report.Resumed)
			require.Len(t, got, n)
		})
	}
}

// A store that does not list in order, as some do not, has no place to go on from:
// everything is done, if not once.
func TestCheckpointOfAStoreWithoutOrder(t *testing.T) {
	w := newWorld(t, blobtest.NewMem(t))
	w.store.reversed = true
	const n = 10
	for i := range n {
		w.put(t, fmt.Sprint(i), 10, nil)
	}
	ckpt := keyring.NewMemStore()
	stopped, cancel := context.WithCancel(ctx)
	first, _, err := w.outcomes(stopped, jobs.RewrapOptions{Force: true, Job: jobs.Job{Checkpoint: ckpt, Workers: 1, Limit: &stopAfter{5, cancel}}})
	require.ErrorIs(t, err, context.Canceled)
	require.Less(t, len(first), n)
	// What the first run had not come to sorts before what it had.
	w.store.reversed = false
	second, report, err := w.outcomes(ctx, jobs.RewrapOptions{Force: true, Job: jobs.Job{Checkpoint: ckpt}})
	require.NoError(t, err)
	require.Len(t, second, n)
	require.EqualValues(t, n, report.Done)
}

// What failed is tried again, and only that.
func TestCheckpointKeepsWhatFailed(t *testing.T) {
	w := newWorld(t, blobtest.NewMem(t))
	for _, key := range []string{"a", "b", "c", "d"} {
		w.put(t, key, 10, nil)
	}
	w.rotate(t)
	ckpt := keyring.NewMemStore()
	fail := map[string]bool{"b": true, "d": true}
	w.store.set(func(op, key string) error {
		if op == "open" && fail[key] {
			return errRigged
		}
		return nil
	})
	run := func() (map[string]jobs.Outcome, *jobs.Report, error) {
		return w.outcomes(ctx, jobs.RewrapOptions{Job: jobs.Job{Checkpoint: ckpt}})
	}
	_, report, err := run()
	require.ErrorIs(t, err, jobs.ErrIncomplete)
	require.EqualValues(t, 2, report.Failed)

	delete(fail, "d")
	got, report, err := run()
	require.ErrorIs(t, err, jobs.ErrIncomplete)
	require.Equal(t, map[string]jobs.Outcome{"b": jobs.OutcomeFailed, "d": jobs.OutcomeDone}, got)
	require.EqualValues(t, 1, report.Failed)
	require.EqualValues(t, 3, report.Done)
	require.Len(t, report.Failures, 1)

	delete(fail, "b")
	require.NoError(t, w.Delete(ctx, "b"))
	got, report, err = run()
	require.NoError(t, err)
	require.Equal(t, map[string]jobs.Outcome{"b": jobs.OutcomeDeleted}, got)
	require.EqualValues(t, 3, report.Done)
}

func TestCheckpointOfAnotherJob(t *testing.T) {
	w := newWorld(t, blobtest.NewMem(t))
	for _, key := range []string{"a", "b", "c"} {
		w.put(t, key, 10, nil)
	}
	ckpt := keyring.NewMemStore()
	stopped, cancel := context.WithCancel(ctx)
	_, err := jobs.Rewrap(stopped, w.Bucket, &jobs.RewrapOptions{To: w.kms, Job: jobs.Job{Checkpoint: ckpt, Workers: 1, Limit: &stopAfter{1, cancel}}})
	require.ErrorIs(t, err, context.Canceled)
	for name, opts := range map[string]*jobs.RewrapOptions{
		"mode":   {},
		"filter": {To: w.kms, Filter: jobs.Filter{Prefix: "a"}},
		"force":  {To: w.kms, Force: true},
	} {
		opts.Checkpoint = ckpt
		_, err := jobs.Rewrap(ctx, w.Bucket, opts)
		require.ErrorIs(t, err, jobs.ErrCheckpoint, name)
	}
	_, err = jobs.EncryptExisting(ctx, w.Bucket, &jobs.EncryptOptions{To: w.kms, Job: jobs.Job{Checkpoint: ckpt}})
	require.ErrorIs(t, err, jobs.ErrCheckpoint)

	data, version, err := ckpt.Load(ctx)
	require.NoError(t, err)
	for name, edit := range map[string]func(map[string]any){
		"bucket": func(doc map[string]any) { doc["job"].(map[string]any)["bucket"] = "others" },
		"format": func(doc map[string]any) { doc["format"], doc["counts"] = 2, []int{1} },
	} {
		var doc map[string]any
		require.NoError(t, json.Unmarshal(data, &doc))
		edit(doc)
		edited, err := json.Marshal(doc)
		require.NoError(t, err)
		version, err = ckpt.Swap(ctx, version, edited)
		require.NoError(t, err)
		_, err = jobs.Rewrap(ctx, w.Bucket, &jobs.RewrapOptions{To: w.kms, Job: jobs.Job{Checkpoint: ckpt}})
		require.ErrorIs(t, err, jobs.ErrCheckpoint, name)
		require.ErrorContains(t, err, map[string]string{"bucket": "saved by", "format": "format 2, this release knows 1"}[name])
		now, _, err := ckpt.Load(ctx)
		require.NoError(t, err)
		require.Equal(t, edited, now, "a checkpoint of another job or release stays as it is")
	}
	_, err = ckpt.Swap(ctx, version, []byte("nonsense"))
	require.NoError(t, err)
	_, err = jobs.Rewrap(ctx, w.Bucket, &jobs.RewrapOptions{To: w.kms, Job: jobs.Job{Checkpoint: ckpt}})
	require.ErrorIs(t, err, jobs.ErrCheckpoint)
}

// A target that is another by now makes the job begin anew: what is behind the
// checkpoint is not under it.
func TestCheckpointOfAnotherTarget(t *testing.T) {
	for _, c := range []struct {
		name string
		to   func(t *testing.T, w *world, run int) sse.Cipher
	}{
		{"a version of the ring", func(t *testing.T, w *world, run int) sse.Cipher { w.rotate(t); return nil }},
		{"a key of the service", func(t *testing.T, w *world, run int) sse.Cipher { return w.kmsKey(t, fmt.Sprint("arn:k", run)) }},
		{"a customer's key", func(t *testing.T, w *world, run int) sse.Cipher { return ssetest.NewCustomer(t, byte(10*run)) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, blobtest.NewMem(t))
			for _, key := range []string{"a", "b", "c"} {
				w.put(t, key, 10, nil)
			}
			ckpt := keyring.NewMemStore()
			stopped, cancel := context.WithCancel(ctx)
			got, _, err := w.outcomes(stopped, jobs.RewrapOptions{To: c.to(t, w, 1), Job: jobs.Job{Checkpoint: ckpt, Workers: 1, Limit: &stopAfter{2, cancel}}})
			require.ErrorIs(t, err, context.Canceled)
			require.NotEmpty(t, got)
			from := sse.ByMode{sse.ModeManaged: sse.NewManaged(w.ring), sse.ModeKMS: w.kms, sse.ModeCustomer: ssetest.NewCustomer(t, 10)}
			to := c.to(t, w, 2)
			got, report, err := w.outcomes(ctx, jobs.RewrapOptions{To: to, From: from, Job: jobs.Job{Checkpoint: ckpt}})
			require.NoError(t, err)
			require.Len(t, got, 3)
			require.EqualValues(t, 3, report.Done)
			opts := &jobs.CheckOptions{}
			if to != nil {
				opts.From = to
			}
			for key, v := range w.verdicts(t, opts) {
				require.Equal(t, jobs.VerdictGood, v, key)
			}
		})
	}
}

// A ring that rotates while a job runs makes it go through once more, also if it
// was stopped between.
func TestRewrapFollowsTheRing(t *testing.T) {
	for _, stop := range []bool{false, true} {
		t.Run(fmt.Sprint("stopped=", stop), func(t *testing.T) {
			w := newWorld(t, blobtest.NewMem(t))
			for i := range 10 {
				w.put(t, fmt.Sprint(i), 10, nil)
			}
			w.rotate(t)
			rotated := ""
			w.store.set(func(op, key string) error {
				if op == "create" && key == "5" && rotated == "" {
					info, err := w.ring.Rotate(ctx)
					rotated = info.ID
					return err
				}
				return nil
			})
			job := jobs.Job{Workers: 1, Checkpoint: keyring.NewMemStore()}
			if stop {
				stopped, cancel := context.WithCancel(ctx)
				first := job
				first.Limit = &stopAfter{8, cancel}
				_, err := jobs.Rewrap(stopped, w.Bucket, &jobs.RewrapOptions{Job: first})
				require.ErrorIs(t, err, context.Canceled)
				require.NotEmpty(t, rotated)
			}
			report, err := jobs.Rewrap(ctx, w.Bucket, &jobs.RewrapOptions{Job: job})
			require.NoError(t, err)
			require.Equal(t, rotated, report.Target.KeyID)
			for i := range 10 {
				require.Equal(t, rotated, w.entry(t, fmt.Sprint(i)).Seal.KeyID)
			}
			if !stop {
				require.EqualValues(t, 10+6, report.Done, "0 to 5 were done twice")
			}
		})
	}
}

// A ring that does not stop rotating is not followed for ever.
func TestRewrapGivesUpOnTheRing(t *testing.T) {
	w := newWorld(t, blobtest.NewMem(t))
	w.put(t, "a", 10, nil)
	w.put(t, "b", 10, nil)
	w.rotate(t)
	w.store.set(func(op, key string) error {
		if op == "create" {
			w.rotate(t)
		}
		return nil
	})
	_, err := jobs.Rewrap(ctx, w.Bucket, &jobs.RewrapOptions{Job: jobs.Job{Workers: 1}})
	require.ErrorIs(t, err, jobs.ErrIncomplete)
}

// Two processes cannot work from one checkpoint.
func TestCheckpointIsForOne(t *testing.T) {
	w := newWorld(t, blobtest.NewMem(t))
	w.put(t, "a", 10, nil)
	ckpt := keyring.NewMemStore()
	w.store.set(func(op, key string) error {
		if op == "list" {
			w.store.set(nil)
			_, err := jobs.Rewrap(ctx, w.Bucket, &jobs.RewrapOptions{Job: jobs.Job{Checkpoint: ckpt}})
			require.NoError(t, err)
		}
		return nil
	})
	_, err := jobs.Rewrap(ctx, w.Bucket, &jobs.RewrapOptions{Job: jobs.Job{Checkpoint: ckpt}})
	require.ErrorIs(t, err, keyring.ErrConflict)
}

// waits is a limiter that nobody passes.
type waits struct{}

func (waits) Wait(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }

// A job ends with ctx, also while all of its workers wait and more is listed.
func TestJobEndsWhileItWaits(t *testing.T) {
	w := newWorld(t, blobtest.NewMem(t))
	for i := range 100 {
		w.put(t, fmt.Sprint(i), 10, nil)
	}
	listed := make(chan struct{})
	stopped, cancel := context.WithCancel(ctx)
	w.store.set(func(op, _ string) error {
		if op == "list" {
			w.store.set(nil)
			close(listed)
		}
		return nil
	})
	go func() { <-listed; cancel() }()
	_, err := jobs.Rewrap(stopped, w.Bucket, &jobs.RewrapOptions{Job: jobs.Job{Workers: 1, Limit: waits{}}})
	require.ErrorIs(t, err, context.Canceled)
	for _, err = range jobs.Inventory(stopped, w.Bucket, &jobs.InventoryOptions{Workers: 1, Limit: waits{}}) {
		require.Error(t, err)
	}
	require.ErrorIs(t, err, context.Canceled)
}

func TestJobGivesUp(t *testing.T) {
	w := newWorld(t, blobtest.NewMem(t))
	for i := range 20 {
		w.put(t, fmt.Sprintf("%02d", i), 10, nil)
	}
	w.rotate(t)
	w.store.set(func(op, _ string) error {
		if op == "open" {
			return errRigged
		}
		return nil
	})
	report, err := jobs.Rewrap(ctx, w.Bucket, &jobs.RewrapOptions{Job: jobs.Job{MaxFailures: 5}})
	require.ErrorIs(t, err, jobs.ErrTooManyFailures)
	require.EqualValues(t, 5, report.Failed)
}

// A checkpoint that cannot be written ends the job, with what it did.
func TestJobWithoutItsCheckpoint(t *testing.T) {
	w := newWorld(t, blobtest.NewMem(t))
	w.put(t, "a", 10, nil)
	w.rotate(t)
	_, err := jobs.Rewrap(ctx, w.Bucket, &jobs.RewrapOptions{Job: jobs.Job{Checkpoint: brokenStore{}}})
	require.ErrorIs(t, err, errRigged)
	w.requireUnchanged(t, "a", 10)
}

type brokenStore struct{}

func (brokenStore) Load(context.Context) ([]byte, string, error) {
	return nil, "", keyring.ErrNotExist
}
func (brokenStore) Swap(context.Context, string, []byte) (string, error) { return "", errRigged }

// A directory from before UTF-8 has names that JSON does not keep: as a checkpoint
// would have them, they are other objects, behind others that are still to be done.
func TestCheckpointOfNamesThatAreNotUTF8(t *testing.T) {
	dir := t.TempDir()
	inner, err := fileblob.OpenBucket(dir, nil)
	require.NoError(t, err)
	defer inner.Close()
	store, outer := rig(t, inner)
	b := blobtest.NewBucket(t, outer, &blob.Options{AllowPlain: true})
	const latin1 = "\x80t\xe9.jpg" // "\uFFFDt…" in a checkpoint
	for _, name := range []string{"a", latin1, "\u00e9", "\u65e5"} {
		if err := os.WriteFile(filepath.Join(dir, name), blobtest.Content(100), 0o600); err != nil {
			t.Skip("the file system wants UTF-8 names:", err)
		}
	}
	job := jobs.Job{Checkpoint: keyring.NewMemStore(), Workers: 1}
	encrypt := func(ctx context.Context) (*jobs.Report, error) {
		return jobs.EncryptExisting(ctx, b, &jobs.EncryptOptions{Job: job})
	}
	stopped, stop := context.WithCancel(ctx)
	job.Object = func(r jobs.Result) {
		if r.Key == latin1 {
			stop()
		}
	}
	store.set(func(op, key string) error {
		if key == "\u00e9" {
			return context.Cause(stopped)
		}
		return nil
	})
	_, err = encrypt(stopped)
	require.ErrorIs(t, err, context.Canceled)
	store.set(nil)
	job.Object = nil
	for range 2 {
		report, err := encrypt(ctx)
		require.ErrorIs(t, err, jobs.ErrIncomplete, "gocloud reads nothing by such a name")
		require.EqualValues(t, 1, report.Failed)
		require.Equal(t, latin1, report.Failures[0].Key)
		for _, name := range []string{"a", "\u00e9", "\u65e5"} {
			require.Equal(t, stored.KindEncrypted, kindOf(t, b, name), name)
		}
	}
	require.NoError(t, os.Rename(filepath.Join(dir, latin1), filepath.Join(dir, "renamed")))
	_, err = encrypt(ctx)
	require.NoError(t, err)
	require.Equal(t, stored.KindEncrypted, kindOf(t, b, "renamed"))
}

func kindOf(t testing.TB, b *blob.Bucket, key string) stored.Kind {
	for e, err := range jobs.Inventory(ctx, b, &jobs.InventoryOptions{Filter: jobs.Filter{Prefix: key}}) {
		require.NoError(t, err)
		return e.Kind
	}
	return 0
}
