package awss3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"golang.org/x/sync/errgroup"

	"github.com/blobseal/blobseal/blob/stored"
)

const (
	minPart   = 5 << 20  // of S3, for each part but the last
	copyRange = 32 << 20 // of one UploadPartCopy, unless there are too many
	maxRanges = 9_900    // S3 takes 10,000 parts
	maxCopies = 8        // at a time, for one object

	cleanupTime = 15 * time.Second // bounds the abort of a failed upload
)

// assembly is an upload of an object that begins like another object. S3 copies the
// beginning. Nothing is visible before the upload is published.
type assembly struct {
	api    API
	optFns []func(*s3.Options)
	create *s3.CreateMultipartUploadInput
	id     *string
	parts  []types.CompletedPart
	size   int64
}

// beginning is the first n bytes of an object's version, which an assembly copies.
type beginning struct {
	bucket, key string
	versionID   *string // or nil for the newest
	etag        *string
	owner       *string // whose bucket it must be, or nil
	n           int64   // at least minPart
}

// source returns the value of the header that names the version.
func (b *beginning) source() string {
	name := (&url.URL{Path: b.bucket + "/" + b.key}).EscapedPath()
	name = strings.ReplaceAll(name, "+", "%2B") // some servers take it for a space
	if id := aws.ToString(b.versionID); id != "" {
		name += "?versionId=" + url.QueryEscape(id)
	}
	return name
}

// assemble uploads an object of a beginning and a tail. It returns
// [errors.ErrUnsupported] if the server cannot copy parts, and [stored.ErrChanged] if
// the version is gone. After an error it leaves no upload behind.
func assemble(ctx context.Context, api API, create *s3.CreateMultipartUploadInput, from *beginning, tail []byte, optFns []func(*s3.Options)) (*assembly, error) {
	create.ChecksumAlgorithm, create.ChecksumType = "", "" // S3 would demand a checksum of every part, also of the tail
	created, err := api.CreateMultipartUpload(ctx, create, optFns...)
	if err != nil {
		return nil, err
	}
	a := &assembly{api: api, optFns: optFns, create: create, id: created.UploadId, size: from.n + int64(len(tail))}
	if err := a.fill(ctx, from, tail); err != nil {
		return nil, errors.Join(err, a.abort(ctx))
	}
	return a, nil
}

func (a *assembly) fill(ctx context.Context, from *beginning, tail []byte) error {
	size := max(copyRange, from.n/maxRanges+1)
	n := (from.n + size - 1) / size
	a.parts = make([]types.CompletedPart, n+1)
	copies, copying := errgroup.WithContext(ctx)
	copies.SetLimit(maxCopies)
	for i := range n {
		copies.Go(func() error { return a.copyPart(copying, int(i), from, from.n*i/n, from.n*(i+1)/n) })
	}
	if err := copies.Wait(); err != nil {
		return err
	}
	number := int32(n + 1)
	out, err := a.api.UploadPart(ctx, &s3.UploadPartInput{
		Bucket: a.create.Bucket, Key: a.create.Key, UploadId: a.id, PartNumber: &number, Body: bytes.NewReader(tail),
		ExpectedBucketOwner: a.create.ExpectedBucketOwner, RequestPayer: a.create.RequestPayer,
	}, a.optFns...)
	if err != nil {
		return err
	}
	a.parts[n] = types.CompletedPart{PartNumber: &number, ETag: out.ETag}
	return a.checkSize(ctx)
}

// copyPart copies the bytes of the source between start and end as a part.
func (a *assembly) copyPart(ctx context.Context, i int, from *beginning, start, end int64) error {
	number := int32(i + 1)
	out, err := a.api.UploadPartCopy(ctx, &s3.UploadPartCopyInput{
		Bucket: a.create.Bucket, Key: a.create.Key, UploadId: a.id, PartNumber: &number,
		CopySource: aws.String(from.source()), CopySourceIfMatch: from.etag,
		CopySourceRange:     aws.String(fmt.Sprintf("bytes=%d-%d", start, end-1)),
		ExpectedBucketOwner: a.create.ExpectedBucketOwner, ExpectedSourceBucketOwner: from.owner, RequestPayer: a.create.RequestPayer,
	}, a.optFns...)
	switch {
	case hasCode(err, "NotImplemented", "MethodNotAllowed", "MissingContentLength"):
		return fmt.Errorf("%w: %w", errors.ErrUnsupported, opaque{err})
	case hasCode(err, "PreconditionFailed", "NoSuchKey", "NoSuchVersion"):
		return fmt.Errorf("%w: %w", stored.ErrChanged, opaque{err})
	case hasCode(err, "InvalidRange", "InvalidArgument"): // perhaps because another object, which is shorter, is there
		_, at := a.api.HeadObject(ctx, &s3.HeadObjectInput{
			Bucket: &from.bucket, Key: &from.key, VersionId: from.versionID, IfMatch: from.etag,
			ExpectedBucketOwner: from.owner, RequestPayer: a.create.RequestPayer,
		}, a.optFns...)
		if at = changedIfGone(at); errors.Is(at, stored.ErrChanged) || errors.Is(at, context.Canceled) {
			return at
		}
		return err
	case err != nil:
		return err
	case out.CopyPartResult == nil: // the server took it for the upload of an empty part
		return errors.ErrUnsupported
	}
	a.parts[i] = types.CompletedPart{PartNumber: &number, ETag: out.CopyPartResult.ETag}
	return nil
}

// checkSize returns [errors.ErrUnsupported] if the parts do not have the sizes that
// they should: some servers ignore the range of a copy.
func (a *assembly) checkSize(ctx context.Context) error {
	var total int64
	in := &s3.ListPartsInput{
		Bucket: a.create.Bucket, Key: a.create.Key, UploadId: a.id,
		ExpectedBucketOwner: a.create.ExpectedBucketOwner, RequestPayer: a.create.RequestPayer,
	}
	for {
		list, err := a.api.ListParts(ctx, in, a.optFns...)
		if err != nil {
			return err
		}
		for _, part := range list.Parts {
			total += aws.ToInt64(part.Size)
		}
		if !aws.ToBool(list.IsTruncated) {
			break
		}
		in.PartNumberMarker = list.NextPartNumberMarker
	}
	if total != a.size {
		return fmt.Errorf("%w: the server copied %d bytes instead of %d", errors.ErrUnsupported, total, a.size)
	}
	return nil
}

// publish makes the object visible if the conditions of S3, which may be nil, hold. If
// it fails, it leaves no upload behind.
func (a *assembly) publish(ctx context.Context, ifMatch, ifNoneMatch *string) (*s3.CompleteMultipartUploadOutput, error) {
	out, err := a.api.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{
		Bucket: a.create.Bucket, Key: a.create.Key, UploadId: a.id, IfMatch: ifMatch, IfNoneMatch: ifNoneMatch,
		MultipartUpload:     &types.CompletedMultipartUpload{Parts: a.parts},
		ExpectedBucketOwner: a.create.ExpectedBucketOwner, RequestPayer: a.create.RequestPayer,
	}, a.optFns...)
	if err != nil {
		return nil, errors.Join(err, a.abort(ctx))
	}
	return out, nil
}

// abort deletes the upload, also if ctx has ended.
func (a *assembly) abort(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTime)
	defer cancel()
	_, err := a.api.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{
		Bucket: a.create.Bucket, Key: a.create.Key, UploadId: a.id,
		ExpectedBucketOwner: a.create.ExpectedBucketOwner, RequestPayer: a.create.RequestPayer,
	}, a.optFns...)
	if err == nil || hasCode(err, "NoSuchUpload") {
		return nil
	}
	return fmt.Errorf("awss3: upload %s of %q stays (abort it): %w", aws.ToString(a.id), aws.ToString(a.create.Key), opaque{err})
}
