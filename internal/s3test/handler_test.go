package s3test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
	gcblob "gocloud.dev/blob"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/blob/signedurl"
)

// TestSignedURLs uses signed URLs over S3. A streamed object is stored in parts, and served as
// a whole, in ranges and under conditions. It is long because it is the life of one object,
// from its upload to its deletion.
func TestSignedURLs(t *testing.T) {
	ctx := context.Background()
	data := content(17<<20 + 3)
	eachServer(t, func(t *testing.T, s *server) {
		w := new(wire)
		inner := s.open(t, s.newBucket(t), w)
		var b *blob.Bucket
		shared := share(t, func(signer *signedurl.Signer) *gcblob.Bucket {
			b = encrypted(t, inner, nil, &blob.Options{Signer: signer})
			return b.Bucket
		})
		defer shared.Close()
		// do sends a request with a signed URL and returns the answer and its body.
		do := func(method string, body io.Reader, header http.Header) (*http.Response, []byte) {
			signed := method
			if method == http.MethodHead {
				signed = http.MethodGet
			}
			url, err := b.SignedURL(ctx, "photo", &gcblob.SignedURLOptions{Method: signed})
			require.NoError(t, err)
			r, err := http.NewRequest(method, url, body)
			require.NoError(t, err)
			r.Header = header
			w.take()
			response, err := shared.Client().Do(r)
			require.NoError(t, err)
			defer response.Body.Close()
			got, err := io.ReadAll(response.Body)
			require.NoError(t, err)
			return response, got
		}

		// Without a Content-Length.
		response, _ := do(http.MethodPut, io.MultiReader(bytes.NewReader(data)), http.Header{"Content-Type": {"image/x"}})
		require.Equal(t, http.StatusOK, response.StatusCode)
		require.Contains(t, ops(w.take()), "CompleteMultipartUpload")

		response, got := do(http.MethodGet, nil, http.Header{})
		require.Equal(t, http.StatusOK, response.StatusCode)
		require.Equal(t, "image/x", response.Header.Get("Content-Type"))
		require.Equal(t, int64(len(data)), response.ContentLength)
		require.True(t, bytes.Equal(data, got))
		etag := response.Header.Get("Etag")
		require.NotEmpty(t, etag)

		response, got = do(http.MethodHead, nil, http.Header{})
		require.Equal(t, http.StatusOK, response.StatusCode)
		require.Equal(t, int64(len(data)), response.ContentLength)
		require.Empty(t, got)
		require.Equal(t, []string{"HeadObject"}, ops(w.take()))

		response, got = do(http.MethodGet, nil, http.Header{"Range": {"bytes=9000000-9000099"}})
		require.Equal(t, http.StatusPartialContent, response.StatusCode)
		require.Equal(t, "bytes 9000000-9000099/17825795", response.Header.Get("Content-Range"))
		require.Equal(t, data[9000000:9000100], got)
		for _, r := range w.take() {
			require.Less(t, r.received.Load(), int64(64<<10), "%s %s", r.op, r.rng)
		}

		response, got = do(http.MethodGet, nil, http.Header{"If-None-Match": {etag}})
		require.Equal(t, http.StatusNotModified, response.StatusCode)
		require.Empty(t, got)
		for _, r := range w.take() {
			require.Less(t, r.received.Load(), int64(64<<10), "%s %s", r.op, r.rng)
		}

		response, _ = do(http.MethodDelete, nil, http.Header{})
		require.Less(t, response.StatusCode, 300)
		response, _ = do(http.MethodGet, nil, http.Header{})
		require.Equal(t, http.StatusNotFound, response.StatusCode)
	})
}
