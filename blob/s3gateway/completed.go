package s3gateway

import (
	"errors"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/versity/versitygw/s3response"

	"github.com/blobseal/blobseal/sse"
)

// completed returns the result of an upload that the inner store does not know, if
// the upload has become the object. Otherwise out is nil.
func (g *Gateway) completed(r *request, in *s3.CompleteMultipartUploadInput) (out *s3response.CompleteMultipartUploadResult, version string, err error) {
	if in.MultipartUpload == nil {
		return nil, "", nil
	}
	u, err := g.getUpload(r.ctx, *in.Bucket, *in.Key, deref(in.UploadId))
	if err != nil && !hasCode(err, "NoSuchUpload") {
		return nil, "", err
	}
	known := err == nil
	for deadline := time.Now().Add(lockTime); ; time.Sleep(lockTime / 100) {
		head, err := g.Backend.HeadObject(r.ctx, &s3.HeadObjectInput{Bucket: in.Bucket, Key: in.Key})
		if err != nil && !isNotFound(err) {
			return nil, "", err
		}
		is := false
		switch {
		case err != nil:
		case known:
			is, err = g.isObjectOf(r, in, head, u)
		case g.files != nil: // the records are gone, and the ETag tells
			is = unquote(head.ETag) == compositeETag(in.MultipartUpload.Parts)
		}
		if is {
			g.forgetUpload(r, in)
			return &s3response.CompleteMultipartUploadResult{Bucket: in.Bucket, Key: in.Key, ETag: g.clientETag(head.ETag)}, deref(head.VersionId), nil
		}
		if err != nil && !isNotFound(err) {
			return nil, "", err
		}
		if !g.completing(in) || time.Now().After(deadline) {
			return nil, "", nil
		}
	}
}

// isObjectOf reports whether an object is what an upload has become.
func (g *Gateway) isObjectOf(r *request, in *s3.CompleteMultipartUploadInput, head *s3.HeadObjectOutput, u *upload) (bool, error) {
	env, err := u.envelope()
	if err != nil {
		return false, err
	}
	v := &version{g: g, ctx: r.ctx, bucket: *in.Bucket, key: *in.Key, etag: unquote(head.ETag), size: deref(head.ContentLength)}
	t, err := sse.ReadTrailer(v, v.size)
	if errors.Is(err, sse.ErrFormat) || errors.Is(err, sse.ErrTruncated) {
		return false, nil // an object that was stored at once
	}
	return err == nil && t.Envelope().BodyID() == env.BodyID(), err
}

// completing reports whether another gateway completes the upload of a request, over
// files whose directories cannot be locked.
func (g *Gateway) completing(in *s3.CompleteMultipartUploadInput) bool {
	if g.files == nil {
		return false
	}
	d, err := findUpload(*in.Bucket, *in.Key, deref(in.UploadId))
	return err == nil && d.completing()
}
