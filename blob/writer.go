package blob

import (
	"context"
	"io"
	"log/slog"

	gcblob "gocloud.dev/blob"
	"gocloud.dev/blob/driver"

	"github.com/blobseal/blobseal/blob/internal/store"
	"github.com/blobseal/blobseal/blob/stored"
	"github.com/blobseal/blobseal/sse"
)

// NewTypedWriter implements [driver.Bucket].
//
// If a Write that sniffed the content type met an error here, gocloud's Close calls
// this again with the same opts. If that call succeeded, as when a key service is
// back, Close would publish an object without what the Write had. So the first
// error stays.
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
	if err := b.store.CheckKey(key); err != nil {
		return nil, err
	}
	if err := stored.CheckMetadata(opts.Metadata); err != nil {
		return nil, err
	}
	inner := &gcblob.WriterOptions{
		BufferSize:         opts.BufferSize,
		MaxConcurrency:     opts.MaxConcurrency,
		CacheControl:       opts.CacheControl,
		ContentDisposition: opts.ContentDisposition,
		ContentEncoding:    opts.ContentEncoding,
		ContentLanguage:    opts.ContentLanguage,
		ContentType:        contentType,
		Metadata:           opts.Metadata,
		BeforeWrite:        opts.BeforeWrite,
		IfNotExist:         opts.IfNotExist,
	}
	w := &writer{b: b, ctx: ctx, key: key}
	var err error
	if w.object, w.body, err = b.create(ctx, key, inner); err != nil {
		return nil, err
	}
	return w, nil
}

// create begins to write an object, encrypted unless the bucket writes plain ones. body
// takes its plaintext.
func (b *Bucket) create(ctx context.Context, key string, opts *gcblob.WriterOptions) (object *store.Writer, body io.WriteCloser, err error) {
	if b.opts.WritePlain && !b.req.needsEncryption() {
		slog.WarnContext(ctx, "blob: writing an object unencrypted (Options.WritePlain)", "bucket", b.Name(), "key", key)
		object, err = b.store.CreatePlain(ctx, key, opts)
		return object, unclosed{object}, err
	}
	if err := b.precheck(b.store.Cipher); err != nil {
		return nil, nil, err
	}
	enc, err := b.store.Cipher.Encrypt(ctx, b.newObject(key))
	if err != nil {
		return nil, nil, store.KeyError(err)
	}
	env, err := b.store.Fit(enc.Envelope())
	if err != nil {
		return nil, nil, err
	}
	opts.BeforeWrite = withEnvelope(opts.BeforeWrite, env)
	if object, err = b.store.Create(ctx, key, env, opts); err != nil {
		return nil, nil, err
	}
	return object, enc.Writer(object), nil
}

// unclosed is a writer whose Close does nothing.
type unclosed struct{ io.Writer }

func (unclosed) Close() error { return nil }

// withEnvelope lets a BeforeWrite hook ask for the envelope of what is written,
// besides the types of the inner bucket.
func withEnvelope(hook func(func(any) bool) error, env *sse.Envelope) func(func(any) bool) error {
	if hook == nil {
		return nil
	}
	return func(as func(any) bool) error {
		return hook(func(i any) bool {
			if p, ok := i.(**sse.Envelope); ok {
				*p = env
				return true
			}
			return i != nil && as(i)
		})
	}
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

// Upload implements [driver.Uploader]. It encrypts on several cores.
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

// Close commits the object if every call before it succeeded and ctx has not ended.
func (w *writer) Close() error {
	if w.done {
		return w.err
	}
	if err := w.body.Close(); err != nil {
		return w.fail(err)
	}
	w.done = true
	w.err = w.object.Commit(func(publish func() error) error {
		return w.b.store.Commit(w.ctx, w.key, publish)
	})
	return w.err
}
