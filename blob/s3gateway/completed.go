package s3gateway

import (
	"errors"
	"io"
	"io/fs"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/versity/versitygw/backend"
	"github.com/versity/versitygw/backend/meta"
	"github.com/versity/versitygw/s3response"

	"github.com/blobseal/blobseal/sse"
)

// findCompleted returns the result of an upload that is no longer in the inner store, if the
// upload has become the object. Otherwise out is nil.
func (g *Gateway) findCompleted(r *request, in *s3.CompleteMultipartUploadInput) (out *s3response.CompleteMultipartUploadResult, version string, err error) {
	if in.MultipartUpload == nil {
		return nil, "", nil
	}
	u, err := g.getUpload(r.ctx, *in.Bucket, *in.Key, deref(in.UploadId))
	if hasCode(err, "NoSuchUpload") {
		u = nil // the records are deleted
	} else if err != nil {
		return nil, "", err
	}
	for deadline := time.Now().Add(lockTime); ; time.Sleep(lockTime / 100) {
		head, err := g.Backend.HeadObject(r.ctx, &s3.HeadObjectInput{Bucket: in.Bucket, Key: in.Key})
		published := false
		switch {
		case err != nil:
		case u != nil:
			published, err = g.isObjectOf(r, in, head, u)
		default:
			published, err = g.isRecordedAs(in, head)
		}
		if err != nil && !isNotFound(err) {
			return nil, "", err
		}
		if published {
			g.forgetUpload(r, in)
			return &s3response.CompleteMultipartUploadResult{Bucket: in.Bucket, Key: in.Key, ETag: g.clientETag(head.ETag)}, deref(head.VersionId), nil
		}
		if !g.isCompleting(in) || time.Now().After(deadline) {
			return nil, "", nil
		}
	}
}

// isRecordedAs reports whether a store of files has recorded that this upload made the
// object of the listed parts. The ETag alone proves nothing: in SSE-S3, another upload of
// the same content has the same ETag.
func (g *Gateway) isRecordedAs(in *s3.CompleteMultipartUploadInput, head *s3.HeadObjectOutput) (bool, error) {
	if g.files == nil || unquote(head.ETag) != compositeETag(in.MultipartUpload.Parts) {
		return false, nil
	}
	value, err := g.files.attributes.RetrieveAttribute(nil, *in.Bucket, *in.Key, attrMultipart)
	if errors.Is(err, meta.ErrNoSuchKey) || errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	mp, err := backend.UnmarshalMpUploadMetadata(value, false)
	return err == nil && mp.UploadID == deref(in.UploadId), err
}

// isObjectOf reports whether an upload has become the object.
func (g *Gateway) isObjectOf(r *request, in *s3.CompleteMultipartUploadInput, head *s3.HeadObjectOutput, u *upload) (bool, error) {
	env, err := u.envelope()
	if err != nil {
		return false, err
	}
	v := &version{g: g, ctx: r.ctx, bucket: *in.Bucket, key: *in.Key, etag: unquote(head.ETag), size: deref(head.ContentLength)}
	return hasBody(v, v.size, env)
}

// hasBody reports whether a stored object of size bytes has the body of an envelope.
func hasBody(object io.ReaderAt, size int64, env *sse.Envelope) (bool, error) {
	t, err := sse.ReadTrailer(object, size)
	if isDamage(err) { // such as an object that was stored at once
		return false, nil
	}
	return err == nil && t.Envelope().BodyID() == env.BodyID(), err
}

// isCompleting reports whether another gateway is completing the upload. That happens on
// file systems that cannot lock directories.
func (g *Gateway) isCompleting(in *s3.CompleteMultipartUploadInput) bool {
	if g.files == nil {
		return false
	}
	d, err := findUpload(*in.Bucket, *in.Key, deref(in.UploadId))
	return err == nil && d.isCompleting()
}
