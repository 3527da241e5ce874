package signedurl_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	gcblob "gocloud.dev/blob"

	"github.com/blobseal/blobseal/blob/internal/blobtest"
	"github.com/blobseal/blobseal/blob/jobs"
	"github.com/blobseal/blobseal/sse"
)

// TestETagNamesTheContent: it survives a rewrap, which changes the store's, and
// changes with the content. A PUT returns the one that a GET then has.
func TestETagNamesTheContent(t *testing.T) {
	for store, inner := range map[string]*gcblob.Bucket{"mem": blobtest.NewMem(t), "file": blobtest.NewFile(t)} {
		t.Run(store, func(t *testing.T) {
			ring := blobtest.NewRing(t)
			bucket := blobtest.NewBucketWith(t, inner, sse.NewManaged(ring), nil)
			b := newBed(t, "encrypted", bucket.Bucket, nil)
			get, put := b.url(t, "k", "GET", ""), b.url(t, "k", "PUT", "")
			etag := func() string { return b.do(t, "HEAD", get, nil).header["Etag"] }

			first := b.do(t, "PUT", put, strings.NewReader("content")).header["Etag"]
			require.Regexp(t, `^"[0-9a-f]{64}"$`, first)
			require.Equal(t, first, etag())
			require.Equal(t, first, b.do(t, "GET", get, nil).header["Etag"])

			before, err := inner.Attributes(t.Context(), "k")
			require.NoError(t, err)
			_, err = ring.Rotate(t.Context())
			require.NoError(t, err)
			_, err = jobs.Rewrap(t.Context(), bucket, nil)
			require.NoError(t, err)
			after, err := inner.Attributes(t.Context(), "k")
			require.NoError(t, err)
			require.NotEqual(t, before.ETag, after.ETag)
			require.Equal(t, first, etag())
			require.Equal(t, 304, b.do(t, "GET", get, nil, "If-None-Match", first).status)
			require.Equal(t, "tent", b.do(t, "GET", get, nil, "If-Range", first, "Range", "bytes=3-").body)

			second := b.do(t, "PUT", put, strings.NewReader("content")).header["Etag"]
			require.NotEqual(t, first, second)
			require.Equal(t, second, etag())
			require.Equal(t, "content", b.do(t, "GET", get, nil, "If-Range", first, "Range", "bytes=3-").body)
		})
	}
}

// TestETagWithoutHint: an object that was stored by other means has the ETag of its
// content too, and a wrong hint does not put one object's name on another's content.
func TestETagWithoutHint(t *testing.T) {
	inner := blobtest.NewMem(t)
	b := newBed(t, "encrypted", blobtest.NewBucket(t, inner, nil).Bucket, nil)
	get := b.url(t, "k", "GET", "")
	want := b.do(t, "PUT", b.url(t, "k", "PUT", ""), strings.NewReader("content")).header["Etag"]
	raw, err := inner.ReadAll(t.Context(), "k")
	require.NoError(t, err)
	attrs, err := inner.Attributes(t.Context(), "k")
	require.NoError(t, err)

	require.NoError(t, inner.WriteAll(t.Context(), "k", raw, nil))
	require.Equal(t, want, b.do(t, "GET", get, nil).header["Etag"])

	attrs.Metadata["blobseal-body-id"] = strings.Repeat("0", 64)
	require.NoError(t, inner.WriteAll(t.Context(), "k", raw, &gcblob.WriterOptions{Metadata: attrs.Metadata}))
	for _, ranges := range []string{"", "bytes=1-2"} {
		got := b.do(t, "GET", get, nil, "Range", ranges)
		require.Equal(t, 503, got.status)
		require.NotContains(t, got.body, "content")
	}
}
