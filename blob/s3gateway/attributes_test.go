package s3gateway_test

import (
	"bytes"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/stretchr/testify/require"
)

// TestObjectParts lists the parts of an object that was uploaded in parts, page by page.
func TestObjectParts(t *testing.T) {
	_, _, over := overS3(t)
	for name, g := range map[string]*server{"files": newSetup(t).start(t), "S3": over} {
		t.Run(name, func(t *testing.T) { testObjectParts(t, g) })
	}
}

func testObjectParts(t *testing.T, g *server) {
	c := g.client(t)
	newBucket(t, c)
	for _, m := range modes()[1:] {
		t.Run(m.name, func(t *testing.T) {
			u := begin(t, c, m, m.name)
			sizes := []int64{partSize, partSize + 1, 7}
			for i, size := range sizes {
				u.part(t, c, int32(2*i+1), text(int(size)))
			}
			_, err := u.complete(t, c, u.done...)
			require.NoError(t, err)
			var get s3.GetObjectInput
			m.get(&get)
			attributes := func(limit *int32, marker *string) *types.GetObjectAttributesParts {
				out, err := c.GetObjectAttributes(t.Context(), &s3.GetObjectAttributesInput{
					Bucket: ptr(bucket), Key: &m.name, MaxParts: limit, PartNumberMarker: marker,
					ObjectAttributes:     []types.ObjectAttributes{types.ObjectAttributesObjectParts, types.ObjectAttributesObjectSize},
					SSECustomerAlgorithm: get.SSECustomerAlgorithm, SSECustomerKey: get.SSECustomerKey, SSECustomerKeyMD5: get.SSECustomerKeyMD5,
				})
				require.NoError(t, err)
				require.Equal(t, int64(2*partSize+8), *out.ObjectSize)
				return out.ObjectParts
			}
			all := attributes(nil, nil)
			require.False(t, *all.IsTruncated)
			require.Equal(t, int32(1000), *all.MaxParts)
			require.Len(t, all.Parts, 3)
			for i, part := range all.Parts {
				require.Equal(t, int32(i+1), *part.PartNumber)
				require.Equal(t, sizes[i], *part.Size)
				in := &s3.HeadObjectInput{Bucket: ptr(bucket), Key: &m.name, PartNumber: part.PartNumber}
				m.head(in)
				head, err := c.HeadObject(t.Context(), in)
				require.NoError(t, err)
				require.Equal(t, *part.Size, *head.ContentLength)
			}
			page := attributes(ptr(int32(2)), nil)
			require.True(t, *page.IsTruncated)
			require.Equal(t, "2", *page.NextPartNumberMarker)
			require.Equal(t, all.Parts[:2], page.Parts)
			page = attributes(ptr(int32(2)), page.NextPartNumberMarker)
			require.False(t, *page.IsTruncated)
			require.Equal(t, all.Parts[2:], page.Parts)
			require.Empty(t, attributes(nil, ptr("3")).Parts)
		})
	}
	_, err := c.PutObject(t.Context(), &s3.PutObjectInput{Bucket: ptr(bucket), Key: ptr("once"), Body: bytes.NewReader(text(10))})
	require.NoError(t, err)
	out, err := c.GetObjectAttributes(t.Context(), &s3.GetObjectAttributesInput{
		Bucket: ptr(bucket), Key: ptr("once"), ObjectAttributes: []types.ObjectAttributes{types.ObjectAttributesObjectParts},
	})
	require.NoError(t, err)
	require.Nil(t, out.ObjectParts)
}
