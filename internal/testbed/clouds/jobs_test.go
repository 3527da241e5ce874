package clouds

import (
	"bytes"
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	gcblob "gocloud.dev/blob"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/blob/jobs"
	"github.com/blobseal/blobseal/sse"
)

// sizes are those of the objects in a bucket: no chunk, part of one, whole ones, many.
var sizes = []int{0, 1, chunk - 1, chunk, 3*chunk + 7, 9 << 20}

const chunk = 16 << 10

func fill(t testing.TB, b *gcblob.Bucket) {
	for i, size := range sizes {
		require.NoError(t, b.WriteAll(context.Background(), key(i), content(size), &gcblob.WriterOptions{
			ContentType: "text/x-blobseal", Metadata: map[string]string{"n": fmt.Sprint(i)},
		}))
	}
}

func key(i int) string { return fmt.Sprintf("dir/object-%d", i) }

// requireFilled checks that each object is as fill wrote it.
func requireFilled(t testing.TB, b *gcblob.Bucket) {
	t.Helper()
	ctx := context.Background()
	for i, size := range sizes {
		got, err := b.ReadAll(ctx, key(i))
		require.NoError(t, err, key(i))
		equal(t, content(size), got, key(i))
		attrs, err := b.Attributes(ctx, key(i))
		require.NoError(t, err)
		require.Equal(t, int64(size), attrs.Size)
		require.Equal(t, "text/x-blobseal", attrs.ContentType)
		require.Equal(t, map[string]string{"n": fmt.Sprint(i)}, attrs.Metadata)
	}
}

// requireUnder checks that all objects are under one key and that the store holds
// no plaintext.
func requireUnder(t testing.TB, b *blob.Bucket, want jobs.KeyRef) {
	t.Helper()
	ctx := context.Background()
	totals := new(jobs.Totals)
	for e, err := range jobs.Inventory(ctx, b, nil) {
		require.NoError(t, err)
		require.NoError(t, e.Err)
		totals.Add(e)
		stored, err := b.Inner().ReadAll(ctx, e.Key)
		require.NoError(t, err)
		require.Equal(t, e.Stored, int64(len(stored)))
		if e.Size > 64 {
			require.NotContains(t, string(stored), string(content(64)))
		}
	}
	require.Equal(t, int64(len(sizes)), totals.Objects)
	require.Equal(t, []jobs.KeyRef{want}, totals.Keys())
	requireFilled(t, b.Bucket)
}

// TestJobs takes a plain bucket through encryption in place, rotation, each mode,
// a check of all bodies, the retirement of a key, and shredding. On each emulator,
// each job does its work, rather than take all objects for changed.
func TestJobs(t *testing.T) {
	ctx := context.Background()
	n := int64(len(sizes))
	eachServer(t, func(t *testing.T, s *server) {
		inner := s.newBucket(t)(t)
		fill(t, inner)
		k := newKeys(t)
		b := k.bucket(t, inner, k.managed, blob.Options{AllowPlain: true})

		primary := func() jobs.KeyRef {
			key, err := k.ring.Primary(ctx)
			require.NoError(t, err)
			return jobs.KeyRef{Mode: sse.ModeManaged, KeyID: key.ID()}
		}
		done := func(report *jobs.Report, err error) {
			t.Helper()
			require.NoError(t, err, "%v", report.Failures)
			require.Equal(t, n, report.Done, "%v", report)
		}
		done(jobs.EncryptExisting(ctx, b, nil))
		first := primary()
		requireUnder(t, b, first)

		_, err := k.ring.Rotate(ctx)
		require.NoError(t, err)
		done(jobs.Rewrap(ctx, b, nil))
		requireUnder(t, b, primary())

		for _, to := range []sse.Cipher{k.kms, k.customer, k.managed} {
			done(jobs.Rewrap(ctx, b, &jobs.RewrapOptions{To: to}))
		}
		requireUnder(t, b, primary())
		for f, err := range jobs.Check(ctx, b, &jobs.CheckOptions{Depth: jobs.CheckBodies}) {
			require.NoError(t, err)
			require.Equal(t, jobs.VerdictGood, f.Verdict, "%s: %v", f.Key, f.Err)
		}
		_, err = jobs.Retire(ctx, k.ring, first.KeyID, &jobs.RetireOptions{Destroy: true, Quarantine: jobs.NoQuarantine}, b)
		require.NoError(t, err)

		var record bytes.Buffer
		shredded, err := jobs.ShredPrefix(ctx, b, "dir/", &record, nil)
		require.NoError(t, err)
		require.Equal(t, n, shredded.Objects)
		_, _, err = inner.ListPage(ctx, gcblob.FirstPageToken, 10, nil)
		require.NoError(t, err)
		for i := range sizes {
			exists, err := inner.Exists(ctx, key(i))
			require.NoError(t, err)
			require.False(t, exists)
		}
	})
}
