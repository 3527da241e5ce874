package clouds

import (
	"bytes"
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	gcblob "gocloud.dev/blob"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/blob/jobs"
	"github.com/blobseal/blobseal/blob/stored"
	"github.com/blobseal/blobseal/internal/s3test/suite"
	"github.com/blobseal/blobseal/internal/testbed/ssetest"
	"github.com/blobseal/blobseal/sse"
)

// TestComposite: an object that was uploaded in parts is read, listed, copied, rewrapped and
// checked as any other. Neither store has the client copy or read ranges from the end.
func TestComposite(t *testing.T) {
	ctx := context.Background()
	eachServer(t, func(t *testing.T, s *server) {
		inner := s.newBucket(t)(t)
		k := newKeys(t)
		b := k.bucket(t, inner, k.managed, blob.Options{})
		data := content(300_000)

		_, object := ssetest.SealParts(t, k.managed, sse.Object{Bucket: bucketName, Key: "k"}, &sse.TrailerOptions{EnvelopeSize: blob.DefaultEnvelopeSize}, data)
		read, err := sse.ReadTrailer(bytes.NewReader(object), int64(len(object)))
		require.NoError(t, err)
		require.NoError(t, inner.WriteAll(ctx, "k", object, &gcblob.WriterOptions{
			ContentType: "text/x-blobseal", Metadata: stored.HintOf(read.Envelope()).Metadata(map[string]string{"n": "1"}),
		}))

		requireWhole := func(key string) {
			t.Helper()
			suite.RequireObject(t, b.Bucket, key, data, 200_000, map[string]string{"n": "1"})
		}
		requireWhole("k")
		require.NoError(t, b.Copy(ctx, "copy", "k", nil))
		requireWhole("copy")
		report, err := jobs.Rewrap(ctx, b, &jobs.RewrapOptions{To: k.kms})
		require.NoError(t, err)
		require.EqualValues(t, 2, report.Done)
		requireWhole("k")
		requireWhole("copy")
		for f, err := range jobs.Check(ctx, b, nil) {
			require.NoError(t, err)
			require.Equal(t, jobs.VerdictGood, f.Verdict, "%s: %v", f.Key, f.Err)
			require.Equal(t, sse.ModeKMS, f.Seal.Mode)
		}
	})
}
