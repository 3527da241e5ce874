package s3gateway

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/versity/versitygw/auth"
	"github.com/versity/versitygw/backend"
	"github.com/versity/versitygw/s3err"
	"github.com/versity/versitygw/s3response"

	"github.com/blobseal/blobseal/blob/stored"
	"github.com/blobseal/blobseal/sse/s3wire"
)

// CopyObject implements [backend.Backend]. It seals the source's data key for the copy. The
// request and the destination's bucket choose the copy's key, mode and context.
// CopyObject encrypts plaintext only if the source is plain, or if the copy gets a checksum that the
// source does not have.
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
		src.self, src.read.SelfCopy, r.replaces = true, true, true
		if s3wire.CheckSelfCopy(w, in.MetadataDirective == types.MetadataDirectiveReplace) != nil {
			return out, s3err.GetAPIError(s3err.ErrInvalidCopyDest)
		}
	}
	if _, err := g.Backend.HeadBucket(r.ctx, &s3.HeadBucketInput{Bucket: in.Bucket}); err != nil {
		return out, err
	}
	err = retryChanged(func() error {
		out, err = g.copyVersion(r, in, w, src)
		return err
	})
	return out, err
}

// copyVersion copies the source as it is now. If another writer replaces the source
// meanwhile, copyVersion stores nothing and returns [stored.ErrChanged].
func (g *Gateway) copyVersion(r *request, in s3response.CopyObjectInput, w *s3wire.Write, src *source) (out s3response.CopyObjectOutput, err error) {
	head, o, err := g.openSource(r, src, in.CopySourceIfMatch, in.CopySourceIfNoneMatch, &s3.GetObjectInput{
		IfModifiedSince: in.CopySourceIfModifiedSince, IfUnmodifiedSince: in.CopySourceIfUnmodifiedSince,
	})
	if err != nil {
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
	keep, err := g.keptOf(r, o)
	if err != nil {
		return out, err
	}
	cipher, err := g.cipherOf(r, w, *in.Bucket)
	if err != nil {
		return out, err
	}
	guarded, err := src.guard(&put, o)
	if err != nil {
		return out, err
	}
	var copied s3response.PutObjectOutput
	if canReseal(o, &put, keep) {
		if copied, err = g.reseal(r, o, keep, put, cipher); err == nil {
			cipher.SetHeaders(r.setHeader)
		}
	} else {
		copied, err = g.encryptCopy(r, o, keep, put, cipher)
	}
	if guarded && hasCode(err, "PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey") {
		err = stored.ErrChanged
	}
	if err != nil {
		return out, err
	}
	return g.copyOutput(r, in, src, &copied), nil
}

// copyOutput returns the answer to a copy. It cannot fail, since the copy is stored.
func (g *Gateway) copyOutput(r *request, in s3response.CopyObjectInput, src *source, copied *s3response.PutObjectOutput) (out s3response.CopyObjectOutput) {
	result := &s3response.CopyObjectResult{ETag: &copied.ETag, ChecksumType: copied.ChecksumType}
	checksumOf(copied).set(result)
	result.LastModified = ptr(time.Now().UTC())
	if head, err := g.Backend.HeadObject(r.ctx, &s3.HeadObjectInput{Bucket: in.Bucket, Key: in.Key}); err == nil {
		result.LastModified = head.LastModified
	}
	out.CopyObjectResult, out.VersionId, out.CopySourceVersionId = result, &copied.VersionID, &src.id
	return out
}

// keptOf returns what a copy keeps of an opened object.
func (g *Gateway) keptOf(r *request, o *object) (kept, error) {
	if g.files == nil || o.g == nil {
		return kept{}, nil
	}
	head, err := g.Backend.HeadObject(r.ctx, &s3.HeadObjectInput{
		Bucket: &o.bucket, Key: &o.key, VersionId: &o.id, ChecksumMode: types.ChecksumModeEnabled,
	})
	if isNotFound(err) || err == nil && unquote(head.ETag) != o.etag {
		err = stored.ErrChanged
	}
	if err != nil {
		return kept{}, err
	}
	return kept{etag: o.etag, checksum: checksumOf(head), kind: head.ChecksumType}, nil
}

// canReseal reports whether a copy can have the stored body of its source. Only the
// plaintext gives a checksum that the source does not have.
func canReseal(o *object, put *s3response.PutObjectInput, keep kept) bool {
	if o.env == nil || strings.HasSuffix(*put.Key, "/") {
		return false
	}
	return put.ChecksumAlgorithm == "" || put.ChecksumAlgorithm == keep.checksum.Algorithm && keep.kind == types.ChecksumTypeFullObject
}

// encryptCopy stores the plaintext of an opened object.
func (g *Gateway) encryptCopy(r *request, o *object, keep kept, put s3response.PutObjectInput, cipher *s3wire.Cipher) (out s3response.PutObjectOutput, err error) {
	body, err := o.readAll()
	if err != nil {
		return out, err
	}
	defer body.Close()
	put.Body, put.ContentLength = body, &o.plaintext
	if put.ChecksumAlgorithm == "" {
		put.ChecksumAlgorithm = keep.checksum.Algorithm
	}
	return g.put(r, put, cipher, o.plaintext)
}

// source is what a copy reads.
type source struct {
	bucket, key, id string // id of the version, or ""
	read            *s3wire.Read
	self            bool // the copy replaces what it reads
}

// guard adds a condition to put: a copy of an object onto itself may replace only o, the
// version that it has read. guard reports whether it did. Otherwise the request's own
// conditions say what the copy may replace.
func (src *source) guard(put *s3response.PutObjectInput, o *object) (bool, error) {
	switch {
	case !src.self || o.etag == "" || put.IfNoneMatch != nil:
		return false, nil
	case put.IfMatch == nil:
		put.IfMatch = &o.etag
		return true, nil
	case unquote(o.g.innerETag(put.IfMatch)) != o.etag:
		return false, s3err.GetAPIError(s3err.ErrPreconditionFailed)
	}
	return false, nil
}

// parseSource parses the source of a copy, and the key that opens it.
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

// openSource opens the source of a copy if it meets the conditions. The object is nil if it
// is a directory.
func (g *Gateway) openSource(r *request, src *source, ifMatch, ifNoneMatch *string, conditions *s3.GetObjectInput) (*s3.GetObjectOutput, *object, error) {
	if _, err := g.Backend.HeadBucket(r.ctx, &s3.HeadBucketInput{Bucket: &src.bucket}); err != nil {
		return nil, nil, err
	}
	conditions.Bucket, conditions.Key, conditions.VersionId = &src.bucket, &src.key, &src.id
	conditions.IfMatch, conditions.IfNoneMatch = g.innerETag(ifMatch), g.innerETag(ifNoneMatch)
	head, o, err := g.openHead(r, conditions, g.keys.ForRead(src.read))
	if plain, ok := errors.AsType[*plainError](err); ok && g.isPlain(err, src.read) {
		return head, &object{version: plain.version, plaintext: plain.version.size}, nil
	}
	return head, o, err
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
	put.IfMatch, put.IfNoneMatch = r.condition("If-Match"), r.condition("If-None-Match")
	if in.TaggingDirective == types.TaggingDirectiveReplace {
		return put, nil
	}
	tags, err := g.Backend.GetObjectTagging(r.ctx, src.bucket, src.key, src.id)
	switch {
	case src.id == "" && hasCode(err, "NoSuchKey", "MethodNotAllowed"): // deleted since it was opened
		return put, changedError(err)
	case err != nil && !hasCode(err, "NoSuchTagSet"):
		return put, err
	}
	put.Tagging = nil
	if len(tags) > 0 {
		put.Tagging = ptr(tagQuery(tags))
	}
	return put, nil
}
