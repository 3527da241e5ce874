package s3test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/feature/s3/transfermanager"
	"github.com/stretchr/testify/require"
	gcblob "gocloud.dev/blob"
	"gocloud.dev/gcerrors"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/blob/jobs"
	"github.com/blobseal/blobseal/internal/testbed/ssetest"
	"github.com/blobseal/blobseal/sse"
)

// ifMatch is for [blob.Options].IfUnchanged on S3. The transfer manager hands the
// condition to PutObject, and in a multipart upload to CompleteMultipartUpload.
var ifMatch = blob.IfMatch(func(in *transfermanager.UploadObjectInput, etag string) { in.IfMatch = &etag })

// race is a rewrap of one object, or a copy of the object onto itself. Another process
// changes the object at the last moment, just before the request that publishes.
type race struct {
	*testing.T
	ours, theirs *blob.Bucket // of two processes: nothing in memory is shared
	wire         *wire        // of ours
}

func newRace(t *testing.T, s *server, condition func(func(any) bool, *gcblob.Attributes) error, size int, forestall func(theirs *blob.Bucket) error) *race {
	w := new(wire)
	name := s.newBucket(t)
	cipher := modes[0].cipher(t)
	r := &race{T: t, wire: w,
		ours:   encrypted(t, s.open(t, name, w), cipher, &blob.Options{IfUnchanged: condition}),
		theirs: encrypted(t, s.open(t, name, nil), cipher, nil),
	}
	require.NoError(t, r.ours.WriteAll(context.Background(), "o", content(size), nil))
	w.take()
	w.beforeFirst(t, func() error { return forestall(r.theirs) }, "PutObject", "CompleteMultipartUpload")
	return r
}

// conditionalSizes returns sizes of objects that a server writes under conditions.
func conditionalSizes(s *server) map[string]int {
	sizes := map[string]int{"small": 100, "large": 17 << 20}
	if s.name == "gofakes3" {
		delete(sizes, "large") // it ignores conditions of multipart uploads
	}
	return sizes
}

// publication returns the request that publishes.
func (r *race) publication() *request {
	for _, q := range r.wire.take() {
		if q.op == "PutObject" || q.op == "CompleteMultipartUpload" {
			return q
		}
	}
	require.FailNow(r, "nothing was published")
	return nil
}

// TestIfMatch: with the store's own condition, a job never replaces what another process
// wrote, or restores what it deleted.
func TestIfMatch(t *testing.T) {
	ctx := context.Background()
	write := func(theirs *blob.Bucket) error { return theirs.WriteAll(ctx, "o", []byte("theirs"), nil) }
	remove := func(theirs *blob.Bucket) error { return theirs.Delete(ctx, "o") }
	force := &jobs.RewrapOptions{Force: true}

	eachServer(t, func(t *testing.T, s *server) {
		for name, size := range conditionalSizes(s) {
			t.Run(name+"/rewrap against a write", func(t *testing.T) {
				r := newRace(t, s, ifMatch, size, write)
				report, err := jobs.Rewrap(ctx, r.ours, force)
				require.NoError(t, err)
				require.EqualValues(t, 1, report.Done, "what the other process wrote is rewrapped by the next attempt")
				q := r.publication()
				require.Equal(t, 412, q.status)
				require.NotEmpty(t, q.ifMatch)
				requireObject(t, r.ours, "o", []byte("theirs"))
			})
			t.Run(name+"/rewrap against a delete", func(t *testing.T) {
				r := newRace(t, s, ifMatch, size, remove)
				report, err := jobs.Rewrap(ctx, r.ours, force)
				require.NoError(t, err)
				require.Equal(t, jobs.Counts{Deleted: 1}, report.Counts)
				there, err := r.ours.Exists(ctx, "o")
				require.NoError(t, err)
				require.False(t, there)
			})
			t.Run(name+"/copy onto itself against a write", func(t *testing.T) {
				r := newRace(t, s, ifMatch, size, write)
				err := r.ours.Copy(ctx, "o", "o", nil)
				require.Equal(t, gcerrors.FailedPrecondition, gcerrors.Code(err), "%v", err)
				requireObject(t, r.ours, "o", []byte("theirs"))
			})
			t.Run(name+"/without a condition a write is lost", func(t *testing.T) {
				r := newRace(t, s, nil, size, write)
				report, err := jobs.Rewrap(ctx, r.ours, force)
				require.NoError(t, err)
				require.Equal(t, int64(1), report.Done)
				require.Empty(t, r.publication().ifMatch)
				requireObject(t, r.ours, "o", content(size))
			})
			t.Run(name+"/nobody between", func(t *testing.T) {
				r := newRace(t, s, ifMatch, size, func(*blob.Bucket) error { return nil })
				report, err := jobs.Rewrap(ctx, r.ours, force)
				require.NoError(t, err)
				require.Equal(t, int64(1), report.Done)
				require.NotEmpty(t, r.publication().ifMatch)
				require.NoError(t, r.ours.Copy(ctx, "o", "o", nil))
				requireObject(t, r.ours, "o", content(size))
			})
		}
	})
}

// TestIfMatchWithoutPause: one process keeps rewrapping objects to one key and back while
// others write. Each writer reads what it wrote last. It is long because it runs a rewrap
// and its writers at once.
func TestIfMatchWithoutPause(t *testing.T) {
	ctx := context.Background()
	const writers, rounds = 4, 40
	eachServer(t, func(t *testing.T, s *server) {
		name := s.newBucket(t)
		first, second := ssetest.NewKMS(t, "arn:first"), ssetest.NewKMS(t, "arn:second")
		both := routes{"arn:first": first, "arn:second": second}
		opts := &blob.Options{IfUnchanged: ifMatch, Decrypters: sse.ByMode{sse.ModeKMS: both}}

		stop, stopped := make(chan struct{}), make(chan struct{})
		var done int64
		go func() {
			defer close(stopped)
			b := encrypted(t, s.open(t, name, nil), first, opts)
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				to := []*sse.KMS{second, first}[i%2]
				report, err := jobs.Rewrap(ctx, b, &jobs.RewrapOptions{To: to, Job: jobs.Job{Workers: writers}})
				for _, failure := range report.Failures {
					// versitygw lists files that it is about to rename.
					if !strings.Contains(failure.Key, ".sgwtmp.") && !errors.Is(failure.Err, blob.ErrChanged) {
						t.Errorf("%s: %v", failure.Key, failure.Err)
					}
				}
				if err != nil && !errors.Is(err, jobs.ErrIncomplete) {
					t.Error(err)
					return
				}
				done += report.Done
			}
		}()
		var group sync.WaitGroup
		for i := range writers {
			group.Go(func() {
				b := encrypted(t, s.open(t, name, nil), first, opts)
				key := fmt.Sprintf("o%d", i)
				for round := range rounds {
					version := fmt.Sprintf("version %d", round)
					if err := b.WriteAll(ctx, key, []byte(version), nil); err != nil {
						t.Error(err)
						return
					}
					for range 3 {
						got, err := b.ReadAll(ctx, key)
						if err != nil || string(got) != version {
							t.Errorf("%s: read %q, %v, want %s", key, got, err, version)
							return
						}
					}
				}
			})
		}
		group.Wait()
		close(stop)
		<-stopped
		t.Logf("%d rewrapped", done)
		require.Positive(t, done)
	})
}

// TestIfNotExist: several processes write one object that must not exist. One succeeds, and
// the object is the one that it wrote.
func TestIfNotExist(t *testing.T) {
	ctx := context.Background()
	eachServer(t, func(t *testing.T, s *server) {
		for name, size := range conditionalSizes(s) {
			t.Run(name, func(t *testing.T) {
				const writers = 4
				bucket := s.newBucket(t)
				cipher := modes[0].cipher(t)
				var group sync.WaitGroup
				var errs [writers]error
				for i := range writers {
					group.Go(func() {
						b := encrypted(t, s.open(t, bucket, nil, abortAnyway), cipher, nil)
						errs[i] = b.WriteAll(ctx, "o", bytes.Repeat([]byte{byte(i)}, size), &gcblob.WriterOptions{IfNotExist: true})
					})
				}
				group.Wait()
				winner := slices.Index(errs[:], nil)
				require.NotEqual(t, -1, winner, "%v", errs)
				for i, err := range errs {
					if i != winner {
						require.Equal(t, gcerrors.FailedPrecondition, gcerrors.Code(err), "%v", errs)
					}
				}
				requireObject(t, encrypted(t, s.open(t, bucket, nil), cipher, nil), "o", bytes.Repeat([]byte{byte(winner)}, size))
				require.Zero(t, unfinished(t, s, bucket))
			})
		}
	})
}

// routes opens an envelope with the key that it names.
type routes map[string]*sse.KMS

func (r routes) Decrypt(ctx context.Context, obj sse.Object, env *sse.Envelope) (*sse.Decryption, error) {
	return r[env.KeyID()].Decrypt(ctx, obj, env)
}
