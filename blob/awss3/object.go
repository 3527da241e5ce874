package awss3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/blobseal/blobseal/blob/stored"
	"github.com/blobseal/blobseal/sse"
)

const (
	drainSize = 128 << 10 // plaintext that is requested with the envelope, at most
	maxHead   = sse.MaxEnvelopeSize + drainSize
)

// object is one version of a stored object, opened for reads of its parts. Except for
// read, it holds no response of the store when a method returns.
type object struct {
	c      *Client
	in     s3.GetObjectInput // of requests behind the first
	optFns []func(*s3.Options)

	out   *s3.GetObjectOutput // the first response, without its body
	head  []byte              // the first bytes of the stored object
	total int64               // stored size
	size  int64               // plaintext size
	proof bool                // size is authentic

	plain   bool
	env     *sse.Envelope
	opened  *sse.Decryption
	trailer *sse.Trailer // of a composite object
	body    body
}

// body is the part of [sse.Composite] that reads need.
type body interface {
	StoredRange(off, n int64) (storedOff, storedLen int64, err error)
	RangeReader(src io.Reader, off, n int64) io.Reader
}

// openObject opens the object in in. That takes one request, or two if the envelope has an
// unusual size. ahead is how much of the plaintext to request with the envelope. The
// conditions in in apply to the first request. Later requests demand the version that the
// first one found.
func (c *Client) openObject(ctx context.Context, in s3.GetObjectInput, ahead int64, optFns []func(*s3.Options)) (*object, error) {
	in.Range, in.PartNumber = nil, nil
	o := &object{c: c, in: in, optFns: optFns}
	want := int64(c.opts.EnvelopeSize)
	if ahead > 0 && ahead <= drainSize {
		_, n, err := sse.CiphertextRange(0, ahead)
		if err != nil {
			return nil, err
		}
		want += n
	}
	if err := o.fetchHead(ctx, want); err != nil {
		return nil, err
	}
	o.in.IfMatch, o.in.IfNoneMatch, o.in.IfModifiedSince, o.in.IfUnmodifiedSince = o.out.ETag, nil, nil, nil
	env, err := o.readEnvelope(ctx)
	switch {
	case errors.Is(err, stored.ErrPlain):
		return o, o.openPlain()
	case errors.Is(err, sse.ErrComposite):
		return o, o.openComposite(ctx)
	case err != nil:
		return nil, err
	}
	o.env = env
	if o.size, err = stored.PlaintextSize(o.total, env.Size()); err != nil {
		return nil, err
	}
	d, err := c.decrypt(ctx, in.Bucket, in.Key, env)
	o.opened, o.body = d, single{d, int64(env.Size())}
	return o, err
}

// fetchHead requests the first n bytes of the stored object.
func (o *object) fetchHead(ctx context.Context, n int64) error {
	out, data, err := o.fetch(ctx, 0, n)
	if hasCode(err, "InvalidRange") { // of an empty object
		in := o.in
		if out, err = o.c.api.GetObject(ctx, &in, o.optFns...); err == nil {
			out.Body.Close()
			if aws.ToInt64(out.ContentLength) > 0 {
				err = stored.ErrChanged
			}
		}
	}
	if err != nil {
		return err
	}
	o.out, o.head, o.total = out, data, aws.ToInt64(out.ContentLength)
	if _, _, total, ok := parseContentRange(aws.ToString(out.ContentRange)); ok {
		o.total = total
	}
	return nil
}

// readEnvelope reads the envelope in the head. If the head is shorter than the envelope,
// readEnvelope fetches a longer head.
func (o *object) readEnvelope(ctx context.Context) (*sse.Envelope, error) {
	env, _, err := stored.ReadEnvelope(bytes.NewReader(o.head), len(o.head))
	if errors.Is(err, io.ErrUnexpectedEOF) && o.total > int64(len(o.head)) {
		if err := o.fetchHead(ctx, maxHead); err != nil {
			return nil, changedIfGone(err)
		}
		env, _, err = stored.ReadEnvelope(bytes.NewReader(o.head), len(o.head))
	}
	return env, err
}

// fetch requests n bytes of the stored object from off and reads them.
func (o *object) fetch(ctx context.Context, off, n int64) (*s3.GetObjectOutput, []byte, error) {
	out, err := o.request(ctx, off, n)
	if err != nil {
		return nil, nil, err
	}
	defer out.Body.Close()
	data := bytes.NewBuffer(make([]byte, 0, min(n, maxHead)+bytes.MinRead))
	_, err = data.ReadFrom(io.LimitReader(out.Body, n))
	return out, data.Bytes(), err
}

func (o *object) request(ctx context.Context, off, n int64) (*s3.GetObjectOutput, error) {
	in := o.in
	in.Range = aws.String(fmt.Sprintf("bytes=%d-%d", off, off+n-1))
	return o.c.api.GetObject(ctx, &in, o.optFns...)
}

// changedIfGone turns the error of a later request into [stored.ErrChanged] if the version
// that the first request found is gone.
func changedIfGone(err error) error {
	if hasCode(err, "PreconditionFailed", "NoSuchKey", "NotFound", "InvalidRange") {
		return fmt.Errorf("%w: %w", stored.ErrChanged, opaque{err})
	}
	return err
}

func (o *object) openPlain() error {
	_, _, _, hinted := openMetadata(o.out.Metadata, nil)
	o.plain, o.size, o.proof, o.body = true, o.total, true, plainBody{o.total}
	return o.c.admitPlain(hinted)
}

// openComposite opens an object that was uploaded in parts.
func (o *object) openComposite(ctx context.Context) error {
	trailer, err := sse.ReadTrailer(fetcher{ctx, o}, o.total)
	if err != nil {
		return changedIfGone(err)
	}
	d, err := o.c.decrypt(ctx, o.in.Bucket, o.in.Key, trailer.Envelope())
	if err != nil {
		return err
	}
	composite, err := trailer.Open(d)
	if err != nil {
		return err
	}
	o.env, o.opened, o.trailer = trailer.Envelope(), d, trailer
	o.body, o.size, o.proof = composite, composite.Size(), true
	return nil
}

// fetcher reads a stored object by requests.
type fetcher struct {
	ctx context.Context // of one call
	o   *object
}

func (f fetcher) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) <= int64(len(f.o.head)) {
		return copy(p, f.o.head[off:]), nil
	}
	_, data, err := f.o.fetch(f.ctx, off, int64(len(p)))
	n := copy(p, data)
	if err == nil && n < len(p) {
		err = io.EOF
	}
	return n, err
}

// single is the body of an object that was written as one message.
type single struct {
	*sse.Decryption
	envelope int64
}

func (s single) StoredRange(off, n int64) (int64, int64, error) {
	at, length, err := sse.CiphertextRange(off, n)
	return s.envelope + at, length, err
}

// plainBody is the body of a plain object.
type plainBody struct{ size int64 }

func (plainBody) StoredRange(off, n int64) (int64, int64, error) { return off, n, nil }
func (b plainBody) RangeReader(src io.Reader, off, n int64) io.Reader {
	return io.LimitReader(src, n)
}

// prove reads the last chunk, which authenticates the object's size, unless a reader of
// n bytes from off verifies that chunk.
func (o *object) prove(ctx context.Context, off, n int64) error {
	last := o.size / sse.ChunkSize * sse.ChunkSize
	if o.proof || n > 0 && (off+n > last || off+n == o.size) {
		return nil
	}
	r, err := o.read(ctx, last, o.size-last)
	if err != nil {
		return err
	}
	defer r.Close()
	got, err := io.Copy(io.Discard, r)
	if err != nil {
		return err
	}
	if last+got != o.size {
		return stored.ErrChanged
	}
	o.proof = true
	return nil
}

// read returns a reader of n plaintext bytes from off, which must be in the object. The caller
// closes the reader before the next request.
func (o *object) read(ctx context.Context, off, n int64) (io.ReadCloser, error) {
	if off+n == o.size && !o.plain && o.trailer == nil {
		n = -1 // the reader verifies the end
	}
	at, length, err := o.body.StoredRange(off, n)
	if err != nil {
		return nil, err
	}
	if length < 0 || at+length > o.total {
		length = o.total - at
	}
	if length == 0 {
		return io.NopCloser(o.body.RangeReader(bytes.NewReader(nil), off, n)), nil
	}
	if at+length <= int64(len(o.head)) {
		return io.NopCloser(o.body.RangeReader(bytes.NewReader(o.head[at:at+length]), off, n)), nil
	}
	out, err := o.request(ctx, at, length)
	if err != nil {
		return nil, changedIfGone(err)
	}
	if etag := out.ETag; etag != nil && o.out.ETag != nil && *etag != *o.out.ETag { // the server ignores If-Match
		out.Body.Close()
		return nil, stored.ErrChanged
	}
	return plaintext{o.body.RangeReader(out.Body, off, n), out.Body}, nil
}

// plaintext reads the plaintext of a response.
type plaintext struct {
	io.Reader
	response io.Closer
}

func (p plaintext) Close() error { return p.response.Close() }

// WriteTo implements [io.WriterTo], to decrypt on several cores.
func (p plaintext) WriteTo(w io.Writer) (int64, error) { return io.Copy(w, p.Reader) }

// sizeByHead returns the plaintext size that the object's envelope or trailer states.
func (o *object) sizeByHead(ctx context.Context, hinted bool) (int64, error) {
	env, err := o.readEnvelope(ctx)
	switch {
	case errors.Is(err, stored.ErrPlain):
		return o.total, o.c.admitPlain(hinted)
	case errors.Is(err, sse.ErrComposite):
		trailer, err := sse.ReadTrailer(fetcher{ctx, o}, o.total)
		if err != nil {
			return 0, changedIfGone(err)
		}
		return trailer.Size(), nil
	case err != nil:
		return 0, err
	}
	return stored.PlaintextSize(o.total, env.Size())
}
