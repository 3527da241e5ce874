package s3test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	gcblob "gocloud.dev/blob"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/blob/jobs"
	"github.com/blobseal/blobseal/internal/testbed/ssetest"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/keyring/keyringtest"
	"github.com/blobseal/blobseal/sse"
)

// contents are the objects in a bucket, by key: of no, one, some and many chunks, and large
// enough for parts.
var contents = map[string][]byte{
	"empty":            {},
	"one":              []byte("one chunk"),
	"some/chunks":      content(2*chunk + 1),
	"some/ünicode ☺ +": content(chunk),
	"parts":            content(17 << 20),
}

// attributes are the attributes of each object.
var attributes = gcblob.WriterOptions{
	ContentType: "text/x-blobseal", ContentDisposition: `attachment; filename="x y.txt"`, ContentEncoding: "gzip",
	CacheControl: "max-age=60", ContentLanguage: "de",
	Metadata: map[string]string{"author": "Zoë ☺", "with space": "a=b; c", "empty": ""},
}

// fill writes contents, with attributes, into a bucket.
func fill(t *testing.T, b *gcblob.Bucket) {
	for key, content := range contents {
		opts := attributes
		require.NoError(t, b.WriteAll(context.Background(), key, content, &opts))
	}
}

// requireFilled checks that everything is as fill wrote it.
func requireFilled(t *testing.T, s *server, b *gcblob.Bucket) {
	ctx := context.Background()
	for key, content := range contents {
		requireObject(t, b, key, content)
		a, err := b.Attributes(ctx, key)
		require.NoError(t, err, key)
		require.Equal(t, int64(len(content)), a.Size, key)
		require.Equal(t, attributes.Metadata, a.Metadata, key)
		require.Equal(t, attributes.ContentType, a.ContentType, key)
		require.Equal(t, attributes.ContentDisposition, a.ContentDisposition, key)
		require.Equal(t, attributes.ContentEncoding, a.ContentEncoding, key)
		if s.name != "gofakes3" { // see limits
			require.Equal(t, attributes.CacheControl, a.CacheControl, key)
			require.Equal(t, attributes.ContentLanguage, a.ContentLanguage, key)
		}
	}
}

// totals returns the totals of a bucket's inventory.
func totals(t *testing.T, b *blob.Bucket) *jobs.Totals {
	all := new(jobs.Totals)
	for e, err := range jobs.Inventory(context.Background(), b, nil) {
		require.NoError(t, err)
		require.NoError(t, e.Err)
		all.Add(e)
	}
	return all
}

// TestJobs encrypts a plain bucket in place, and moves it from master key to master key and
// from mode to mode. After each step, every object is under the expected key, can be read,
// and has all its attributes. It is long because it is one history of one bucket.
func TestJobs(t *testing.T) {
	ctx := context.Background()
	n := int64(len(contents))
	eachServer(t, func(t *testing.T, s *server) {
		inner := s.open(t, s.newBucket(t), nil)
		fill(t, inner)
		ring := keyringtest.NewRing(t, nil)
		managed, byKMS, customer := sse.NewManaged(ring), ssetest.NewKMS(t, "arn:photos-key"), ssetest.NewCustomer(t, 7)
		open := func(cipher sse.Cipher, plain bool) *blob.Bucket {
			return encrypted(t, inner, cipher, &blob.Options{
				Policy: blob.Policy{AllowCustomerKeys: true}, IfUnchanged: ifMatch, AllowPlain: plain,
				Decrypters: sse.ByMode{sse.ModeManaged: managed, sse.ModeKMS: byKMS, sse.ModeCustomer: customer},
			})
		}
		b := open(managed, false)
		requireUnder := func(key jobs.KeyRef) {
			all := totals(t, b)
			require.Equal(t, n, all.Objects)
			require.Equal(t, []jobs.KeyRef{key}, all.Keys())
			require.Equal(t, n, all.Sealed[key].Objects)
			requireFilled(t, s, b.Bucket)
		}
		newest := func() jobs.KeyRef { return jobs.KeyRef{Mode: sse.ModeManaged, KeyID: primary(t, ring)} }

		require.Equal(t, n, totals(t, b).Plain.Objects)
		mixed := open(managed, true)
		requireFilled(t, s, mixed.Bucket)
		report, err := jobs.EncryptExisting(ctx, mixed, nil)
		require.NoError(t, err, "%v", report.Failures)
		require.Equal(t, n, report.Done)
		first := newest()
		requireUnder(first)

		_, err = ring.Rotate(ctx)
		require.NoError(t, err)
		require.NotEqual(t, first, newest())
		report, err = jobs.Rewrap(ctx, b, nil)
		require.NoError(t, err, "%v", report.Failures)
		require.Equal(t, n, report.Done)
		requireUnder(newest())

		_, err = jobs.Retire(ctx, ring, first.KeyID, &jobs.RetireOptions{Destroy: true, Quarantine: jobs.NoQuarantine}, b)
		require.NoError(t, err)
		requireUnder(newest())

		for _, to := range []struct {
			cipher sse.Cipher
			key    jobs.KeyRef
		}{
			{byKMS, jobs.KeyRef{Mode: sse.ModeKMS, KeyID: "arn:photos-key"}},
			{customer, jobs.KeyRef{Mode: sse.ModeCustomer}},
			{managed, newest()},
		} {
			checkpoint := keyring.NewMemStore()
			report, err = jobs.Rewrap(ctx, b, &jobs.RewrapOptions{To: to.cipher, Job: jobs.Job{Checkpoint: checkpoint}})
			require.NoError(t, err, "%v", report.Failures)
			require.Equal(t, n, report.Done)
			requireUnder(to.key)

			report, err = jobs.Rewrap(ctx, b, &jobs.RewrapOptions{To: to.cipher})
			require.NoError(t, err)
			require.Equal(t, jobs.Counts{Current: n}, report.Counts)
		}
		for f, err := range jobs.Check(ctx, b, &jobs.CheckOptions{Depth: jobs.CheckBodies}) {
			require.NoError(t, err)
			require.Equal(t, jobs.VerdictGood, f.Verdict, "%s: %v", f.Key, f.Err)
		}
	})
}

// primary returns the id of the ring's primary.
func primary(t *testing.T, ring *keyring.Ring) string {
	for _, info := range ring.Versions() {
		if info.Primary {
			return info.ID
		}
	}
	require.FailNow(t, "no primary")
	return ""
}
