package blob

import (
	"context"
	"fmt"
	"io"
	"reflect"

	gcblob "gocloud.dev/blob"
	"gocloud.dev/blob/driver"

	"github.com/blobseal/blobseal/blob/internal/store"
	"github.com/blobseal/blobseal/blob/stored"
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
	if err := stored.CheckMetadata(opts.Metadata); err != nil {
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
	w, err := b.store.Create(ctx, key, env, &gcblob.WriterOptions{
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
		w.Abort()
		return nil, errLate
	}
	req.Envelope = env
	return &writer{b: b, ctx: ctx, key: key, object: w, body: enc.Writer(w)}, nil
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
	obj := b.store.Object(key)
	obj.Context = req.Context
	e, err := enc.Encrypt(ctx, obj)
	if err != nil {
		return nil, nil, store.KeyError(err)
	}
	env, err := b.store.Fit(e.Envelope())
	return e, env, err
}

// admit checks a new envelope against the policy.
func (b *Bucket) admit(env *sse.Envelope) error {
	_, err := b.opts.Policy.check(env.Mode(), env.KeyID())
	return err
}

// writer is a driver's writer of plaintext.
type writer struct {
	b      *Bucket
	ctx    context.Context // of the write
	key    string
	object *store.Writer
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
		w.object.Abort()
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
	w.err = w.object.Commit(func(fn func() error) error { return w.b.store.Locks.Commit(w.ctx, w.key, fn) })
	return w.err
}
