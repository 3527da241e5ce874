package s3test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"
	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/blob/awss3"
	"github.com/blobseal/blobseal/keyring/keyringtest"
	"github.com/blobseal/blobseal/sse"
)

// sdk is an encrypting client on a bucket of its own.
type sdk struct {
	*awss3.Client
	bare   *s3.Client
	bucket string
}

// newSDK returns a client whose objects are bound to bucketName. Its requests go through
// w, if that is not nil. A nil cipher is one of SSE-S3.
func newSDK(t testing.TB, s *server, w *wire, cipher sse.Cipher, opts *awss3.Options) sdk {
	if cipher == nil {
		cipher = sse.NewManaged(keyringtest.NewRing(t, nil))
	}
	if opts == nil {
		opts = new(awss3.Options)
	}
	bucket := s.newBucket(t)
	opts.Names = map[string]string{bucket: bucketName}
	opts.AllowCustomerKeys = true
	bare := s.client(w)
	client, err := awss3.New(bare, cipher, opts)
	require.NoError(t, err)
	return sdk{client, bare, bucket}
}

func (c sdk) put(ctx context.Context, key string, data []byte) error {
	_, err := c.PutObject(ctx, &s3.PutObjectInput{Bucket: &c.bucket, Key: &key, Body: bytes.NewReader(data)})
	return err
}

// get reads an object, or a range, and checks the lengths that the response states.
func (c sdk) get(ctx context.Context, key, rng string) ([]byte, error) {
	in := &s3.GetObjectInput{Bucket: &c.bucket, Key: &key}
	if rng != "" {
		in.Range = &rng
	}
	out, err := c.GetObject(ctx, in)
	if err != nil {
		return nil, err
	}
	defer out.Body.Close()
	data, err := io.ReadAll(out.Body)
	if err == nil && int64(len(data)) != aws.ToInt64(out.ContentLength) {
		err = fmt.Errorf("%d bytes came, and ContentLength is %d", len(data), aws.ToInt64(out.ContentLength))
	}
	return data, err
}

// ReadAll reads an object.
func (c sdk) ReadAll(ctx context.Context, key string) ([]byte, error) { return c.get(ctx, key, "") }

// TestSDKReadsBlobReadsSDK: in every mode, what one writes, both read.
func TestSDKReadsBlobReadsSDK(t *testing.T) {
	ctx := context.Background()
	eachServer(t, func(t *testing.T, s *server) {
		for _, mode := range modes {
			t.Run(mode.name, func(t *testing.T) {
				cipher := mode.cipher(t)
				c := newSDK(t, s, nil, cipher, nil)
				b := encrypted(t, s.open(t, c.bucket, nil), cipher, &blob.Options{Policy: mode.policy})
				for _, size := range []int{0, 1, 1024, chunk - 1, chunk, chunk + 1, 3*chunk + 7} {
					data := content(size)
					ours, theirs := fmt.Sprintf("sdk/%d", size), fmt.Sprintf("blob/%d", size)
					require.NoError(t, c.put(ctx, ours, data))
					require.NoError(t, b.WriteAll(ctx, theirs, data, nil))
					for _, key := range []string{ours, theirs} {
						requireObject(t, c, key, data)
						requireObject(t, b, key, data)
						head, err := c.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &c.bucket, Key: &key})
						require.NoError(t, err, key)
						require.Equal(t, int64(size), *head.ContentLength, key)
						require.Empty(t, head.Metadata, key)
						attrs, err := b.Attributes(ctx, key)
						require.NoError(t, err, key)
						require.Equal(t, int64(size), attrs.Size, key)
					}
				}
				list, err := c.ListObjectsV2(ctx, &s3.ListObjectsV2Input{Bucket: &c.bucket})
				require.NoError(t, err)
				require.Len(t, list.Contents, 14)
				for _, o := range list.Contents {
					require.True(t, strings.HasSuffix(*o.Key, fmt.Sprintf("/%d", *o.Size)), "%s has %d", *o.Key, *o.Size)
				}
			})
		}
	})
}

// TestSDKLongEnvelopes: a client reads objects whose envelopes are longer than its own.
func TestSDKLongEnvelopes(t *testing.T) {
	ctx := context.Background()
	cipher := modes[0].cipher(t)
	c := newSDK(t, startFake(t), nil, cipher, &awss3.Options{EnvelopeSize: 2 * envelope})
	data := content(2*chunk + 100)
	require.NoError(t, c.put(ctx, "o", data))
	usual, err := awss3.New(c.bare, cipher, &awss3.Options{Names: map[string]string{c.bucket: bucketName}})
	require.NoError(t, err)
	c.Client = usual
	requireObject(t, c, "o", data)
	checkSDKRange(t, c, "o", "bytes=-20", data, len(data)-20, len(data))

	// Without metadata, only the envelope tells the size.
	_, err = c.bare.CopyObject(ctx, &s3.CopyObjectInput{
		Bucket: &c.bucket, Key: aws.String("o"), CopySource: aws.String(c.bucket + "/o"), MetadataDirective: "REPLACE",
	})
	require.NoError(t, err)
	head, err := c.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &c.bucket, Key: aws.String("o")})
	require.NoError(t, err)
	require.EqualValues(t, len(data), *head.ContentLength)
}

// TestSDKRanges: a range is a range of the plaintext.
func TestSDKRanges(t *testing.T) {
	ctx := context.Background()
	eachServer(t, func(t *testing.T, s *server) {
		c := newSDK(t, s, nil, nil, nil)
		for _, size := range []int{0, 1, chunk, 2*chunk + 100, 20 * chunk} {
			data := content(size)
			key := fmt.Sprint(size)
			require.NoError(t, c.put(ctx, key, data))
			for _, r := range [][2]int{{0, 0}, {0, chunk - 1}, {5, 9}, {chunk - 1, chunk}, {chunk, 2*chunk - 1}, {0, -1}, {chunk + 3, -1}, {3, 1 << 40}, {9 * chunk, 18 * chunk}} {
				rng := fmt.Sprintf("bytes=%d-%d", r[0], r[1])
				to := min(r[1]+1, size)
				if r[1] < 0 {
					rng, to = fmt.Sprintf("bytes=%d-", r[0]), size
				}
				checkSDKRange(t, c, key, rng, data, r[0], to)
			}
			for _, n := range []int{1, 100, chunk, 1 << 30} {
				checkSDKRange(t, c, key, fmt.Sprintf("bytes=-%d", n), data, max(0, size-n), size)
			}
		}
		for _, rng := range []string{"bytes=", "bytes=-", "bytes=5", "bytes=9-5", "bytes=a-b", "bytes=0-1,5-6", "lines=0-1", "bytes=+1-2"} {
			_, err := c.get(ctx, "1", rng)
			require.ErrorIs(t, err, sse.ErrInvalid, rng)
		}
	})
}

func checkSDKRange(t *testing.T, c sdk, key, rng string, data []byte, from, to int) {
	out, err := c.GetObject(context.Background(), &s3.GetObjectInput{Bucket: &c.bucket, Key: &key, Range: &rng})
	if from >= to {
		var answer smithy.APIError
		require.ErrorAs(t, err, &answer, "%s of %s", rng, key)
		require.Equal(t, "InvalidRange", answer.ErrorCode())
		return
	}
	require.NoError(t, err, "%s of %s", rng, key)
	defer out.Body.Close()
	got, err := io.ReadAll(out.Body)
	require.NoError(t, err, "%s of %s", rng, key)
	require.True(t, bytes.Equal(data[from:to], got), "%s of %s", rng, key)
	require.Equal(t, fmt.Sprintf("bytes %d-%d/%d", from, to-1, len(data)), *out.ContentRange)
	require.Equal(t, int64(to-from), *out.ContentLength)
}
