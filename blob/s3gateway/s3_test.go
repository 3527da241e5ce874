package s3gateway_test

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/sse"
)

// TestOverS3 has two gateways over another S3 server: objects of every mode, ranges,
// copies, conditions, lists and uploads, which one begins and the other completes.
func TestOverS3(t *testing.T) {
	store := startBare(t)
	s := newSetup(t)
	s.Inner = store.url
	c, other := s.start(t).client(t), s.start(t).client(t)
	newBucket(t, c)
	for _, m := range modes()[1:] {
		t.Run(m.name, func(t *testing.T) {
			for _, size := range []int{0, 1, sse.ChunkSize, 100_000} {
				key := fmt.Sprintf("%s/%d", m.name, size)
				in := &s3.PutObjectInput{Bucket: ptr(bucket), Key: &key, Body: bytes.NewReader(text(size)), Metadata: map[string]string{"camera": "one"}}
				m.put(in)
				put, err := c.PutObject(t.Context(), in)
				require.NoError(t, err)
				get := &s3.GetObjectInput{Bucket: ptr(bucket), Key: &key, IfMatch: put.ETag}
				m.get(get)
				out, err := other.GetObject(t.Context(), get)
				require.NoError(t, err)
				require.Equal(t, text(size), readAll(t, out.Body))
				require.Equal(t, *put.ETag, *out.ETag)
				require.Equal(t, in.Metadata, out.Metadata)
				require.Contains(t, *out.ETag, "-", "an ETag that is no MD5 must not look like one")
				if size > 10 {
					get.Range = ptr("bytes=-7")
					out, err = other.GetObject(t.Context(), get)
					require.NoError(t, err)
					require.Equal(t, text(size)[size-7:], readAll(t, out.Body))
				}
			}
			u := begin(t, c, m, m.name+"/parts")
			one, two := text(partSize), text(99)
			u.part(t, c, 2, two)
			u.part(t, other, 1, one)
			list, err := other.ListParts(t.Context(), &s3.ListPartsInput{Bucket: ptr(bucket), Key: &u.key, UploadId: u.id})
			require.NoError(t, err)
			require.Equal(t, int64(99), *list.Parts[1].Size)
			done, err := u.complete(t, other, u.done[1], u.done[0])
			require.NoError(t, err)
			get := &s3.GetObjectInput{Bucket: ptr(bucket), Key: &u.key}
			m.get(get)
			out, err := c.GetObject(t.Context(), get)
			require.NoError(t, err)
			require.True(t, bytes.Equal(append(bytes.Clone(one), two...), readAll(t, out.Body)))
			require.Equal(t, *done.ETag, *out.ETag)
			get.Range = ptr(fmt.Sprintf("bytes=%d-", partSize-1))
			out, err = c.GetObject(t.Context(), get)
			require.NoError(t, err)
			require.Equal(t, append(one[partSize-1:], two...), readAll(t, out.Body))

			objects, err := c.ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: ptr(bucket), Prefix: ptr(m.name + "/")})
			require.NoError(t, err)
			for _, o := range objects.Contents {
				if *o.Key == u.key {
					require.Equal(t, int64(partSize+99), *o.Size)
				} else {
					require.Equal(t, fmt.Sprintf("%s/%d", m.name, *o.Size), *o.Key)
				}
			}
		})
	}
	_, err := c.CopyObject(t.Context(), &s3.CopyObjectInput{Bucket: ptr(bucket), Key: ptr("copy"), CopySource: ptr(bucket + "/SSE-KMS/100000")})
	require.NoError(t, err)
	out, err := c.GetObject(t.Context(), &s3.GetObjectInput{Bucket: ptr(bucket), Key: ptr("copy")})
	require.NoError(t, err)
	require.Equal(t, text(100_000), readAll(t, out.Body))
	_, err = c.GetObject(t.Context(), &s3.GetObjectInput{Bucket: ptr(bucket), Key: ptr("none")})
	require.Equal(t, "NoSuchKey", code(err))
	buckets, err := c.ListBuckets(t.Context(), &s3.ListBucketsInput{})
	require.NoError(t, err)
	require.Len(t, buckets.Buckets, 1)
	stored, err := store.client(t).GetObject(t.Context(), &s3.GetObjectInput{Bucket: ptr(bucket), Key: ptr("copy")})
	require.NoError(t, err)
	require.False(t, bytes.Contains(readAll(t, stored.Body), text(100_000)[:32]))
}
