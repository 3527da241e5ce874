package awss3

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/feature/s3/transfermanager"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/blobseal/blobseal/blob/stored"
	"github.com/blobseal/blobseal/sse"
)

// ReplaceEnd returns an Options.ReplaceEnd of package blob, for a Go CDK bucket on S3. A
// rewrap of an object that was uploaded in parts then sends only the object's end through
// the process, and S3 copies the rest. Objects below 5 MiB, and objects on a server that
// copies no parts, still pass through the process. api is the bucket's client:
//
//	var client *s3.Client
//	if inner.As(&client) {
//		opts.ReplaceEnd = awss3.ReplaceEnd(client)
//	}
//
// The new object keeps the metadata, tags, lock, storage class and store's own encryption of
// the old one. Its access list becomes the bucket's default.
func ReplaceEnd(api API) func(ctx context.Context, as func(any) bool, etag string, off int64, tail []byte) (publish, abort func() error, err error) {
	return func(ctx context.Context, as func(any) bool, etag string, off int64, tail []byte) (publish, abort func() error, err error) {
		if off < minPart {
			return nil, nil, errors.ErrUnsupported
		}
		var upload *transfermanager.UploadObjectInput
		if !as(&upload) || etag == "" {
			return nil, nil, fmt.Errorf("%w: ReplaceEnd: the bucket is not one of Go CDK on S3", sse.ErrInvalid)
		}
		create, err := createLike(ctx, api, upload, etag)
		if err != nil {
			return nil, nil, err
		}
		a, err := assemble(ctx, api, create, &beginning{bucket: *upload.Bucket, key: *upload.Key, etag: &etag, n: off}, tail, nil)
		if err != nil {
			return nil, nil, err
		}
		publish = func() error {
			_, err := a.publish(ctx, &etag, nil)
			if hasCode(err, "PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey") {
				err = fmt.Errorf("%w: %w", stored.ErrChanged, opaque{err})
			}
			return err
		}
		return publish, func() error { return a.abort(ctx) }, nil
	}
}

// createLike returns the request that begins an upload to replace the object with an ETag.
// Fields that upload sets take precedence over those of the object.
func createLike(ctx context.Context, api API, upload *transfermanager.UploadObjectInput, etag string) (*s3.CreateMultipartUploadInput, error) {
	create := new(s3.CreateMultipartUploadInput)
	if err := convert(create, upload, "IfMatch", "IfNoneMatch", "ContentLength", "Body"); err != nil {
		return nil, err
	}
	if aws.ToString(create.ContentType) == "" {
		create.ContentType = nil
	}
	head, err := api.HeadObject(ctx, &s3.HeadObjectInput{
		Bucket: upload.Bucket, Key: upload.Key, IfMatch: &etag, ExpectedBucketOwner: upload.ExpectedBucketOwner,
	})
	if err != nil {
		return nil, changedIfGone(err)
	}
	keepUnlessSet(create, head)
	if create.Tagging == nil && aws.ToInt32(head.TagCount) > 0 {
		create.Tagging, err = tagsOf(ctx, api, &s3.GetObjectTaggingInput{Bucket: upload.Bucket, Key: upload.Key, VersionId: head.VersionId})
	}
	return create, err
}

// keepUnlessSet copies from an object the fields that create leaves empty and that gocloud's
// attributes do not have.
func keepUnlessSet(create *s3.CreateMultipartUploadInput, head *s3.HeadObjectOutput) {
	if create.StorageClass == "" {
		create.StorageClass = head.StorageClass
	}
	if create.WebsiteRedirectLocation == nil {
		create.WebsiteRedirectLocation = head.WebsiteRedirectLocation
	}
	if at, err := http.ParseTime(aws.ToString(head.ExpiresString)); err == nil && create.Expires == nil {
		create.Expires = &at
	}
	if create.ServerSideEncryption == "" {
		create.ServerSideEncryption, create.SSEKMSKeyId = head.ServerSideEncryption, head.SSEKMSKeyId
		create.BucketKeyEnabled = head.BucketKeyEnabled
	}
	if create.ObjectLockLegalHoldStatus == "" {
		create.ObjectLockLegalHoldStatus = head.ObjectLockLegalHoldStatus
	}
	if until := head.ObjectLockRetainUntilDate; create.ObjectLockMode == "" && until != nil && until.After(time.Now()) {
		create.ObjectLockMode, create.ObjectLockRetainUntilDate = head.ObjectLockMode, until
	}
}

// tagsOf returns the tags of an object, as S3 encodes them in a header.
func tagsOf(ctx context.Context, api API, in *s3.GetObjectTaggingInput, optFns ...func(*s3.Options)) (*string, error) {
	out, err := api.GetObjectTagging(ctx, in, optFns...)
	if err != nil {
		return nil, err
	}
	return aws.String(encodeTags(out.TagSet)), nil
}

func encodeTags(tags []types.Tag) string {
	values := url.Values{}
	for _, tag := range tags {
		values.Add(aws.ToString(tag.Key), aws.ToString(tag.Value))
	}
	return values.Encode()
}
