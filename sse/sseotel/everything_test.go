package sseotel_test

import (
	"bytes"
	"context"
	"io"
	"testing"

	"github.com/stretchr/testify/require"
	"gocloud.dev/blob/memblob"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/blob/jobs"
	"github.com/blobseal/blobseal/internal/testbed/ssetest"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/audit"
	"github.com/blobseal/blobseal/kms/cache"
	"github.com/blobseal/blobseal/sse"
	"github.com/blobseal/blobseal/sse/sseotel"
)

// fleet is a process that has everything that telemetry observes.
type fleet struct {
	*bed
	ringStore *faultyStore
	ring      *keyring.Ring
	managed   sse.Cipher

	serviceStore *faultyStore
	service      *keyService
	faulty       *faultyClient
	trail        *trail
	kms          sse.Cipher
	customer     sse.Cipher
}

func newFleet(t testing.TB, opts ...sseotel.Option) *fleet {
	f := &fleet{bed: newBed(t, opts...), ringStore: new(faultyStore), trail: new(trail)}
	f.ring = newRing(t, f.ringStore)
	f.ObserveRing("photos", f.ring)
	f.managed = f.Cipher(sse.NewManaged(f.ring))

	f.serviceStore = new(faultyStore)
	f.service = newKeyServiceIn(t, f.serviceStore)
	f.ObserveService("keys", f.service.Service)
	f.faulty = &faultyClient{Client: f.service.Client}
	cached := cache.New(f.Client(f.faulty), nil)
	f.ObserveCache("keys", cached)
	client := audit.NewClient(f.Client(cached), f.Sink(f.trail))
	mode, err := sse.NewKMS(client, f.service.key, nil)
	require.NoError(t, err)
	f.kms = f.Cipher(mode)
	f.customer = f.Cipher(ssetest.NewCustomer(t, 3))
	return f
}

// runJob rewraps a bucket of three objects, and reports it.
func (f *fleet) runJob(t testing.TB, during func()) {
	bucket, err := blob.NewBucket(memblob.OpenBucket(nil), "photos", f.managed, nil)
	require.NoError(t, err)
	for _, key := range []string{"a", "b", "c"} {
		require.NoError(t, bucket.WriteAll(t.Context(), key, []byte("meow"), nil))
	}
	_, err = f.ring.Rotate(t.Context())
	require.NoError(t, err)
	job := f.StartJob("rewrap photos")
	_, err = jobs.Rewrap(t.Context(), bucket, &jobs.RewrapOptions{Job: jobs.Job{
		Progress: func(r *jobs.Report) {
			job.Progress(sseotel.JobCounts(r.Counts), r.Failed)
			if r.Done == 3 {
				during()
			}
		},
	}})
	require.NoError(t, err)
	job.End(err)
	job.End(err)
}

// doEverything has every metric, span and attribute emitted, except those of the job.
func (f *fleet) doEverything(t testing.TB) {
	for _, cipher := range []sse.Cipher{f.managed, f.kms, f.customer} {
		object := seal(t, cipher, []byte("meow"))
		plain, err := open(t.Context(), cipher, object)
		require.NoError(t, err)
		require.Equal(t, "meow", string(plain))
		env, err := sse.ReadEnvelope(bytes.NewReader(object))
		require.NoError(t, err)
		d, err := cipher.Decrypt(t.Context(), cat, env)
		require.NoError(t, err)
		_, err = cipher.Rewrap(t.Context(), cat, d)
		require.NoError(t, err)
		_, err = cipher.Decrypt(t.Context(), sse.Object{Bucket: "photos", Key: "another"}, env)
		require.Error(t, err)

		object[len(object)-1] ^= 1
		_, err = open(t.Context(), cipher, object)
		require.ErrorIs(t, err, sse.ErrCorrupt)
	}
	object := seal(t, f.kms, []byte("meow"))
	require.NoError(t, f.service.DisableKey(t.Context(), f.service.key))
	_, err := open(t.Context(), f.kms, object) // Authorize refuses
	require.ErrorIs(t, err, kms.ErrDisabled)
	require.NoError(t, f.service.EnableKey(t.Context(), f.service.key))
	f.trail.fail(errBroken)
	_, err = f.kms.Encrypt(t.Context(), cat)
	require.ErrorIs(t, err, audit.ErrNotRecorded)
	f.trail.fail(nil)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = f.kms.Encrypt(ended, cat)
	require.ErrorIs(t, err, context.Canceled)
	e, err := f.managed.Encrypt(t.Context(), cat)
	require.NoError(t, err)
	_, err = io.ReadAll(e.Reader(io.MultiReader(bytes.NewReader([]byte("meow")), failing{})))
	require.ErrorIs(t, err, errBroken)
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errBroken }
