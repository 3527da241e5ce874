package awss3

import (
	"context"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/blobseal/blobseal/blob/stored"
	"github.com/blobseal/blobseal/sse"
)

var errRangeAndPart = fmt.Errorf("%w: the input has both Range and PartNumber (choose one)", sse.ErrInvalid)

// HeadObject returns an object's metadata and the size of its plaintext. It uses no key, so
// the size is only as authentic as the store. With PartNumber, only ContentLength and
// PartsCount describe the part, and they are those of the stored part.
func (c *Client) HeadObject(ctx context.Context, in *s3.HeadObjectInput, optFns ...func(*s3.Options)) (*s3.HeadObjectOutput, error) {
	head := *in
	c, err := c.withCustomerKey(&head.SSECustomerAlgorithm, &head.SSECustomerKey, &head.SSECustomerKeyMD5)
	if err != nil {
		return nil, err
	}
	if _, err := c.identity(head.Bucket, head.Key); err != nil {
		return nil, err
	}
	var s *span
	if head.Range != nil {
		parsed, err := parseSpan(*head.Range)
		if err != nil {
			return nil, err
		}
		s, head.Range = &parsed, nil
		if head.PartNumber != nil {
			return nil, errRangeAndPart
		}
	}
	return retryChanged(func() (*s3.HeadObjectOutput, error) { return c.head(ctx, head, s, optFns) })
}

func (c *Client) head(ctx context.Context, in s3.HeadObjectInput, s *span, optFns []func(*s3.Options)) (*s3.HeadObjectOutput, error) {
	out, err := c.api.HeadObject(ctx, &in, optFns...)
	if err != nil {
		return nil, err
	}
	var hint stored.Hint
	var hinted bool
	all := out.Metadata
	out.Metadata, out.ContentEncoding, hint, hinted = openMetadata(all, out.ContentEncoding)
	clearChecksums(out)
	if in.PartNumber != nil {
		return out, nil
	}
	size, err := stored.PlaintextSize(aws.ToInt64(out.ContentLength), hint.EnvelopeSize)
	if err != nil || hint.EnvelopeSize == 0 {
		if size, err = c.look(ctx, in, out, hinted, optFns); err != nil {
			return nil, err
		}
	}
	out.ContentLength = &size
	if s != nil {
		off, n := s.clip(size)
		if n == 0 {
			return nil, invalidRange(s.spec, size)
		}
		out.ContentLength, out.ContentRange = &n, contentRange(off, n, size)
	}
	return out, nil
}

// look reads the size of an object from its envelope, or its trailer, without a key.
func (c *Client) look(ctx context.Context, in s3.HeadObjectInput, out *s3.HeadObjectOutput, hinted bool, optFns []func(*s3.Options)) (int64, error) {
	get := s3.GetObjectInput{
		Bucket: in.Bucket, Key: in.Key, VersionId: in.VersionId, IfMatch: out.ETag,
		ExpectedBucketOwner: in.ExpectedBucketOwner, RequestPayer: in.RequestPayer,
	}
	o := &object{c: c, in: get, optFns: optFns}
	if err := o.fetchHead(ctx, int64(c.opts.EnvelopeSize)); err != nil {
		return 0, changedIfGone(err)
	}
	return o.sizeByHead(ctx, hinted)
}
