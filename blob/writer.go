package blob

import (
	"context"
	"fmt"
	"io"
	"math"
	"reflect"

	gcblob "gocloud.dev/blob"
	"gocloud.dev/blob/driver"

	"github.com/blobseal/blobseal/sse"
)

// NewTypedWriter implements [driver.Bucket].
//
// A Write that sniffed the content type and met an error here is not the end for
// gocloud (v0.47.0): the Close that follows asks again, with the same opts, and if
// that succeeds, as when a key service is back, publishes an object without what the
// Write had. So the first error stays.
func (d *bucketDriver) NewTypedWriter(ctx context.Context, key, contentType string, opts *driver.WriterOptions) (driver.Writer, error) {
	w, err := d.b.newWriter(ctx, key, contentType, opts)
	if err != nil {
		opts.BeforeWrite = func(func(any) bool) error { return err }
		return nil, err
	}
	return w, nil
}

// newWriter begins to write an object.
func (b *Bucket) newWriter(ctx context.Context, key, contentType string, opts *driver.WriterOptions) (*writer, error) {
	if err := checkMetadata(opts.Metadata); err != nil {
		return nil, err
	}
	req := new(WriteRequest)
	hook := callHook(opts.BeforeWrite, func(i any) bool {
		p, ok := i.(**WriteRequest)
		if ok {
			*p = req
		}
		return ok
	})
	defer hook.stop()
	if !hook.held && hook.err != nil {
		return nil, hook.err
	}
	asked := *req
	enc, env, err := b.encrypt(ctx, key, &asked)
	if err != nil {
		return nil, err
	}
	w, err := b.create(ctx, key, env, &gcblob.WriterOptions{
		BufferSize:         opts.BufferSize,
		MaxConcurrency:     opts.MaxConcurrency,
		CacheControl:       opts.CacheControl,
		ContentDisposition: opts.ContentDisposition,
		ContentEncoding:    opts.ContentEncoding,
		ContentLanguage:    opts.ContentLanguage,
		ContentType:        contentType,
		Metadata:           opts.Metadata,
		BeforeWrite:        hook.inner(),
		IfNotExist:         opts.IfNotExist,
	})
	if err != nil {
		return nil, err
	}
	if !same(asked.Cipher, req.Cipher) || !asked.Context.Equal(req.Context) {
		w.abort()
		return nil, errLate
	}
	return &writer{stored: w, body: enc.Writer(w)}, nil
}

// errLate: the hook changed our request when the inner one had been made of it.
var errLate = fmt.Errorf("%w: the hook must set its request before it asks for types of the inner bucket", sse.ErrInvalid)

// same reports whether two ciphers are one, as far as can be told.
func same(x, y any) bool {
	vx, vy := reflect.ValueOf(x), reflect.ValueOf(y)
	if !vx.IsValid() || !vy.IsValid() {
		return vx.IsValid() == vy.IsValid()
	}
	return vx.Comparable() && vy.Comparable() && x == y
}

// encrypt starts the encryption of a new object, if the policy allows it.
func (b *Bucket) encrypt(ctx context.Context, key string, req *WriteRequest) (*sse.Encryption, *sse.Envelope, error) {
	enc, _ := b.encrypter(req.Cipher)
	if _, err := b.opts.Policy.precheck(enc); err != nil {
		return nil, nil, err
	}
	obj := b.object(key)
	obj.Context = req.Context
	e, err := enc.Encrypt(ctx, obj)
	if err != nil {
		return nil, nil, keyError(err)
	}
	env, err := b.fit(e.Envelope())
	return e, env, err
}

// fit returns the envelope as the bucket stores it, if the policy allows it.
func (b *Bucket) fit(env *sse.Envelope) (*sse.Envelope, error) {
	if _, err := b.opts.Policy.check(env.Mode(), env.KeyID()); err != nil {
		return nil, err
	}
	return env.WithSize(b.opts.EnvelopeSize)
}

// stored writes one stored object. Nothing of it is visible before commit.
type stored struct {
	b      *Bucket
	ctx    context.Context // of the inner write
	cancel context.CancelFunc
	key    string
	inner  *gcblob.Writer
	head   []byte // the envelope, until it is written
}

// partSize is a [gcblob.WriterOptions].BufferSize for a copy of a stored object of
// size bytes, which s3blob and azureblob take for the size of parts; 0 is their
// default, 8 MiB. S3 takes 10,000 parts: with the default, what was written in
// larger ones could not be copied. The copy may be a little larger.
func partSize(size int64) int {
	const parts, usual = 9_000, 8 << 20
	if size <= parts*usual {
		return 0
	}
	return int(min(size/parts+1, math.MaxInt32))
}

// optionsLike are for writing what is made of the stored object with these
// attributes: all that gocloud knows of it is kept.
func optionsLike(attrs *gcblob.Attributes) *gcblob.WriterOptions {
	return &gcblob.WriterOptions{
		BufferSize:         partSize(attrs.Size),
		CacheControl:       attrs.CacheControl,
		ContentDisposition: attrs.ContentDisposition,
		ContentEncoding:    attrs.ContentEncoding,
		ContentLanguage:    attrs.ContentLanguage,
		ContentType:        attrs.ContentType,
		Metadata:           attrs.Metadata,
	}
}

// create begins to write a stored object with the envelope env. opts are the
// caller's, or those of the stored object that this one replaces; the hint comes on
// top. The content type is the caller's too: the inner bucket must not look for one
// in the ciphertext.
func (b *Bucket) create(ctx context.Context, key string, env *sse.Envelope, opts *gcblob.WriterOptions) (*stored, error) {
	const small = 2 << 10 // a body of that size is written together with its envelope
	head, err := env.AppendBinary(make([]byte, 0, env.Size()+small))
	if err != nil {
		return nil, err
	}
	opts.Metadata = hintOf(env).metadata(opts.Metadata)
	if opts.ContentEncoding != "" {
		opts.Metadata[contentEncoding], opts.ContentEncoding = opts.ContentEncoding, ""
	}
	opts.DisableContentTypeDetection = true
	s := &stored{b: b, key: key, head: head}
	s.ctx, s.cancel = context.WithCancel(ctx)
	if s.inner, err = b.inner.NewWriter(s.ctx, key, opts); err != nil {
		s.cancel()
		return nil, openError(err)
	}
	return s, nil
}

// Write writes the next bytes of the body.
func (s *stored) Write(p []byte) (int, error) {
	if s.head == nil {
		return s.inner.Write(p)
	}
	head := s.head
	s.head = nil
	if len(p) <= cap(head)-len(head) {
		n, err := s.inner.Write(append(head, p...))
		return max(0, n-len(head)), err
	}
	if _, err := s.inner.Write(head); err != nil {
		return 0, err
	}
	return s.inner.Write(p)
}

// abort ends the write without a trace. It is cancelled before it is closed,
// since closing is what commits.
func (s *stored) abort() {
	s.cancel()
	s.inner.Close()
}

// commit makes the object visible. publish runs its argument, which does that,
// when the time has come, or does not.
func (s *stored) commit(publish func(func() error) error) error {
	closed := false
	err := publish(func() error {
		if err := s.ctx.Err(); err != nil {
			return err
		}
		closed = true
		return s.inner.Close()
	})
	if !closed {
		s.abort()
	}
	s.cancel()
	return err
}

// writer is a driver's writer of plaintext.
type writer struct {
	stored *stored
	body   io.WriteCloser
	done   bool
	err    error
}

func (w *writer) Write(p []byte) (int, error) { return w.body.Write(p) }

// Upload implements [driver.Uploader]: what it reads comes in large pieces, which
// are encrypted on several cores.
func (w *writer) Upload(r io.Reader) error {
	_, err := io.Copy(w.body, r)
	if err != nil {
		w.fail(err) // gocloud closes the writer next, which must not commit
	}
	return err
}

// fail ends the write with its first error.
func (w *writer) fail(err error) error {
	if !w.done {
		w.done, w.err = true, err
		w.stored.abort()
	}
	return w.err
}

// Close commits the object, if everything before succeeded and ctx still is.
func (w *writer) Close() error {
	if w.done {
		return w.err
	}
	if err := w.body.Close(); err != nil {
		return w.fail(err)
	}
	w.done = true
	s := w.stored
	w.err = s.commit(func(fn func() error) error { return s.b.locks.commit(s.ctx, s.key, fn) })
	return w.err
}
