package s3gateway

import (
	"context"
	"errors"
	"net/url"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/versity/versitygw/auth"
	"github.com/versity/versitygw/backend"
	"github.com/versity/versitygw/s3err"
	"github.com/versity/versitygw/s3response"

	"github.com/blobseal/blobseal/sse/s3wire"
)

// CopyObject implements [backend.Backend]. It decrypts the source and encrypts the
// copy: the copy's key, mode and context are those of the request and of the
// destination's bucket.
func (g *Gateway) CopyObject(ctx context.Context, in s3response.CopyObjectInput) (s3response.CopyObjectOutput, error) {
	if err := g.guard(in.Bucket); err != nil {
		return s3response.CopyObjectOutput{}, err
	}
	out, err := g.copyObject(g.request(ctx), in)
	return out, g.fail("CopyObject", in.Bucket, in.Key, err)
}

func (g *Gateway) copyObject(r *request, in s3response.CopyObjectInput) (out s3response.CopyObjectOutput, err error) {
	w, err := s3wire.ParseWrite(r.values, r.tls)
	if err != nil {
		return out, err
	}
	src, err := g.parseSource(r, deref(in.CopySource), in.ExpectedSourceBucketOwner)
	if err != nil {
		return out, err
	}
	if src.bucket == *in.Bucket && src.key == *in.Key && src.id == "" {
		src.read.SelfCopy = true
		if s3wire.CheckSelfCopy(w, in.MetadataDirective == types.MetadataDirectiveReplace) != nil {
			return out, s3err.GetAPIError(s3err.ErrInvalidCopyDest)
		}
	}
	if _, err := g.Backend.HeadBucket(r.ctx, &s3.HeadBucketInput{Bucket: in.Bucket}); err != nil {
		return out, err
	}
	head, o, err := g.openSource(r, src, in.CopySourceIfMatch, in.CopySourceIfNoneMatch, &s3.GetObjectInput{
		IfModifiedSince: in.CopySourceIfModifiedSince, IfUnmodifiedSince: in.CopySourceIfUnmodifiedSince,
	})
	if v, ok := errors.AsType[*plainError](err); ok && g.isPlain(err, v.version, src.read) {
		o = &object{version: v.version, plaintext: v.version.size}
	} else if err != nil {
		return out, err
	}
	if o == nil { // a directory, which has no content
		o = &object{version: &version{}}
	}
	if o.plaintext > maxCopy {
		return out, s3err.GetCopySourceObjectTooLargeErr(maxCopy)
	}
	put, err := g.copyInput(r, in, src, head)
	if err != nil {
		return out, err
	}
	return g.storeCopy(r, put, w, o, src)
}

// storeCopy stores an opened object as another.
func (g *Gateway) storeCopy(r *request, put s3response.PutObjectInput, w *s3wire.Write, o *object, src *source) (out s3response.CopyObjectOutput, err error) {
	cipher, err := g.cipherOf(r, w, *put.Bucket)
	if err != nil {
		return out, err
	}
	body, err := o.readAll()
	if err != nil {
		return out, err
	}
	defer body.Close()
	put.Body, put.ContentLength = body, &o.plaintext
	stored, err := g.put(r, put, cipher, o.plaintext)
	if err != nil {
		return out, err
	}
	result := &s3response.CopyObjectResult{ETag: &stored.ETag, ChecksumType: stored.ChecksumType}
	checksumOf(&stored).set(result)
	head, err := g.Backend.HeadObject(r.ctx, &s3.HeadObjectInput{Bucket: put.Bucket, Key: put.Key})
	if err != nil {
		return out, err
	}
	result.LastModified = head.LastModified
	out.CopyObjectResult, out.VersionId, out.CopySourceVersionId = result, &stored.VersionID, &src.id
	return out, nil
}

// source is what a copy reads.
type source struct {
	bucket, key, id string // id of the version, or ""
	read            *s3wire.Read
}

// parseSource parses what a request says of the source of a copy.
func (g *Gateway) parseSource(r *request, from string, owner *string) (*source, error) {
	src := &source{}
	var err error
	if src.bucket, src.key, src.id, err = backend.ParseCopySource(from); err != nil {
		return nil, err
	}
	if err := g.guard(&src.bucket); err != nil {
		return nil, err
	}
	if src.read, err = s3wire.ParseCopySource(r.values, r.tls); err != nil {
		return nil, err
	}
	if deref(owner) == "" {
		return src, nil
	}
	data, err := g.Backend.GetBucketAcl(r.ctx, &s3.GetBucketAclInput{Bucket: &src.bucket})
	if err != nil {
		return nil, err
	}
	acl, err := auth.ParseACL(data)
	if err != nil {
		return nil, err
	}
	if acl.Owner != *owner {
		return nil, s3err.GetAPIError(s3err.ErrAccessDenied)
	}
	return src, nil
}

// openSource opens the source of a copy, if it fulfils the conditions. The object
// is nil if it is a directory.
func (g *Gateway) openSource(r *request, src *source, ifMatch, ifNoneMatch *string, conditions *s3.GetObjectInput) (*s3.GetObjectOutput, *object, error) {
	if _, err := g.Backend.HeadBucket(r.ctx, &s3.HeadBucketInput{Bucket: &src.bucket}); err != nil {
		return nil, nil, err
	}
	conditions.Bucket, conditions.Key, conditions.VersionId = &src.bucket, &src.key, &src.id
	conditions.IfMatch, conditions.IfNoneMatch = g.innerETag(ifMatch), g.innerETag(ifNoneMatch)
	return g.openHead(r, conditions, g.keys.ForRead(src.read))
}

// copyInput returns the input that stores a copy, without its body.
func (g *Gateway) copyInput(r *request, in s3response.CopyObjectInput, src *source, head *s3.GetObjectOutput) (s3response.PutObjectInput, error) {
	put := s3response.PutObjectInput{
		Bucket: in.Bucket, Key: in.Key, ChecksumAlgorithm: in.ChecksumAlgorithm,
		ContentType: in.ContentType, ContentEncoding: in.ContentEncoding, ContentLanguage: in.ContentLanguage,
		ContentDisposition: in.ContentDisposition, CacheControl: in.CacheControl, Expires: in.Expires,
		WebsiteRedirectLocation: in.WebsiteRedirectLocation, Metadata: in.Metadata, Tagging: in.Tagging,
		ObjectLockRetainUntilDate: in.ObjectLockRetainUntilDate, ObjectLockMode: in.ObjectLockMode,
		ObjectLockLegalHoldStatus: in.ObjectLockLegalHoldStatus,
	}
	if in.MetadataDirective != types.MetadataDirectiveReplace && head != nil {
		put.Metadata, put.ContentEncoding = callerMetadata(head.Metadata, head.ContentEncoding)
		put.ContentType, put.ContentLanguage, put.ContentDisposition = head.ContentType, head.ContentLanguage, head.ContentDisposition
		put.CacheControl, put.Expires = head.CacheControl, head.ExpiresString
	}
	if put.ChecksumAlgorithm == "" && g.files != nil {
		sums, err := g.Backend.HeadObject(r.ctx, &s3.HeadObjectInput{
			Bucket: &src.bucket, Key: &src.key, VersionId: &src.id, ChecksumMode: types.ChecksumModeEnabled,
		})
		if err != nil {
			return put, err
		}
		put.ChecksumAlgorithm = checksumOf(sums).Algorithm
	}
	if in.TaggingDirective == types.TaggingDirectiveReplace {
		return put, nil
	}
	tags, err := g.Backend.GetObjectTagging(r.ctx, src.bucket, src.key, src.id)
	if err != nil && !hasCode(err, "NoSuchTagSet") {
		return put, err
	}
	put.Tagging = nil
	if len(tags) > 0 {
		query := make(url.Values, len(tags))
		for name, value := range tags {
			query.Set(name, value)
		}
		put.Tagging = ptr(query.Encode())
	}
	return put, nil
}
