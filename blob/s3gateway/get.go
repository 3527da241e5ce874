package s3gateway

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/versity/versitygw/backend"
	"github.com/versity/versitygw/s3err"

	"github.com/blobseal/blobseal/blob/stored"
	"github.com/blobseal/blobseal/sse"
	"github.com/blobseal/blobseal/sse/s3wire"
)

// GetObject implements [backend.Backend].
func (g *Gateway) GetObject(ctx context.Context, in *s3.GetObjectInput) (*s3.GetObjectOutput, error) {
	if err := g.guard(in.Bucket); err != nil {
		return nil, err
	}
	r := g.request(ctx)
	var out *s3.GetObjectOutput
	q, err := s3wire.ParseRead(r.values, r.tls)
	if err == nil {
		in.IfMatch, in.IfNoneMatch = g.innerETag(in.IfMatch), g.innerETag(in.IfNoneMatch)
		err = retryChanged(func() error {
			if deref(in.Range) == "" && in.PartNumber == nil {
				out, err = g.getWhole(r, in, q)
			} else {
				out, err = g.getPart(r, in, q)
			}
			return err
		})
	}
	if err != nil {
		return deleteMarker(out), g.fail("GetObject", in.Bucket, in.Key, err)
	}
	out.ETag = g.clientETag(out.ETag)
	return out, nil
}

// deleteMarker returns out if the object is a delete marker. The client gets it although
// the request fails.
func deleteMarker(out *s3.GetObjectOutput) *s3.GetObjectOutput {
	if out != nil && deref(out.DeleteMarker) {
		return out
	}
	return nil
}

// getWhole gets an object. It sends the store one request, or a few if the object was
// uploaded in parts.
func (g *Gateway) getWhole(r *request, in *s3.GetObjectInput, q *s3wire.Read) (*s3.GetObjectOutput, error) {
	out, err := g.Backend.GetObject(r.ctx, in)
	if err != nil {
		return out, err
	}
	if isDirectory(in.Key, deref(out.ContentLength)) {
		return out, nil
	}
	opener := g.keys.ForRead(q)
	v := g.versionOf(r.ctx, *in.Bucket, *in.Key, deref(in.VersionId), out)
	o, body, err := v.openBody(r, opener, out.Body)
	if g.isPlain(err, q) {
		out.Body = &stream{body, out.Body}
		return out, nil
	}
	if err != nil {
		out.Body.Close()
		return nil, err
	}
	if o.composite != nil { // out.Body is closed
		if out.Body, err = o.readRange(0, o.plaintext); err != nil {
			return nil, err
		}
	} else {
		out.Body = &stream{o.d.Reader(body), out.Body}
	}
	out.ContentLength = &o.plaintext
	return out, g.answer(r, out, opener)
}

// openBody opens the object whose stored bytes are in response. It returns a reader of the
// stored body. If the object was uploaded in parts, openBody closes response instead.
func (v *version) openBody(r *request, dec sse.Decrypter, response io.ReadCloser) (*object, io.Reader, error) {
	var first [compositeHead]byte
	n, err := io.ReadFull(response, first[:])
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return nil, nil, err
	}
	v.head = first[:n]
	env, body, err := stored.ReadEnvelope(io.MultiReader(bytes.NewReader(v.head), response), stored.DefaultEnvelopeSize)
	switch {
	case errors.Is(err, sse.ErrComposite):
		response.Close()
		o, err := v.openComposite(r, dec)
		return o, nil, err
	case errors.Is(err, stored.ErrPlain):
		return nil, body, v.plainError()
	case err != nil:
		return nil, body, err
	}
	o, err := v.openSimple(r, dec, env)
	return o, body, err
}

// compositeHead is how many bytes at the beginning identify a composite object.
const compositeHead = 10

// isPlain reports whether err says that an object is plain, and this request may read it.
func (g *Gateway) isPlain(err error, q *s3wire.Read) bool {
	_, plain := errors.AsType[*plainError](err)
	return plain && g.opts.AllowPlain && q.Customer == nil
}

// getPart gets a range or a part of an object.
func (g *Gateway) getPart(r *request, in *s3.GetObjectInput, q *s3wire.Read) (*s3.GetObjectOutput, error) {
	opener := g.keys.ForRead(q)
	out, o, err := g.openHead(r, in, opener)
	if g.isPlain(err, q) {
		same := *in
		same.IfMatch = matching(out.ETag, in.IfMatch) // somebody may encrypt the object meanwhile
		out, err := g.Backend.GetObject(r.ctx, &same)
		return out, changedIfUnmatched(err)
	}
	if err != nil {
		return out, err
	}
	if o == nil { // a directory
		return g.Backend.GetObject(r.ctx, in)
	}
	w, err := o.window(in.Range, in.PartNumber)
	if err != nil {
		return nil, err
	}
	if out.Body, err = o.readRange(w.off, w.n); err != nil {
		return nil, err
	}
	out.ContentLength, out.ContentRange, out.PartsCount = &w.n, w.contentRange, w.count
	checksum{}.set(out)
	out.ChecksumType = ""
	if w.n == o.plaintext {
		g.addChecksums(r, in, out)
	}
	return out, g.answer(r, out, opener)
}

// plainError is [stored.ErrPlain], with the version that is plain. An ErrPlain without it
// may come from the store of a ring or of a key service, and says nothing of the object.
type plainError struct{ version *version }

// plainError returns the error of a version that does not begin with an envelope.
func (v *version) plainError() error {
	if v.hinted {
		return stored.ErrDamaged
	}
	return &plainError{v}
}

func (e *plainError) Error() string { return stored.ErrPlain.Error() }
func (e *plainError) Unwrap() error { return stored.ErrPlain }

// openHead opens an object by its first bytes. The output has no body. The object
// is nil if it is a directory.
func (g *Gateway) openHead(r *request, in *s3.GetObjectInput, dec sse.Decrypter) (*s3.GetObjectOutput, *object, error) {
	var seen *fileState
	var seenErr error
	if r.replaces && g.files != nil && deref(in.VersionId) == "" {
		seen, seenErr = g.files.state(*in.Bucket, *in.Key)
	}
	head := *in
	head.Range, head.PartNumber = ptr(fmt.Sprintf("bytes=0-%d", stored.DefaultEnvelopeSize-1)), nil
	out, err := g.Backend.GetObject(r.ctx, &head)
	if hasCode(err, "InvalidRange") { // empty
		head.Range = ptr("") // not nil: the store of files reads it
		out, err = g.Backend.GetObject(r.ctx, &head)
	}
	if err == nil {
		err = seenErr
	}
	if err != nil {
		return out, nil, err
	}
	var first []byte
	if out.Body != nil { // the store of files has none for a directory
		first, err = io.ReadAll(io.LimitReader(out.Body, stored.DefaultEnvelopeSize))
		out.Body.Close()
		out.Body = nil
		if err != nil {
			return nil, nil, err
		}
	}
	v := g.versionOf(r.ctx, *in.Bucket, *in.Key, deref(in.VersionId), out)
	v.seen = seen
	if isDirectory(in.Key, v.size) {
		return out, nil, nil
	}
	o, err := v.open(r, dec, first)
	return out, o, err
}

// window is the part of the plaintext that a request asks for.
type window struct {
	off, n       int64
	contentRange *string // nil if the response is the whole object
	count        *int32  // of parts, if the request asks for a part
}

// window returns what a request asks for. Its size is not yet proven.
func (o *object) window(asked *string, partNumber *int32) (w window, err error) {
	if partNumber == nil {
		var partial bool
		if w.off, w.n, partial, err = backend.ParseObjectRange(o.plaintext, deref(asked)); partial {
			w.setContentRange(o.plaintext)
		}
		return w, err
	}
	off, n, count, ok := o.part(*partNumber)
	if !ok {
		return w, s3err.GetInvalidPartNumberRangeErr(count, *partNumber)
	}
	w.off, w.n = off, n
	if o.composite != nil {
		w.count = &count
	}
	if n > 0 {
		w.setContentRange(o.plaintext)
	}
	return w, nil
}

func (w *window) setContentRange(total int64) {
	w.contentRange = ptr(fmt.Sprintf("bytes %d-%d/%d", w.off, w.off+w.n-1, total))
}

// addChecksums adds the checksums of a whole object, if the request asks for them.
func (g *Gateway) addChecksums(r *request, in *s3.GetObjectInput, out *s3.GetObjectOutput) {
	if in.ChecksumMode == "" || g.files == nil {
		return
	}
	head, err := g.Backend.HeadObject(r.ctx, &s3.HeadObjectInput{
		Bucket: in.Bucket, Key: in.Key, VersionId: in.VersionId, ChecksumMode: in.ChecksumMode,
	})
	if err == nil && unquote(head.ETag) == unquote(out.ETag) {
		checksumOf(head).set(out)
		out.ChecksumType = head.ChecksumType
	}
}

// answer completes a response and sets its headers. It opens the first chunk, so that a
// damaged object is an error rather than a response that breaks off.
func (g *Gateway) answer(r *request, out *s3.GetObjectOutput, opener *s3wire.Opener) error {
	body := out.Body
	ahead := bufio.NewReaderSize(body, sse.ChunkSize)
	if _, err := ahead.Peek(1); err != nil && err != io.EOF {
		body.Close()
		return err
	}
	out.Body = &stream{ahead, body}
	out.Metadata, out.ContentEncoding = callerMetadata(out.Metadata, out.ContentEncoding)
	if g.files == nil {
		checksum{}.set(out) // of the ciphertext
		out.ChecksumType = ""
	}
	opener.SetHeaders(r.setHeader)
	return nil
}

// HeadObject implements [backend.Backend].
func (g *Gateway) HeadObject(ctx context.Context, in *s3.HeadObjectInput) (*s3.HeadObjectOutput, error) {
	if err := g.guard(in.Bucket); err != nil {
		return nil, err
	}
	r := g.request(ctx)
	q, err := s3wire.ParseRead(r.values, r.tls)
	var out *s3.HeadObjectOutput
	if err == nil {
		in.IfMatch, in.IfNoneMatch = g.innerETag(in.IfMatch), g.innerETag(in.IfNoneMatch)
		err = retryChanged(func() error {
			out, err = g.head(r, in, q)
			return err
		})
	}
	if err != nil {
		if out != nil && !deref(out.DeleteMarker) {
			out = nil
		}
		return out, g.fail("HeadObject", in.Bucket, in.Key, err)
	}
	out.ETag = g.clientETag(out.ETag)
	return out, nil
}

func (g *Gateway) head(r *request, in *s3.HeadObjectInput, q *s3wire.Read) (*s3.HeadObjectOutput, error) {
	whole := *in
	whole.Range, whole.PartNumber = nil, nil
	out, err := g.Backend.HeadObject(r.ctx, &whole)
	if err != nil {
		return out, err
	}
	if isDirectory(in.Key, deref(out.ContentLength)) {
		return g.Backend.HeadObject(r.ctx, in)
	}
	opener := g.keys.ForRead(q)
	o, err := g.openSame(r, in.Bucket, in.Key, in.VersionId, out.ETag, opener)
	if g.isPlain(err, q) {
		same := *in
		same.IfMatch = matching(out.ETag, in.IfMatch)
		out, err := g.Backend.HeadObject(r.ctx, &same)
		return out, changedIfUnmatched(err)
	}
	if err != nil {
		return nil, err
	}
	w, err := o.window(in.Range, in.PartNumber)
	if err != nil {
		return nil, err
	}
	out.ContentLength, out.ContentRange, out.PartsCount = &w.n, w.contentRange, w.count
	out.Metadata, out.ContentEncoding = callerMetadata(out.Metadata, out.ContentEncoding)
	if g.files == nil || w.n != o.plaintext {
		checksum{}.set(out)
		out.ChecksumType = ""
	}
	opener.SetHeaders(r.setHeader)
	return out, nil
}

// openSame opens the version that has the ETag of a response.
func (g *Gateway) openSame(r *request, bucket, key, id, etag *string, dec sse.Decrypter) (*object, error) {
	in := &s3.GetObjectInput{Bucket: bucket, Key: key, VersionId: id, IfMatch: matching(etag, nil)}
	_, o, err := g.openHead(r, in, dec)
	if err == nil && o == nil {
		err = stored.ErrChanged
	}
	return o, changedIfUnmatched(err)
}
