package blob

import (
	"context"
	"errors"
	"io"

	gcblob "gocloud.dev/blob"
	"gocloud.dev/blob/driver"

	"github.com/blobseal/blobseal/blob/internal/store"
	"github.com/blobseal/blobseal/blob/stored"
	"github.com/blobseal/blobseal/sse"
)

// CopyFrom copies the object at srcKey of src to dstKey of b. The source is opened as
// src opens it, and the copy is sealed as b seals it: to copy between two customer
// keys, call it with two results of [Bucket.With]. The body passes through as
// ciphertext.
//
// The copy gets b's context. It keeps the source's if b's request has AnyContext.
func (b *Bucket) CopyFrom(ctx context.Context, dstKey string, src *Bucket, srcKey string, opts *gcblob.CopyOptions) error {
	copier := gcblob.NewBucket(&bucketDriver{b: b, source: src})
	defer copier.Close()
	return copier.Copy(ctx, dstKey, srcKey, opts)
}

// Copy implements [driver.Bucket]. BeforeCopy is the hook of the write that makes the
// copy, and is called again if the source changes during the copy.
func (d *bucketDriver) Copy(ctx context.Context, dstKey, srcKey string, opts *driver.CopyOptions) error {
	c := &copying{from: d.b, to: d.b, src: srcKey, dst: dstKey, hook: opts.BeforeCopy}
	if d.source != nil {
		c.from = d.source
	}
	if err := errors.Join(c.from.store.CheckKey(srcKey), c.to.store.CheckKey(dstKey)); err != nil {
		return err
	}
	for attempt := 1; ; attempt++ {
		err := c.run(ctx)
		switch {
		case attempt == stored.MaxTries:
			return err
		case errors.Is(err, stored.ErrDamaged): // nothing was written
			store.Pause(ctx, attempt)
		case !errors.Is(err, ErrChanged):
			return err
		}
	}
}

// copying is one copy.
type copying struct {
	from, to *Bucket
	src, dst string
	hook     func(as func(any) bool) error // of the write
}

// run copies what is at the source now. It returns [ErrChanged], and has written
// nothing, if another writer replaced the source meanwhile.
func (c *copying) run(ctx context.Context) error {
	watch := c.from.store.Locks.Watch(c.src)
	defer watch.End()
	source, err := c.from.store.Source(ctx, c.src, nil)
	if err != nil {
		return err
	}
	defer source.Close()
	w, err := c.write(ctx, source)
	if err != nil {
		return err
	}
	source.Close()
	return w.Commit(func(publish func() error) error { return c.publish(ctx, watch, source.Attrs, publish) })
}

// write writes the copy of the source, and does not commit it.
func (c *copying) write(ctx context.Context, source *store.Source) (*store.Writer, error) {
	r, err := source.Open(ctx, -1)
	if err != nil {
		return nil, err
	}
	opts := store.OptionsLike(source.Attrs)
	opts.BeforeWrite = c.beforeWrite(source.Attrs)
	env, body, err := stored.ReadEnvelope(r, c.from.store.EnvelopeSize)
	switch {
	case errors.Is(err, ErrPlain):
		return c.writePlain(ctx, source.Attrs, body, opts)
	case errors.Is(err, sse.ErrComposite):
		return c.resealComposite(ctx, source, opts)
	case err != nil:
		return nil, err
	}
	return c.reseal(ctx, source.Attrs, env, body, opts)
}

// publish makes the copy visible if the version of the source that was there before
// it was read is still there, and so is the version that was read. No response is held
// by now.
func (c *copying) publish(ctx context.Context, watch *stored.Watch, attrs *gcblob.Attributes, publish func() error) error {
	if !c.replacesSource() {
		if err := c.from.store.CheckUnchanged(ctx, c.src, attrs, nil); err != nil {
			return err
		}
		return c.to.store.Commit(ctx, c.dst, publish)
	}
	return c.to.store.Change(ctx, watch, func(changed bool) error {
		if changed {
			return ErrChanged
		}
		if err := c.from.store.CheckUnchanged(ctx, c.src, attrs, nil); err != nil {
			return err
		}
		return publish()
	})
}

// replacesSource reports whether the copy replaces its source.
func (c *copying) replacesSource() bool {
	return c.src == c.dst && c.from.store.Inner == c.to.store.Inner
}

// beforeWrite returns the hook of the write. A copy of an object onto itself must not
// replace a newer version.
func (c *copying) beforeWrite(attrs *gcblob.Attributes) func(func(any) bool) error {
	condition := c.to.store.IfUnchanged
	if condition == nil || !c.replacesSource() {
		return c.hook
	}
	return func(as func(any) bool) error {
		if err := condition(as, attrs); err != nil || c.hook == nil {
			return err
		}
		return c.hook(as)
	}
}

// reseal writes the copy of an encrypted object.
func (c *copying) reseal(ctx context.Context, attrs *gcblob.Attributes, env *sse.Envelope, body io.Reader, opts *gcblob.WriterOptions) (*store.Writer, error) {
	if _, err := stored.PlaintextSize(attrs.Size, env.Size()); err != nil {
		return nil, err
	}
	_, sealed, err := c.rewrap(ctx, env)
	if err != nil {
		return nil, err
	}
	if sealed, err = c.to.store.Fit(sealed); err != nil {
		return nil, err
	}
	w, err := c.to.store.Create(ctx, c.dst, sealed, opts)
	if err != nil {
		return nil, err
	}
	if _, err := io.Copy(w, stored.ExactReader(body, attrs.Size-int64(env.Size()), sse.ErrTruncated)); err != nil {
		w.Abort()
		return nil, err
	}
	return w, nil
}

// rewrap opens the source's envelope and seals its data key for the copy.
func (c *copying) rewrap(ctx context.Context, env *sse.Envelope) (*sse.Decryption, *sse.Envelope, error) {
	if err := c.to.precheck(c.to.store.Cipher); err != nil {
		return nil, nil, err
	}
	d, err := c.from.decrypt(ctx, c.src, env)
	if err != nil {
		return nil, nil, err
	}
	sealed, err := c.to.store.Cipher.Rewrap(ctx, c.to.object(c.dst), d)
	return d, sealed, store.KeyError(err)
}

// resealComposite writes the copy of an object that was uploaded in parts. The new
// envelope is at the end of the copy, and its hint at the beginning of the write, so
// the trailer comes first.
func (c *copying) resealComposite(ctx context.Context, source *store.Source, opts *gcblob.WriterOptions) (*store.Writer, error) {
	t, err := source.Trailer(ctx)
	if err != nil {
		return nil, err
	}
	d, sealed, err := c.rewrap(ctx, t.Envelope())
	if err != nil {
		return nil, err
	}
	if _, err := t.Open(d); err != nil { // the stored size is wrong
		return nil, err
	}
	tail, err := c.to.store.Replace(t, sealed)
	if err != nil {
		return nil, err
	}
	parts, err := source.Open(ctx, tail.Off)
	if err != nil {
		return nil, err
	}
	w, err := c.to.store.CreateComposite(ctx, c.dst, sealed, opts)
	if err != nil {
		return nil, err
	}
	if _, err := io.Copy(w, t.Copy(parts, tail)); err != nil {
		w.Abort()
		return nil, err
	}
	return w, nil
}

// writePlain writes the copy of a plain object, as the bucket writes any content.
func (c *copying) writePlain(ctx context.Context, attrs *gcblob.Attributes, content io.Reader, opts *gcblob.WriterOptions) (*store.Writer, error) {
	if err := c.from.admitPlain(); err != nil {
		return nil, err
	}
	if _, hinted := stored.ParseHint(attrs.Metadata); hinted {
		return nil, stored.ErrDamaged
	}
	w, body, err := c.to.create(ctx, c.dst, opts)
	if err != nil {
		return nil, err
	}
	_, err = io.Copy(body, stored.ExactReader(content, attrs.Size, store.ErrSize))
	if err == nil {
		err = body.Close()
	}
	if err != nil {
		w.Abort()
		return nil, err
	}
	return w, nil
}
