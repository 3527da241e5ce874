package s3gateway_test

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/stretchr/testify/require"
)

// TestPlainObjects reads an object from before the gateway in every way, and copies it. The
// copies are encrypted. A gateway that does not allow plain objects refuses it.
func TestPlainObjects(t *testing.T) {
	t.Run("files", func(t *testing.T) {
		s := newSetup(t)
		bare := s
		bare.Bare, bare.Plain = true, true
		testPlainObjects(t, s, bare.start(t))
	})
	t.Run("S3", func(t *testing.T) {
		s, bare := newSetup(t), startBare(t)
		s.Inner = bare.url
		testPlainObjects(t, s, bare)
	})
}

// testPlainObjects tests gateways over a store with a plain object, which a bare server stores.
func testPlainObjects(t *testing.T, s setup, bare *server) {
	want := text(70_000)
	before := bare.client(t)
	_, err := before.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: ptr(bucket)})
	require.NoError(t, err)
	putIn(t, before, modes()[0], "plain", want)

	s.AllowPlain = true
	c := s.start(t).client(t)
	requireObject(t, c, modes()[0], "plain", want)
	out, err := c.GetObject(t.Context(), &s3.GetObjectInput{Bucket: ptr(bucket), Key: ptr("plain"), Range: ptr("bytes=60000-60009")})
	require.NoError(t, err)
	require.Equal(t, want[60_000:60_010], readAll(t, out.Body))
	require.EqualValues(t, len(want), *head(t, c, "plain").ContentLength)
	attributes, err := c.GetObjectAttributes(t.Context(), &s3.GetObjectAttributesInput{
		Bucket: ptr(bucket), Key: ptr("plain"), ObjectAttributes: []types.ObjectAttributes{types.ObjectAttributesObjectSize},
	})
	require.NoError(t, err)
	require.EqualValues(t, len(want), *attributes.ObjectSize)
	list, err := c.ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: ptr(bucket)})
	require.NoError(t, err)
	require.EqualValues(t, len(want), *list.Contents[0].Size)

	_, err = c.CopyObject(t.Context(), copyInput(modes()[0], "plain", modes()[2], "copy"))
	require.NoError(t, err)
	requireObject(t, c, modes()[2], "copy", want)
	u := begin(t, c, modes()[1], "parts")
	part, err := c.UploadPartCopy(t.Context(), &s3.UploadPartCopyInput{
		Bucket: ptr(bucket), Key: &u.key, UploadId: u.id, PartNumber: ptr(int32(1)), CopySource: ptr(bucket + "/plain"),
	})
	require.NoError(t, err)
	_, err = u.complete(t, c, types.CompletedPart{PartNumber: ptr(int32(1)), ETag: part.CopyPartResult.ETag})
	require.NoError(t, err)
	requireObject(t, c, modes()[1], "parts", want)

	s.AllowPlain = false
	c = s.start(t).client(t)
	_, err = c.GetObject(t.Context(), &s3.GetObjectInput{Bucket: ptr(bucket), Key: ptr("plain")})
	require.Equal(t, "AccessDenied", code(err))
	_, err = c.CopyObject(t.Context(), copyInput(modes()[0], "plain", modes()[2], "copy"))
	require.Equal(t, "AccessDenied", code(err))
}

// TestPlainObjectEncryptedMeanwhile encrypts a plain object between the two requests that a
// read makes to the store: the second must not serve what is stored then.
func TestPlainObjectEncryptedMeanwhile(t *testing.T) {
	store := startBare(t)
	between := startProxy(t, store.url)
	s := newSetup(t)
	s.Inner, s.AllowPlain = between.url, true
	g, c := s.startWithBucket(t)
	x := &changing{store.client(t), between, g}
	want := text(70_000)
	putIn(t, c, modes()[1], "src", want)
	x.save(t, "encrypted")
	putIn(t, x.inner, modes()[0], "plain", want)
	for _, method := range []string{http.MethodGet, http.MethodHead} {
		t.Run(method, func(t *testing.T) {
			x.overwrite(t, "plain")
			var requests atomic.Int64
			between.intercept(func(_ string, r *http.Request) {
				if r.Method == method && strings.HasSuffix(r.URL.Path, "/src") && requests.Add(1) == 2 {
					x.overwrite(t, "encrypted")
				}
			})
			t.Cleanup(func() { between.intercept(nil) })
			if method == http.MethodHead {
				require.EqualValues(t, len(want), *head(t, c, "src").ContentLength)
			} else {
				out, err := c.GetObject(t.Context(), &s3.GetObjectInput{Bucket: ptr(bucket), Key: ptr("src"), Range: ptr("bytes=60000-60009")})
				require.NoError(t, err)
				require.Equal(t, want[60_000:60_010], readAll(t, out.Body))
			}
			require.Greater(t, requests.Load(), int64(2), "the object was not replaced")
		})
	}
}
