package s3gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/blobseal/blobseal/blob/stored"
	"github.com/blobseal/blobseal/sse"
)

// retryChanged calls do again while it returns [stored.ErrChanged] or finds an object
// damaged. Over files, the ETag of SSE-S3 is a hash of the content. If a writer stores the
// same content under a new data key between two requests of do, If-Match does not notice,
// and the old key does not open the new body. A damaged object fails each time.
func retryChanged(do func() error) error {
	var err error
	for range stored.MaxTries {
		err = do()
		if !errors.Is(err, stored.ErrChanged) && (!isDamage(err) || errors.Is(err, stored.ErrPlain)) {
			break
		}
	}
	return err
}

// version is one version of a stored object.
type version struct {
	g           *Gateway
	ctx         context.Context
	bucket, key string
	id          string     // of the version, if requests must name it
	etag        string     // the inner store's, without quotes; empty if unknown
	size        int64      // stored bytes
	hinted      bool       // the metadata has a hint
	head        []byte     // the first bytes of the stored object, as far as they were read
	seen        *fileState // before anything was read; nil unless the request replaces a file
}

// versionOf returns the version in an answer of the inner store.
func (g *Gateway) versionOf(ctx context.Context, bucket, key, requested string, out *s3.GetObjectOutput) *version {
	v := &version{g: g, ctx: ctx, bucket: bucket, key: key, id: requested, etag: unquote(out.ETag), size: deref(out.ContentLength)}
	if id := deref(out.VersionId); v.id == "" && id != "null" {
		v.id = id
	}
	if _, total, ok := strings.Cut(deref(out.ContentRange), "/"); ok {
		if n, err := strconv.ParseInt(total, 10, 64); err == nil {
			v.size = n
		}
	}
	_, v.hinted = stored.ParseHint(out.Metadata)
	return v
}

// get requests n stored bytes from off of the version.
func (v *version) get(off, n int64) (io.ReadCloser, error) {
	in := &s3.GetObjectInput{Bucket: &v.bucket, Key: &v.key, Range: ptr(fmt.Sprintf("bytes=%d-%d", off, off+n-1))}
	if v.id != "" {
		in.VersionId = &v.id
	}
	if v.etag != "" {
		in.IfMatch = &v.etag
	}
	out, err := v.g.Backend.GetObject(v.ctx, in)
	if err != nil {
		return nil, changedIfUnmatched(err)
	}
	return out.Body, nil
}

// matching returns the condition that the object still has the ETag of a response, or
// otherwise if the response has none.
func matching(etag, otherwise *string) *string {
	if unquote(etag) == "" {
		return otherwise
	}
	return ptr(unquote(etag))
}

// changedIfUnmatched returns the error of a request with that condition.
func changedIfUnmatched(err error) error {
	if hasCode(err, "PreconditionFailed") {
		return stored.ErrChanged
	}
	return err
}

// ReadAt implements [io.ReaderAt], with one request at most.
func (v *version) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) <= int64(len(v.head)) {
		return copy(p, v.head[off:]), nil
	}
	want := min(int64(len(p)), v.size-off)
	if want <= 0 {
		return 0, io.EOF
	}
	body, err := v.get(off, want)
	if err != nil {
		return 0, err
	}
	defer body.Close()
	n, err := io.ReadFull(body, p[:want])
	if err == io.ErrUnexpectedEOF {
		err = io.EOF
	}
	if err == nil && want < int64(len(p)) {
		err = io.EOF
	}
	return n, err
}

// object is a version that was opened.
type object struct {
	*version
	env       *sse.Envelope // nil for a plain object
	d         *sse.Decryption
	composite *sse.Composite // nil for an object that was stored at once
	trailer   *sse.Trailer   // of a composite object
	plaintext int64          // size; authentic in a composite object and after prove
}

// open opens a version. head has the first bytes of the stored object, at least as many as
// a usual envelope.
func (v *version) open(r *request, dec sse.Decrypter, head []byte) (*object, error) {
	v.head = head
	env, err := v.envelope()
	if errors.Is(err, sse.ErrComposite) {
		return v.openComposite(r, dec)
	}
	if errors.Is(err, stored.ErrPlain) {
		return nil, v.plainError()
	}
	if err != nil {
		return nil, err
	}
	return v.openSimple(r, dec, env)
}

// envelope returns the envelope of a version. It reads the version if the envelope is
// longer than v.head.
func (v *version) envelope() (*sse.Envelope, error) {
	env, _, err := stored.ReadEnvelope(bytes.NewReader(v.head), stored.DefaultEnvelopeSize)
	if errors.Is(err, io.ErrUnexpectedEOF) && int64(len(v.head)) < v.size {
		longer := make([]byte, min(v.size, sse.MaxEnvelopeSize))
		if _, err := v.ReadAt(longer, 0); err != nil && err != io.EOF {
			return nil, err
		}
		env, _, err = stored.ReadEnvelope(bytes.NewReader(longer), stored.DefaultEnvelopeSize)
	}
	return env, err
}

func (v *version) openSimple(r *request, dec sse.Decrypter, env *sse.Envelope) (*object, error) {
	size, err := stored.PlaintextSize(v.size, env.Size())
	if err != nil {
		return nil, err
	}
	d, err := v.decrypt(r, dec, env)
	if err != nil {
		return nil, err
	}
	return &object{version: v, env: env, d: d, plaintext: size}, nil
}

func (v *version) openComposite(r *request, dec sse.Decrypter) (*object, error) {
	t, err := sse.ReadTrailer(v, v.size)
	if err != nil {
		return nil, err
	}
	d, err := v.decrypt(r, dec, t.Envelope())
	if err != nil {
		return nil, err
	}
	c, err := t.Open(d)
	if err != nil {
		return nil, err
	}
	return &object{version: v, env: t.Envelope(), d: d, composite: c, trailer: t, plaintext: c.Size()}, nil
}

func (v *version) decrypt(r *request, dec sse.Decrypter, env *sse.Envelope) (*sse.Decryption, error) {
	ctx, cancel := v.g.keyContext(r)
	defer cancel()
	return dec.Decrypt(ctx, sse.Object{Bucket: v.bucket, Key: v.key}, env)
}

// prove authenticates the plaintext's size. That of a plain object is what the store says.
func (o *object) prove() error {
	if o.composite != nil || o.env == nil {
		return nil
	}
	envelope := int64(o.env.Size())
	body := io.NewSectionReader(o.version, envelope, o.size-envelope)
	_, err := o.d.ReaderAt(body, body.Size())
	return err
}

// readRange returns a reader of n plaintext bytes from off, which are in the object.
func (o *object) readRange(off, n int64) (io.ReadCloser, error) {
	if n == 0 {
		return io.NopCloser(bytes.NewReader(nil)), o.prove()
	}
	if o.env == nil { // plain
		return o.get(off, n)
	}
	if o.composite != nil {
		at, length, err := o.composite.StoredRange(off, n)
		if err != nil {
			return nil, err
		}
		body, err := o.get(at, length)
		if err != nil {
			return nil, err
		}
		return &stream{o.composite.RangeReader(body, off, n), body}, nil
	}
	at, length, err := sse.CiphertextRange(off, n)
	if err != nil {
		return nil, err
	}
	if last := o.plaintext / sse.ChunkSize * sse.ChunkSize; off+n <= last && off+n < o.plaintext {
		if err := o.prove(); err != nil { // the last chunk is not among those of the range
			return nil, err
		}
	}
	envelope := int64(o.env.Size())
	body, err := o.get(envelope+at, min(length, o.size-envelope-at))
	if err != nil {
		return nil, err
	}
	return &stream{o.d.RangeReader(body, off, n), body}, nil
}

// part returns the offset and the size of a part in the plaintext, and how many parts the
// object has. ok is false if there is no such part. Numbers begin at 1 and have no gaps,
// unlike those of the upload.
func (o *object) part(number int32) (off, n int64, count int32, ok bool) {
	if o.composite == nil {
		return 0, o.plaintext, 1, number == 1
	}
	var at int64
	for _, size := range o.composite.Parts() {
		count++
		if count == number {
			off, n, ok = at, size, true
		}
		at += size
	}
	return off, n, count, ok
}

// stream reads plaintext. Close closes the response of the store.
type stream struct {
	io.Reader
	io.Closer
}

// readAll returns a reader of the whole plaintext.
func (o *object) readAll() (io.ReadCloser, error) {
	if o.env == nil || o.composite != nil {
		return o.readRange(0, o.plaintext)
	}
	envelope := int64(o.env.Size())
	body, err := o.get(envelope, o.size-envelope)
	if err != nil {
		return nil, err
	}
	return &stream{o.d.Reader(body), body}, nil
}
