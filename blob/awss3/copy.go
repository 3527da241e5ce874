package awss3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/blobseal/blobseal/blob/stored"
	"github.com/blobseal/blobseal/sse"
)

// CopyObject copies an object to a new name and seals it for that name, under the client's
// key. The body passes through this process as ciphertext. If the object was uploaded in
// parts and has at least 5 MiB, and if the server copies parts, S3 copies the body instead,
// and ChecksumAlgorithm is ignored. Metadata and tags are copied or replaced as the input's
// directives say. CopySource must be BUCKET/KEY, with an optional versionId.
//
// A copy onto itself fails with S3's PreconditionFailed if another writer replaces the object
// meanwhile.
func (c *Client) CopyObject(ctx context.Context, in *s3.CopyObjectInput, optFns ...func(*s3.Options)) (*s3.CopyObjectOutput, error) {
	cp := *in
	to, err := c.withCustomerKey(&cp.SSECustomerAlgorithm, &cp.SSECustomerKey, &cp.SSECustomerKeyMD5)
	if err != nil {
		return nil, err
	}
	from, err := c.withCustomerKey(&cp.CopySourceSSECustomerAlgorithm, &cp.CopySourceSSECustomerKey, &cp.CopySourceSSECustomerKeyMD5)
	if err != nil {
		return nil, err
	}
	get, err := copySource(&cp)
	if err != nil {
		return nil, err
	}
	return retryChanged(func() (*s3.CopyObjectOutput, error) { return from.copy(ctx, to, *get, cp, optFns) })
}

// copySource moves the source of a copy from the input to a request for it.
func copySource(cp *s3.CopyObjectInput) (*s3.GetObjectInput, error) {
	name, query, _ := strings.Cut(strings.TrimPrefix(aws.ToString(cp.CopySource), "/"), "?versionId=")
	name, err := url.PathUnescape(name)
	bucket, key, ok := strings.Cut(name, "/")
	if err != nil || !ok || bucket == "" || key == "" || strings.HasPrefix(name, "arn:") {
		return nil, fmt.Errorf("%w: CopySource %q (want BUCKET/KEY)", sse.ErrInvalid, aws.ToString(cp.CopySource))
	}
	get := &s3.GetObjectInput{
		Bucket: &bucket, Key: &key, ExpectedBucketOwner: cp.ExpectedSourceBucketOwner, RequestPayer: cp.RequestPayer,
		IfMatch: cp.CopySourceIfMatch, IfNoneMatch: cp.CopySourceIfNoneMatch,
		IfModifiedSince: cp.CopySourceIfModifiedSince, IfUnmodifiedSince: cp.CopySourceIfUnmodifiedSince,
	}
	if query != "" {
		get.VersionId = &query
	}
	cp.CopySource, cp.ExpectedSourceBucketOwner, cp.CopySourceIfMatch, cp.CopySourceIfNoneMatch = nil, nil, nil, nil
	cp.CopySourceIfModifiedSince, cp.CopySourceIfUnmodifiedSince = nil, nil
	return get, nil
}

// copy copies the object in get, which c opens, to the object in cp, which to seals.
func (c *Client) copy(ctx context.Context, to *Client, get s3.GetObjectInput, cp s3.CopyObjectInput, optFns []func(*s3.Options)) (*s3.CopyObjectOutput, error) {
	if _, err := c.identity(get.Bucket, get.Key); err != nil {
		return nil, err
	}
	src, err := c.api.GetObject(ctx, &get, optFns...)
	if err != nil {
		return nil, err
	}
	defer src.Body.Close()
	if size := aws.ToInt64(src.ContentLength); size <= singlePut { // ends the response
		data := bytes.NewBuffer(make([]byte, 0, size+bytes.MinRead))
		if _, err := data.ReadFrom(src.Body); err != nil {
			return nil, err
		}
		src.Body.Close()
		src.Body = io.NopCloser(data)
	}
	env, body, err := stored.ReadEnvelope(src.Body, c.opts.EnvelopeSize)
	switch {
	case errors.Is(err, sse.ErrComposite):
		src.Body.Close()
		return c.copyComposite(ctx, to, get, cp, src, optFns)
	case errors.Is(err, stored.ErrPlain):
		return nil, fmt.Errorf("%w (read and write it to encrypt the copy)", err)
	case err != nil:
		return nil, err
	}
	d, err := c.decrypt(ctx, get.Bucket, get.Key, env)
	if err != nil {
		return nil, err
	}
	sealed, err := to.reseal(ctx, cp, d)
	if err == nil {
		sealed, err = sealed.WithSize(to.opts.EnvelopeSize)
	}
	if err != nil {
		return nil, err
	}
	put, err := c.copyInput(ctx, get, cp, src, stored.HintOf(sealed), optFns)
	if err != nil {
		return nil, err
	}
	head, err := sealed.MarshalBinary()
	if err != nil {
		return nil, err
	}
	rest := aws.ToInt64(src.ContentLength) - int64(env.Size())
	if _, err := sse.PlaintextSize(rest); err != nil {
		return nil, err
	}
	out, err := c.put(ctx, put, io.MultiReader(bytes.NewReader(head), stored.ExactReader(body, rest, sse.ErrTruncated)), int64(len(head))+rest, optFns)
	if err != nil {
		return nil, err
	}
	return copyOutput(out, src), nil
}

// copyOutput returns the output of a copy that put wrote.
func copyOutput(put *s3.PutObjectOutput, src *s3.GetObjectOutput) *s3.CopyObjectOutput {
	return &s3.CopyObjectOutput{
		CopyObjectResult: &types.CopyObjectResult{ETag: put.ETag}, CopySourceVersionId: src.VersionId, VersionId: put.VersionId,
		BucketKeyEnabled: put.BucketKeyEnabled, Expiration: put.Expiration, RequestCharged: put.RequestCharged,
		SSEKMSKeyId: put.SSEKMSKeyId, ServerSideEncryption: put.ServerSideEncryption, ResultMetadata: put.ResultMetadata,
	}
}

// copyComposite copies an object that was uploaded in parts. src is a response for the
// object, without its body.
func (c *Client) copyComposite(ctx context.Context, to *Client, get s3.GetObjectInput, cp s3.CopyObjectInput, src *s3.GetObjectOutput, optFns []func(*s3.Options)) (*s3.CopyObjectOutput, error) {
	get.IfMatch, get.IfNoneMatch, get.IfModifiedSince, get.IfUnmodifiedSince = src.ETag, nil, nil, nil
	o, err := c.openObject(ctx, get, 0, optFns)
	switch {
	case err != nil:
		return nil, changedIfGone(err)
	case o.trailer == nil:
		return nil, stored.ErrChanged
	}
	sealed, err := to.reseal(ctx, cp, o.opened)
	if err != nil {
		return nil, err
	}
	tail, off, err := o.trailer.Replace(sealed)
	if err != nil {
		return nil, err
	}
	put, err := c.copyInput(ctx, get, cp, src, stored.HintOf(sealed), optFns)
	if err != nil {
		return nil, err
	}
	if off >= minPart {
		out, err := c.assembleCopy(ctx, put, &beginning{*get.Bucket, *get.Key, get.VersionId, src.ETag, get.ExpectedBucketOwner, off}, tail, optFns)
		if !errors.Is(err, errors.ErrUnsupported) {
			return assembledOutput(out, src), err
		}
	}
	parts, err := o.request(ctx, 0, off)
	if err != nil {
		return nil, changedIfGone(err)
	}
	defer parts.Body.Close()
	out, err := c.put(ctx, put, io.MultiReader(stored.ExactReader(parts.Body, off, sse.ErrTruncated), bytes.NewReader(tail)), off+int64(len(tail)), optFns)
	if err != nil {
		return nil, err
	}
	return copyOutput(out, src), nil
}

// assembleCopy stores a copy of which S3 copies the beginning.
func (c *Client) assembleCopy(ctx context.Context, put *s3.PutObjectInput, from *beginning, tail []byte, optFns []func(*s3.Options)) (*s3.CompleteMultipartUploadOutput, error) {
	create := new(s3.CreateMultipartUploadInput)
	if err := convert(create, put, "IfMatch", "IfNoneMatch"); err != nil {
		return nil, err
	}
	a, err := assemble(ctx, c.api, create, from, tail, optFns)
	if err != nil {
		return nil, err
	}
	return a.publish(ctx, put.IfMatch, put.IfNoneMatch)
}

// assembledOutput returns the output of a copy that S3 has made of parts, or nil.
func assembledOutput(done *s3.CompleteMultipartUploadOutput, src *s3.GetObjectOutput) *s3.CopyObjectOutput {
	if done == nil {
		return nil
	}
	return &s3.CopyObjectOutput{
		CopyObjectResult: &types.CopyObjectResult{ETag: done.ETag}, CopySourceVersionId: src.VersionId, VersionId: done.VersionId,
		BucketKeyEnabled: done.BucketKeyEnabled, Expiration: done.Expiration, RequestCharged: done.RequestCharged,
		SSEKMSKeyId: done.SSEKMSKeyId, ServerSideEncryption: done.ServerSideEncryption, ResultMetadata: done.ResultMetadata,
	}
}

// reseal returns the envelope of a copy, which c seals.
func (c *Client) reseal(ctx context.Context, cp s3.CopyObjectInput, d *sse.Decryption) (*sse.Envelope, error) {
	obj, err := c.identity(cp.Bucket, cp.Key)
	if err == nil {
		err = c.admit(c.cipher.Mode())
	}
	if err != nil {
		return nil, err
	}
	sealed, err := c.cipher.Rewrap(ctx, obj, d)
	return sealed, keyError(err)
}

// copyInput returns the input that stores a copy, without its body.
func (c *Client) copyInput(ctx context.Context, get s3.GetObjectInput, cp s3.CopyObjectInput, src *s3.GetObjectOutput, hint stored.Hint, optFns []func(*s3.Options)) (*s3.PutObjectInput, error) {
	if cp.AnnotationDirective != "" {
		return nil, fmt.Errorf("%w: AnnotationDirective: annotations are not copied", sse.ErrInvalid)
	}
	if cp.MetadataDirective != types.MetadataDirectiveReplace {
		cp.Metadata, cp.ContentEncoding, _, _ = openMetadata(src.Metadata, src.ContentEncoding)
		cp.CacheControl, cp.ContentDisposition, cp.ContentLanguage = src.CacheControl, src.ContentDisposition, src.ContentLanguage
		cp.ContentType, cp.WebsiteRedirectLocation = src.ContentType, src.WebsiteRedirectLocation
		if at, err := http.ParseTime(aws.ToString(src.ExpiresString)); err == nil {
			cp.Expires = &at
		}
	}
	if cp.TaggingDirective != types.TaggingDirectiveReplace {
		tags, err := c.tagsOf(ctx, get, src, optFns)
		if err != nil {
			return nil, err
		}
		cp.Tagging = tags
	}
	if aws.ToString(get.Bucket) == aws.ToString(cp.Bucket) && aws.ToString(get.Key) == aws.ToString(cp.Key) && cp.IfMatch == nil {
		cp.IfMatch = src.ETag
	}
	var err error
	if cp.Metadata, err = sealMetadata(hint, cp.Metadata, cp.ContentEncoding); err != nil {
		return nil, err
	}
	cp.ContentEncoding, cp.MetadataDirective, cp.TaggingDirective = nil, "", ""
	put := new(s3.PutObjectInput)
	return put, convert(put, &cp)
}

// tagsOf returns the tags of a copy's source, as S3 encodes them in a header.
func (c *Client) tagsOf(ctx context.Context, get s3.GetObjectInput, src *s3.GetObjectOutput, optFns []func(*s3.Options)) (*string, error) {
	if aws.ToInt32(src.TagCount) == 0 {
		return nil, nil
	}
	return tagsOf(ctx, c.api, &s3.GetObjectTaggingInput{
		Bucket: get.Bucket, Key: get.Key, VersionId: src.VersionId, ExpectedBucketOwner: get.ExpectedBucketOwner, RequestPayer: get.RequestPayer,
	}, optFns...)
}
