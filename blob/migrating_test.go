package blob_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"
	gcblob "gocloud.dev/blob"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/blob/internal/blobtest"
	"github.com/blobseal/blobseal/blob/jobs"
	"github.com/blobseal/blobseal/internal/testbed/ssetest"
	"github.com/blobseal/blobseal/sse"
)

// replica is a process of a fleet, of one release.
type replica struct {
	release string
	bucket  *gcblob.Bucket
}

// eachReadsAll writes with each replica, and reads with each what all have written,
// after a read, a rename and a change as services make them.
func eachReadsAll(t *testing.T, fleet ...replica) {
	for _, writer := range fleet {
		for _, reader := range fleet {
			key := fmt.Sprintf("%s, then %s", writer.release, reader.release)
			require.NoError(t, writer.bucket.WriteAll(ctx, key, blobtest.Content(20_000), nil))
			require.Equal(t, blobtest.Content(20_000), blobtest.ReadAll(t, reader.bucket, key), key)
			require.NoError(t, reader.bucket.Copy(ctx, key+" renamed", key, nil), key)
			require.Equal(t, blobtest.Content(20_000), blobtest.ReadAll(t, writer.bucket, key+" renamed"), key)
			p := append(blobtest.ReadAll(t, reader.bucket, key), '!')
			require.NoError(t, reader.bucket.WriteAll(ctx, key, p, nil))
			require.Equal(t, p, blobtest.ReadAll(t, writer.bucket, key), key)
		}
	}
}

// TestMigrationFromPlaintext rolls out the releases of MIGRATING.md. In each step, two
// releases run side by side, and each reads what the other writes.
func TestMigrationFromPlaintext(t *testing.T) {
	var log bytes.Buffer
	defer slog.SetDefault(slog.Default())
	slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))

	inner, cipher := blobtest.NewMem(t), sse.NewManaged(blobtest.NewRing(t))
	release := func(opts *blob.Options) *blob.Bucket { return blobtest.NewBucketWith(t, inner, cipher, opts) }
	plain := replica{"plain", inner}
	require.NoError(t, inner.WriteAll(ctx, "old", blobtest.Content(5), nil))

	reading := release(&blob.Options{AllowPlain: true, WritePlain: true})
	require.Contains(t, log.String(), "unencrypted")
	log.Reset()
	eachReadsAll(t, plain, replica{"reading", reading.Bucket})
	require.Contains(t, log.String(), "key=", "each write says so")

	writing := release(&blob.Options{AllowPlain: true})
	eachReadsAll(t, replica{"reading", reading.Bucket}, replica{"writing", writing.Bucket})

	_, err := jobs.EncryptExisting(ctx, writing, nil)
	require.NoError(t, err)
	strict := release(nil)
	eachReadsAll(t, replica{"writing", writing.Bucket}, replica{"strict", strict.Bucket})
	require.Equal(t, blobtest.Content(5), blobtest.ReadAll(t, strict.Bucket, "old"))
}

// TestMigrationToAnotherKey moves from one key service to another: decrypters
// everywhere first, then the cipher, then a rewrap.
func TestMigrationToAnotherKey(t *testing.T) {
	inner, old, renewed := blobtest.NewMem(t), sse.NewManaged(blobtest.NewRing(t)), ssetest.NewKMS(t, "new")
	decrypters := sse.ByMode{sse.ModeManaged: old, sse.ModeKMS: renewed}
	before := blobtest.NewBucketWith(t, inner, old, nil)
	ready := blobtest.NewBucketWith(t, inner, old, &blob.Options{Decrypters: decrypters})
	moved := blobtest.NewBucketWith(t, inner, renewed, &blob.Options{Decrypters: decrypters})
	after := blobtest.NewBucketWith(t, inner, renewed, nil)
	eachReadsAll(t, replica{"before", before.Bucket}, replica{"ready", ready.Bucket})
	eachReadsAll(t, replica{"ready", ready.Bucket}, replica{"moved", moved.Bucket})
	_, err := jobs.Rewrap(ctx, moved, &jobs.RewrapOptions{Filter: jobs.Filter{Modes: []sse.Mode{sse.ModeManaged}}})
	require.NoError(t, err)
	eachReadsAll(t, replica{"moved", moved.Bucket}, replica{"after", after.Bucket})
}

// TestWritePlain: it needs AllowPlain, and a request that brings a key encrypts.
func TestWritePlain(t *testing.T) {
	inner := blobtest.NewMem(t)
	_, err := blob.NewBucket(inner, "photos", ssetest.NewKMS(t, "a"), &blob.Options{WritePlain: true})
	require.ErrorIs(t, err, sse.ErrInvalid)
	b := blobtest.NewBucket(t, inner, &blob.Options{WritePlain: true, AllowPlain: true, Policy: blob.Policy{AllowCustomerKeys: true}})
	require.NoError(t, b.WriteAll(ctx, "plain", blobtest.Content(10), &gcblob.WriterOptions{ContentType: "image/png", Metadata: map[string]string{"a": "b"}}))
	require.Equal(t, blobtest.Content(10), blobtest.ReadAll(t, inner, "plain"))
	attrs, err := inner.Attributes(ctx, "plain")
	require.NoError(t, err)
	require.Equal(t, "image/png", attrs.ContentType)
	require.Equal(t, map[string]string{"a": "b"}, attrs.Metadata)
	require.NoError(t, blobtest.With(t, b, blob.Request{Cipher: ssetest.NewCustomer(t, 1)}).WriteAll(ctx, "sealed", blobtest.Content(10), nil))
	require.NotContains(t, string(blobtest.ReadAll(t, inner, "sealed")), string(blobtest.Content(10)))
}
