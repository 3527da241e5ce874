package s3test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	gcblob "gocloud.dev/blob"

	"github.com/blobseal/blobseal/blob/jobs"
	"github.com/blobseal/blobseal/blob/stored"
	"github.com/blobseal/blobseal/internal/s3test/suite"
	"github.com/blobseal/blobseal/internal/testbed/ssetest"
	"github.com/blobseal/blobseal/keyring/keyringtest"
	"github.com/blobseal/blobseal/sse"
)

// putParts stores a composite object of the bucket "photos", whose parts have these sizes.
func putParts(t *testing.T, inner *gcblob.Bucket, key string, cipher sse.Cipher, plain []byte, sizes ...int) {
	t.Helper()
	ctx := context.Background()
	var parts [][]byte
	for _, size := range sizes {
		parts, plain = append(parts, plain[:size]), plain[size:]
	}
	require.Empty(t, plain)
	upload, object := ssetest.SealParts(t, cipher, sse.Object{Bucket: "photos", Key: key}, &sse.TrailerOptions{EnvelopeSize: envelope}, parts...)
	state, err := upload.State(ctx, nil)
	require.NoError(t, err)
	env := new(sse.Envelope)
	require.NoError(t, env.UnmarshalBinary(state))
	require.NoError(t, inner.WriteAll(ctx, key, object, &gcblob.WriterOptions{
		Metadata: stored.HintOf(env).Metadata(map[string]string{"author": "Zoë ☺"}),
	}))
}

// TestComposite: over S3, an object that was uploaded in parts is read, listed, copied,
// checked and rewrapped as any other.
func TestComposite(t *testing.T) {
	ctx := context.Background()
	eachServer(t, func(t *testing.T, s *server) {
		inner := s.open(t, s.newBucket(t), nil)
		ring := keyringtest.NewRing(t, nil)
		cipher := sse.NewManaged(ring)
		b := encrypted(t, inner, cipher, nil)
		data := content(300_000)
		putParts(t, inner, "k", cipher, data, 250_000, 50_000)
		requireWhole := func(key string) {
			t.Helper()
			suite.RequireObject(t, b.Bucket, key, data, 249_990, map[string]string{"author": "Zoë ☺"})
		}
		requireWhole("k")
		require.NoError(t, b.Copy(ctx, "copy", "k", nil))
		requireWhole("copy")

		old := primary(t, ring)
		_, err := ring.Rotate(ctx)
		require.NoError(t, err)
		rewrapped, err := jobs.Rewrap(ctx, b, nil)
		require.NoError(t, err)
		require.EqualValues(t, 2, rewrapped.Done)
		_, err = jobs.Retire(ctx, ring, old, &jobs.RetireOptions{Destroy: true, Quarantine: jobs.NoQuarantine}, b)
		require.NoError(t, err)
		requireWhole("k")
		requireWhole("copy")
		for f, err := range jobs.Check(ctx, b, nil) {
			require.NoError(t, err)
			require.Equal(t, jobs.VerdictGood, f.Verdict, "%s: %v", f.Key, f.Err)
		}
	})
}
