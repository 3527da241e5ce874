package s3gateway

import (
	"context"
	"strconv"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/versity/versitygw/backend"
	"github.com/versity/versitygw/s3err"
	"github.com/versity/versitygw/s3response"

	"github.com/blobseal/blobseal/sse/s3wire"
)

// GetObjectAttributes implements [backend.Backend].
func (g *Gateway) GetObjectAttributes(ctx context.Context, in *s3.GetObjectAttributesInput) (out s3response.GetObjectAttributesResponse, err error) {
	if err := g.guard(in.Bucket); err != nil {
		return out, err
	}
	r := g.request(ctx)
	q, err := s3wire.ParseRead(r.values, r.tls)
	if err == nil {
		err = retryChanged(func() error {
			out, err = g.attributes(r, in, q)
			return err
		})
	}
	return out, g.fail("GetObjectAttributes", in.Bucket, in.Key, err)
}

func (g *Gateway) attributes(r *request, in *s3.GetObjectAttributesInput, q *s3wire.Read) (s3response.GetObjectAttributesResponse, error) {
	inner := *in                                                 // which the engine's client of another S3 server changes
	inner.ObjectAttributes = types.ObjectAttributes("").Values() // demanded there; the engine gives none, and takes those that it needs
	out, err := g.Backend.GetObjectAttributes(r.ctx, &inner)
	if err != nil || isDirectory(in.Key, deref(out.ObjectSize)) {
		return out, err
	}
	o, err := g.openSame(r, in.Bucket, in.Key, in.VersionId, out.ETag, g.keys.ForRead(q))
	if g.isPlain(err, q) {
		return out, nil
	}
	if err != nil {
		return s3response.GetObjectAttributesResponse{}, err
	}
	out.ObjectSize = &o.plaintext
	if g.files == nil {
		out.Checksum = nil
	}
	if out.ObjectParts, err = o.parts(in); err != nil {
		return s3response.GetObjectAttributesResponse{}, err
	}
	out.ETag = backend.TrimEtag(g.clientETag(out.ETag))
	return out, nil
}

// maxListedParts bounds a page of parts.
const maxListedParts = 1000

// parts returns a page of the object's parts, or nil if it was stored at once. Sizes are
// those of the plaintext. Numbers are those of GET with partNumber. In general purpose
// buckets, S3 lists parts only if they have checksums of their own; in directory buckets, it
// always does. A gateway keeps no checksums of parts and always lists them.
func (o *object) parts(in *s3.GetObjectAttributesInput) (*s3response.ObjectParts, error) {
	if o.composite == nil {
		return nil, nil
	}
	page := &s3response.ObjectParts{MaxParts: maxListedParts}
	if in.MaxParts != nil {
		page.MaxParts = min(maxListedParts, int(*in.MaxParts))
	}
	if marker := deref(in.PartNumberMarker); marker != "" {
		n, err := strconv.ParseUint(marker, 10, 31)
		if err != nil {
			return nil, s3err.GetInvalidArgMaxLimiter("part-number-marker", marker)
		}
		page.PartNumberMarker = int(n)
	}
	number := 0
	for _, size := range o.composite.Parts() {
		if number++; number <= page.PartNumberMarker {
			continue
		}
		if len(page.Parts) == page.MaxParts {
			page.IsTruncated = true
			break
		}
		page.Parts = append(page.Parts, types.ObjectPart{PartNumber: ptr(int32(number)), Size: &size})
		page.NextPartNumberMarker = number
	}
	return page, nil
}
