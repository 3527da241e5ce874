package jobs_test

import (
	"context"
	"fmt"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	gcblob "gocloud.dev/blob"
	"gocloud.dev/gcerrors"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/blob/internal/blobtest"
	"github.com/blobseal/blobseal/blob/jobs"
	"github.com/blobseal/blobseal/blob/stored"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/sse"
)

func (w *world) putPlain(t testing.TB, key string, size int) {
	require.NoError(t, w.store.Bucket.WriteAll(ctx, key, blobtest.Content(size), &gcblob.WriterOptions{
		ContentType: "image/png", CacheControl: "no-cache", ContentLanguage: "de", ContentEncoding: "br",
		Metadata: map[string]string{"owner": "ann"},
	}))
}

func TestEncryptExisting(t *testing.T) {
	for _, store := range blobtest.Stores {
		for _, mode := range []sse.Mode{sse.ModeManaged, sse.ModeKMS, sse.ModeCustomer} {
			t.Run(fmt.Sprint(store.Name, " ", mode), func(t *testing.T) {
				w := newWorld(t, store.Open(t))
				for _, size := range sizes {
					w.putPlain(t, fmt.Sprintf("plain/%d", size), size)
				}
				w.putPlain(t, "elsewhere", 10)
				w.put(t, "plain/sealed", 10, nil)
				to := map[sse.Mode]sse.Encrypter{sse.ModeKMS: w.kms, sse.ModeCustomer: w.ssec}[mode]
				dry, err := jobs.EncryptExisting(ctx, w.Bucket, &jobs.EncryptOptions{To: to, Prefix: "plain/", Job: jobs.Job{DryRun: true}})
				require.NoError(t, err)
				report, err := jobs.EncryptExisting(ctx, w.Bucket, &jobs.EncryptOptions{To: to, Prefix: "plain/"})
				require.NoError(t, err)
				require.EqualValues(t, len(sizes), report.Done)
				require.EqualValues(t, 1, report.Unmatched)
				require.Equal(t, dry.Counts, report.Counts)
				for _, size := range sizes {
					key := fmt.Sprintf("plain/%d", size)
					require.Equal(t, mode, w.entry(t, key).Seal.Mode)
					w.requireUnchanged(t, key, size)
				}
				require.Equal(t, stored.KindPlain, w.entry(t, "elsewhere").Kind)
				report, err = jobs.EncryptExisting(ctx, w.Bucket, nil)
				require.NoError(t, err)
				require.EqualValues(t, 1, report.Done)
			})
		}
	}
}

// What was encrypted once and is damaged is not wrapped up as if it were plain.
func TestEncryptExistingSparesDamage(t *testing.T) {
	w := newWorld(t, blobtest.NewMem(t))
	w.put(t, "a", 10, nil)
	stored := blobtest.ReadAll(t, w.Inner(), "a")
	attrs, err := w.Inner().Attributes(ctx, "a")
	require.NoError(t, err)
	require.NoError(t, w.Inner().WriteAll(ctx, "a", stored[8:], metadata(attrs.Metadata)))
	require.NoError(t, w.Inner().WriteAll(ctx, "b", stored[:100], nil))
	require.NoError(t, w.Inner().WriteAll(ctx, "c", []byte(later), nil))
	report, err := jobs.EncryptExisting(ctx, w.Bucket, nil)
	require.ErrorIs(t, err, jobs.ErrIncomplete)
	require.EqualValues(t, 3, report.Failed)
	require.Equal(t, stored[8:], blobtest.ReadAll(t, w.Inner(), "a"))
}

// What the store would unpack cannot be encrypted as it is. It is not called
// changed, which the next run would be thought to do.
func TestEncryptExistingUnpacked(t *testing.T) {
	spy, inner := blobtest.NewSpy(t)
	spy.Unpack = true
	require.NoError(t, inner.WriteAll(ctx, "k", blobtest.Content(100), nil))
	b := blobtest.NewBucket(t, inner, &blob.Options{AllowPlain: true})
	report, err := jobs.EncryptExisting(ctx, b, nil)
	require.ErrorIs(t, err, jobs.ErrIncomplete)
	require.EqualValues(t, 1, report.Failed)
	require.Equal(t, gcerrors.FailedPrecondition, gcerrors.Code(b.Copy(ctx, "copy", "k", nil)))
	require.NotErrorIs(t, b.Copy(ctx, "copy", "k", nil), blob.ErrChanged)
	require.Equal(t, blobtest.Content(100), blobtest.ReadAll(t, inner, "k"))
}

// A file that cannot be put in its place leaves the object and its attributes as
// they were.
func TestFileNotReplaced(t *testing.T) {
	inner := blobtest.NewFile(t)
	b := blobtest.NewBucket(t, inner, &blob.Options{AllowPlain: true, IfUnchanged: func(as func(any) bool, _ *gcblob.Attributes) error {
		var f *os.File
		require.True(t, as(&f))
		return os.Remove(f.Name())
	}})
	require.NoError(t, inner.WriteAll(ctx, "plain", blobtest.Content(100), nil))
	require.NoError(t, b.WriteAll(ctx, "sealed", blobtest.Content(100), nil))
	all := func() (attrs []*gcblob.Attributes) {
		for _, key := range []string{"plain", "sealed"} {
			require.Equal(t, blobtest.Content(100), blobtest.ReadAll(t, b.Bucket, key))
			a, err := inner.Attributes(ctx, key)
			require.NoError(t, err)
			attrs = append(attrs, &gcblob.Attributes{Metadata: a.Metadata, MD5: a.MD5, ContentType: a.ContentType})
		}
		return attrs
	}
	before := all()
	report, err := jobs.EncryptExisting(ctx, b, nil)
	require.ErrorIs(t, err, jobs.ErrIncomplete)
	require.ErrorIs(t, report.Failures[0].Err, os.ErrNotExist)
	report, err = jobs.Rewrap(ctx, b, &jobs.RewrapOptions{Force: true})
	require.ErrorIs(t, err, jobs.ErrIncomplete)
	require.ErrorIs(t, report.Failures[0].Err, os.ErrNotExist)
	require.Equal(t, before, all())
}

func TestEncryptExistingFaults(t *testing.T) {
	for _, op := range []string{"attributes", "open", "read", "create", "write", "close"} {
		for nth := 1; nth <= 3; nth++ {
			t.Run(fmt.Sprint(op, " ", nth), func(t *testing.T) {
				w := newWorld(t, blobtest.NewMem(t))
				for _, key := range []string{"a", "b", "c"} {
					w.putPlain(t, key, 50_000)
				}
				n := 0
				w.store.set(func(o, key string) error {
					if o == op && key == "b" {
						if n++; n == nth {
							return errRigged
						}
					}
					return nil
				})
				ckpt := keyring.NewMemStore()
				_, err := jobs.EncryptExisting(ctx, w.Bucket, &jobs.EncryptOptions{Job: jobs.Job{Checkpoint: ckpt}})
				w.store.set(nil)
				if n >= nth {
					require.ErrorIs(t, err, jobs.ErrIncomplete)
					require.Equal(t, blobtest.Content(50_000), blobtest.ReadAll(t, w.Inner(), "b"))
				}
				report, err := jobs.EncryptExisting(ctx, w.Bucket, &jobs.EncryptOptions{Job: jobs.Job{Checkpoint: ckpt}})
				require.NoError(t, err)
				require.Equal(t, n >= nth, report.Resumed)
				for _, key := range []string{"a", "b", "c"} {
					w.requireUnchanged(t, key, 50_000)
				}
			})
		}
	}
}

func TestEncryptExistingGivesWay(t *testing.T) {
	for _, step := range []string{"open", "read", "create", "write"} {
		for what, does := range map[string]func(t *testing.T, w *world){
			"written":        func(t *testing.T, w *world) { w.put(t, "b", 33, nil) },
			"written behind": func(t *testing.T, w *world) { w.putPlain(t, "b", 33) },
			"deleted behind": func(t *testing.T, w *world) { require.NoError(t, w.store.Bucket.Delete(ctx, "b")) },
		} {
			t.Run(what+" before "+step, func(t *testing.T) {
				w := newWorld(t, blobtest.NewMem(t))
				w.putPlain(t, "b", 5000)
				fired := false
				w.store.set(func(op, key string) error {
					if op == step && !fired {
						fired = true
						does(t, w)
					}
					return nil
				})
				report, err := jobs.EncryptExisting(ctx, w.Bucket, nil)
				require.NoError(t, err)
				require.True(t, fired)
				if what == "written behind" {
					require.EqualValues(t, 1, report.Done, "the next attempt encrypts what was written")
				} else {
					require.Zero(t, report.Done)
				}
				w.store.set(nil)
				if what == "deleted behind" {
					_, err := w.ReadAll(ctx, "b")
					require.Equal(t, gcerrors.NotFound, gcerrors.Code(err))
					return
				}
				require.Equal(t, blobtest.Content(33), blobtest.ReadAll(t, w.Bucket.Bucket, "b"))
			})
		}
	}
}

func TestEncryptExistingStops(t *testing.T) {
	w := newWorld(t, blobtest.NewMem(t))
	w.putPlain(t, "a", 10)
	ended, cancel := context.WithCancel(ctx)
	cancel()
	_, err := jobs.EncryptExisting(ended, w.Bucket, nil)
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, blobtest.Content(10), blobtest.ReadAll(t, w.Inner(), "a"))
}

// What a writer of a file bucket has under way may look like an object, and a plain
// one. A job that put another in its place would have the writer publish that.
func TestEncryptExistingSparesWhatIsUnderWay(t *testing.T) {
	inner := blobtest.NewFile(t) // with its temporary files among the objects
	b := blobtest.NewBucket(t, inner, &blob.Options{AllowPlain: true})
	require.NoError(t, inner.WriteAll(ctx, "old", blobtest.Content(100), nil))
	for name, store := range map[string]*gcblob.Bucket{"plain": inner, "sealed": b.Bucket} {
		w, err := store.NewWriter(ctx, "dir/new", &gcblob.WriterOptions{ContentType: "a/b"})
		require.NoError(t, err)
		for _, part := range []int{0, 5000} {
			_, err = w.Write(blobtest.Content(part))
			require.NoError(t, err)
			_, err = jobs.EncryptExisting(ctx, b, nil)
			if err != nil {
				require.ErrorIs(t, err, jobs.ErrIncomplete)
			}
		}
		require.NoError(t, w.Close())
		require.Equal(t, blobtest.Content(5000), blobtest.ReadAll(t, b.Bucket, "dir/new"), name)
	}
	_, err := jobs.EncryptExisting(ctx, b, nil)
	require.NoError(t, err)
	for key, size := range map[string]int{"old": 100, "dir/new": 5000} {
		require.Equal(t, blobtest.Content(size), blobtest.ReadAll(t, b.Bucket, key))
		require.Len(t, blobtest.ReadAll(t, inner, key), size+blob.DefaultEnvelopeSize+16)
	}

	// In another store it is a name as any.
	mem := blobtest.NewMem(t)
	b = blobtest.NewBucket(t, mem, nil)
	require.NoError(t, mem.WriteAll(ctx, "a.18eb7914f4314d38.tmp", blobtest.Content(100), nil))
	report, err := jobs.EncryptExisting(ctx, b, nil)
	require.NoError(t, err)
	require.EqualValues(t, 1, report.Done)
}

// A file bucket's listing fails where a file goes in the middle of it.
func TestListingOfABusyDirectory(t *testing.T) {
	gone := func() error { _, err := blobtest.NewMem(t).Attributes(ctx, "gone"); return err }()
	for times, want := range map[int]error{1: nil, 9: nil, 10: gcerrors.ErrNotFound} {
		w := newWorld(t, blobtest.NewFile(t))
		w.put(t, "dir/a", 10, nil)
		w.store.set(func(op, _ string) error {
			if op == "list" {
				if times--; times >= 0 {
					return gone
				}
			}
			return nil
		})
		n := 0
		for e, err := range jobs.Inventory(ctx, w.Bucket, nil) {
			require.ErrorIs(t, err, want)
			if err == nil {
				require.NoError(t, e.Err)
				n++
			}
		}
		require.Equal(t, want == nil, n == 1)
	}
}
