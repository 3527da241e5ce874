package blob_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	gcblob "gocloud.dev/blob"
	"gocloud.dev/blob/fileblob"
	"gocloud.dev/gcerrors"

	"github.com/blobseal/blobseal/blob/internal/blobtest"
	"github.com/blobseal/blobseal/blob/jobs"
	"github.com/blobseal/blobseal/sse"
)

// TestKeysOfOneFile: a file bucket refuses keys that fileblob would clean into the
// file of another key, in every call.
func TestKeysOfOneFile(t *testing.T) {
	inner := blobtest.NewFile(t)
	b := blobtest.NewBucket(t, inner, nil)
	require.NoError(t, b.WriteAll(ctx, "a/b", blobtest.Content(10), nil))
	for _, key := range []string{"/a/b", "./a/b", "a/./b", "a/b/.", "a/b/c/..", "."} {
		t.Run(key, func(t *testing.T) {
			_, readErr := b.ReadAll(ctx, key)
			_, attrsErr := b.Attributes(ctx, key)
			for _, err := range []error{
				b.WriteAll(ctx, key, nil, nil), b.Copy(ctx, key, "a/b", nil), b.Copy(ctx, "c", key, nil), b.Delete(ctx, key), readErr, attrsErr,
			} {
				require.ErrorIs(t, err, sse.ErrInvalid)
				require.Equal(t, gcerrors.InvalidArgument, gcerrors.Code(err))
			}
		})
	}
	for _, key := range []string{"a//b", "../a", "a/../b", "a/b/", "..a", "a.", "a/.b"} {
		require.NoError(t, b.WriteAll(ctx, key, []byte(key), nil), key)
	}
	for _, key := range []string{"a//b", "../a", "a/../b", "a/b/", "..a", "a.", "a/.b"} {
		require.Equal(t, key, string(blobtest.ReadAll(t, b.Bucket, key)))
	}
	require.Equal(t, blobtest.Content(10), blobtest.ReadAll(t, b.Bucket, "a/b"))
	mem := blobtest.NewBucket(t, blobtest.NewMem(t), nil)
	require.NoError(t, mem.WriteAll(ctx, "./a", nil, nil), "other stores keep keys apart")
}

// TestOtherProcessOnFiles: no rewrap puts an older version over what another process
// has written meanwhile, and of several IfNotExist one wins.
func TestOtherProcessOnFiles(t *testing.T) {
	dir, ring := t.TempDir(), blobtest.NewRing(t)
	open := func() *gcblob.Bucket { // as another process does: no lock in memory is shared
		inner, err := fileblob.OpenBucket(dir, &fileblob.Options{NoTempDir: true})
		require.NoError(t, err)
		t.Cleanup(func() { inner.Close() })
		return inner
	}
	ours := blobtest.NewBucketWith(t, open(), sse.NewManaged(ring), nil)
	theirs := blobtest.NewBucketWith(t, gcblob.PrefixedBucket(open(), ""), sse.NewManaged(ring), nil)
	for _, key := range []string{"a", "b"} {
		require.NoError(t, theirs.WriteAll(ctx, key, []byte("0"), nil))
	}
	stop := make(chan struct{})
	var group sync.WaitGroup
	group.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				_, _ = jobs.Rewrap(ctx, ours, &jobs.RewrapOptions{Force: true}) // may find an object changed each time
			}
		}
	})
	lost := 0
	for i, until := 1, time.Now().Add(time.Second); time.Now().Before(until) || i < 20; i++ {
		key := []string{"a", "b"}[i%2]
		want := fmt.Sprint(i)
		require.NoError(t, theirs.WriteAll(ctx, key, []byte(want), nil))
		time.Sleep(time.Duration(i%5) * time.Millisecond)
		if string(blobtest.ReadAll(t, theirs.Bucket, key)) != want {
			lost++
		}
	}
	close(stop)
	group.Wait()
	require.Zero(t, lost, "acknowledged writes were undone")

	for object, err := range all(theirs.Bucket) {
		require.NoError(t, err)
		require.Contains(t, []string{"a", "b"}, object.Key, "the lock is no object")
	}
	for i := range 20 {
		wins := make(chan struct{}, 2)
		var writers sync.WaitGroup
		for _, b := range []*gcblob.Bucket{ours.Bucket, theirs.Bucket} {
			writers.Go(func() {
				if b.WriteAll(ctx, fmt.Sprint("new", i), blobtest.Content(i), &gcblob.WriterOptions{IfNotExist: true}) == nil {
					wins <- struct{}{}
				}
			})
		}
		writers.Wait()
		require.Len(t, wins, 1)
	}
}

func all(b *gcblob.Bucket) func(yield func(*gcblob.ListObject, error) bool) {
	return func(yield func(*gcblob.ListObject, error) bool) {
		for list := b.List(nil); ; {
			object, err := list.Next(ctx)
			if object == nil || !yield(object, err) {
				return
			}
		}
	}
}

// TestJobsPublishThroughTheDriver: a job replaces files itself only in a bare
// fileblob bucket. A driver around one sees every publication, and can refuse it.
func TestJobsPublishThroughTheDriver(t *testing.T) {
	spy, inner := blobtest.NewSpy(t)
	spy.Bucket = blobtest.NewFile(t)
	b := blobtest.NewBucket(t, inner, nil)
	require.NoError(t, b.WriteAll(ctx, "k", blobtest.Content(10), nil))
	_, _, before := spy.State()
	_, err := jobs.Rewrap(ctx, b, &jobs.RewrapOptions{Force: true})
	require.NoError(t, err)
	_, _, after := spy.State()
	require.Equal(t, before+1, after, "the driver saw no commit")

	spy.Hook = func(_ context.Context, call string) error {
		if call == "commit k" {
			return errBoom
		}
		return nil
	}
	_, err = jobs.Rewrap(ctx, b, &jobs.RewrapOptions{Force: true})
	require.Error(t, err)
}

// TestBareFilesAreRecognized: gocloud keeps a bucket's driver to itself, so a new
// version of it may hide that a bucket is fileblob's. Jobs then lose their protection
// against a kill.
func TestBareFilesAreRecognized(t *testing.T) {
	dir := t.TempDir()
	open := func() *gcblob.Bucket {
		inner, err := fileblob.OpenBucket(dir, &fileblob.Options{NoTempDir: true})
		require.NoError(t, err)
		return inner
	}
	for name, bucket := range map[string]*gcblob.Bucket{
		"bare": open(), "prefixed": gcblob.PrefixedBucket(open(), "p/"), "single": gcblob.SingleKeyBucket(open(), "k"),
	} {
		defer bucket.Close()
		require.NoError(t, blobtest.NewBucket(t, bucket, nil).WriteAll(ctx, "k", nil, nil))
		names, err := filepath.Glob(filepath.Join(dir, ".*"))
		require.NoError(t, err)
		require.True(t, len(names) == 1 && strings.HasPrefix(filepath.Base(names[0]), ".blobseal-lock"), "%s: %v", name, names)
		require.NoError(t, os.Remove(names[0]))
	}
}
