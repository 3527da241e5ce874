package s3gateway

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/versity/versitygw/backend"
	"github.com/versity/versitygw/s3err"
	"github.com/versity/versitygw/s3response"
	"golang.org/x/sync/errgroup"

	"github.com/blobseal/blobseal/blob/stored"
)

const (
	// minAssembled is the size from which the inner store copies a body. A shorter body
	// costs less in one request than in the five of an upload.
	minAssembled = 8 << 20

	copyRange = 32 << 20 // of one UploadPartCopy, unless there are too many
	maxRanges = 9_900    // S3 takes 10,000 parts, and the head and the tail are parts, too
	maxCopies = 8        // at a time, for one object
)

// assembling is an upload to another S3 server, which copies the body itself.
type assembling struct {
	*resealed
	id    string
	parts []types.CompletedPart
}

// assemble stores the object by an upload for which the inner store copies the body. If it
// fails, it leaves no upload behind.
func (c *resealed) assemble() (out s3response.PutObjectOutput, err error) {
	created, err := c.Backend.CreateMultipartUpload(c.r.ctx, c.createInput())
	if err != nil {
		return out, err
	}
	a := &assembling{resealed: c, id: created.UploadId}
	if out, err = a.run(); err != nil {
		ctx, cancel := cleanupContext(c.r.ctx)
		defer cancel()
		abort := &s3.AbortMultipartUploadInput{Bucket: c.put.Bucket, Key: c.put.Key, UploadId: &a.id}
		if failed := c.Backend.AbortMultipartUpload(ctx, abort); failed != nil && !hasCode(failed, "NoSuchUpload") {
			c.opts.Log.Warn("s3gateway: the upload of a failed copy stays", "bucket", *c.put.Bucket, "key", *c.put.Key, "upload", a.id, "error", failed)
		}
	}
	return c.answer(out, err)
}

// createInput returns the input that begins the upload.
func (c *resealed) createInput() s3response.CreateMultipartUploadInput {
	return s3response.CreateMultipartUploadInput{
		Bucket: c.put.Bucket, Key: c.put.Key, Metadata: c.put.Metadata, Tagging: c.put.Tagging,
		ContentType: c.put.ContentType, ContentEncoding: c.put.ContentEncoding, ContentLanguage: c.put.ContentLanguage,
		ContentDisposition: c.put.ContentDisposition, CacheControl: c.put.CacheControl, Expires: c.put.Expires,
		WebsiteRedirectLocation: c.put.WebsiteRedirectLocation, ObjectLockRetainUntilDate: c.put.ObjectLockRetainUntilDate,
		ObjectLockMode: c.put.ObjectLockMode, ObjectLockLegalHoldStatus: c.put.ObjectLockLegalHoldStatus,
	}
}

func (a *assembling) run() (out s3response.PutObjectOutput, err error) {
	from := a.from
	if len(a.head) > 0 { // every part but the last has 5 MiB
		n := backend.MinPartSize - int64(len(a.head))
		if err := a.uploadHead(n); err != nil {
			return out, err
		}
		from += n
	}
	if err := a.copyBody(from); err != nil {
		return out, err
	}
	if len(a.tail) > 0 {
		if err := a.upload(bytes.NewReader(a.tail), int64(len(a.tail))); err != nil {
			return out, err
		}
	}
	if err := a.checkSize(); err != nil {
		return out, err
	}
	if err := a.confirmTags(); err != nil {
		return out, err
	}
	in := &s3.CompleteMultipartUploadInput{
		Bucket: a.put.Bucket, Key: a.put.Key, UploadId: &a.id, IfMatch: a.put.IfMatch, IfNoneMatch: a.put.IfNoneMatch,
		MultipartUpload: &types.CompletedMultipartUpload{Parts: a.parts},
	}
	done, version, err := a.Backend.CompleteMultipartUpload(a.r.ctx, in)
	return s3response.PutObjectOutput{ETag: deref(done.ETag), VersionID: version}, err
}

// checkSize returns NotImplemented if the parts do not have the sizes that they should:
// some servers ignore the range of a copy.
func (a *assembling) checkSize() error {
	var total int64
	for marker := ""; ; {
		list, err := a.Backend.ListParts(a.r.ctx, &s3.ListPartsInput{
			Bucket: a.put.Bucket, Key: a.put.Key, UploadId: &a.id, MaxParts: ptr(int32(1000)), PartNumberMarker: &marker,
		})
		if err != nil {
			return err
		}
		for _, part := range list.Parts {
			total += part.Size
		}
		if !list.IsTruncated || len(list.Parts) == 0 {
			break
		}
		marker = fmt.Sprint(list.NextPartNumberMarker)
	}
	if total != a.size() {
		return s3err.GetAPIError(s3err.ErrNotImplemented)
	}
	return nil
}

// uploadHead uploads the head and n bytes of the body as the first part.
func (a *assembling) uploadHead(n int64) error {
	body, err := a.src.get(a.from, n)
	if err != nil {
		return err
	}
	defer body.Close()
	return a.upload(io.MultiReader(bytes.NewReader(a.head), body), int64(len(a.head))+n)
}

func (a *assembling) upload(body io.Reader, size int64) error {
	number := int32(len(a.parts) + 1)
	out, err := a.Backend.UploadPart(a.r.ctx, &s3.UploadPartInput{
		Bucket: a.put.Bucket, Key: a.put.Key, UploadId: &a.id, PartNumber: &number, Body: body, ContentLength: &size,
	})
	if err != nil {
		return err
	}
	a.parts = append(a.parts, types.CompletedPart{PartNumber: &number, ETag: out.ETag})
	return nil
}

// copyBody makes the store copy the body from an offset on, in even ranges. After an error,
// it begins no further range, but waits for those that have begun, so that aborting the
// upload finds every part.
func (a *assembling) copyBody(from int64) error {
	size := max(copyRange, (a.to-from)/maxRanges+1)
	n := (a.to - from + size - 1) / size
	first := len(a.parts)
	a.parts = append(a.parts, make([]types.CompletedPart, n)...)
	copies, ctx := errgroup.WithContext(detach(a.r.ctx))
	copies.SetLimit(maxCopies)
	for i := range n {
		start, end := from+(a.to-from)*i/n, from+(a.to-from)*(i+1)/n
		copies.Go(func() (err error) {
			if ctx.Err() == nil {
				a.parts[first+int(i)], err = a.copyRange(int32(first+int(i)+1), start, end)
			}
			return err
		})
	}
	if err := copies.Wait(); err != nil {
		return err
	}
	return a.r.ctx.Err()
}

func (a *assembling) copyRange(number int32, start, end int64) (types.CompletedPart, error) {
	in := &s3.UploadPartCopyInput{
		Bucket: a.put.Bucket, Key: a.put.Key, UploadId: &a.id, PartNumber: &number,
		CopySource: ptr(a.src.copySource()), CopySourceRange: ptr(fmt.Sprintf("bytes=%d-%d", start, end-1)),
	}
	if a.src.etag != "" {
		in.CopySourceIfMatch = ptr(quote(a.src.etag))
	}
	out, err := a.uploadPartCopy(in)
	switch {
	case isReplaced(err):
		err = changedError(err)
	case hasCode(err, "InvalidArgument", "InvalidRange"): // perhaps because another object, which is shorter, is there
		if at := a.checkSource(); isReplaced(at) || errors.Is(at, stored.ErrChanged) {
			err = changedError(err)
		}
	}
	return types.CompletedPart{PartNumber: &number, ETag: out.ETag}, err
}

// isReplaced reports whether a request for a version failed because another writer has
// replaced or deleted it.
func isReplaced(err error) bool {
	return hasCode(err, "PreconditionFailed", "NoSuchKey", "NoSuchVersion")
}

// changedError returns [stored.ErrChanged] with the text of err.
func changedError(err error) error { return fmt.Errorf("%w: %w", stored.ErrChanged, opaqueError{err}) }

// checkSource reads a byte of the source. It fails if the source is gone.
func (a *assembling) checkSource() error {
	body, err := a.src.get(0, 1)
	if err != nil {
		return err
	}
	return body.Close()
}

// uploadPartCopy makes the inner store copy a part. Some servers take the request for the
// upload of an empty part. The engine panics at their answer.
func (a *assembling) uploadPartCopy(in *s3.UploadPartCopyInput) (out s3response.CopyPartResult, err error) {
	defer func() {
		if recover() != nil {
			err = s3err.GetAPIError(s3err.ErrNotImplemented)
		}
	}()
	out, err = a.Backend.UploadPartCopy(a.r.ctx, in)
	if hasCode(err, "MissingContentLength", "MethodNotAllowed") {
		err = s3err.GetAPIError(s3err.ErrNotImplemented)
	}
	return out, err
}

// copySource names the version in a request to copy it.
func (v *version) copySource() string {
	name := (&url.URL{Path: v.bucket + "/" + v.key}).EscapedPath()
	name = strings.ReplaceAll(name, "+", "%2B") // some servers take it for a space
	if v.id != "" {
		name += "?versionId=" + url.QueryEscape(v.id)
	}
	return name
}

// opaqueError has the text of an error whose code must not reach the client.
type opaqueError struct{ err error }

func (e opaqueError) Error() string { return e.err.Error() }
