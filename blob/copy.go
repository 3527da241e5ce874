package blob

import (
	"context"
	"errors"
	"fmt"
	"io"

	gcblob "gocloud.dev/blob"
	"gocloud.dev/blob/driver"

	"github.com/blobseal/blobseal/blob/internal/store"
	"github.com/blobseal/blobseal/blob/stored"
	"github.com/blobseal/blobseal/sse"
)

// Copy implements [driver.Bucket]. The body is copied as it is, under an envelope
// that is sealed anew for the copy.
func (d *bucketDriver) Copy(ctx context.Context, dstKey, srcKey string, opts *driver.CopyOptions) error {
	req := new(CopyRequest)
	hook := callHook(opts.BeforeCopy, func(i any) bool {
		p, ok := i.(**CopyRequest)
		if ok {
			*p = req
		}
		return ok
	})
	defer hook.stop()
	if !hook.held && hook.err != nil {
		return hook.err
	}
	c := &copying{b: d.b, dst: dstKey, src: srcKey, req: *req, hook: hook.inner()}
	c.late = func() bool {
		return !same(c.req.Cipher, req.Cipher) || !c.req.Context.Equal(req.Context) ||
			!same(c.req.Source.Decrypter, req.Source.Decrypter) || !c.req.Source.Context.Equal(req.Source.Context)
	}
	for attempt := 1; ; attempt++ {
		err := c.run(ctx)
		switch {
		case errors.Is(err, stored.ErrDamaged) && attempt < store.MaxTries: // nothing was written
			store.Pause(ctx, attempt)
		case !errors.Is(err, ErrChanged) || attempt == store.MaxTries || c.hook != nil: // which cannot be called twice
			return err
		}
	}
}

// copying is one copy.
type copying struct {
	b        *Bucket
	dst, src string
	req      CopyRequest
	hook     func(as func(any) bool) error // of the inner write
	late     func() bool                   // whether the hook changed req when it was too late
}

// run copies what is at the source now. It returns [ErrChanged], and has written
// nothing, if that was replaced meanwhile.
func (c *copying) run(ctx context.Context) error {
	b := c.b
	watch := b.store.Locks.Watch(c.src)
	defer watch.End()
	attrs, err := b.store.Inner.Attributes(ctx, c.src)
	if err != nil {
		return store.OpenError(err)
	}
	r, err := b.store.Open(ctx, c.src, 0, -1, nil)
	if err != nil {
		return err
	}
	defer r.Close()
	if r.Size() < 0 {
		return store.ErrUnpacked
	}
	if !store.VersionRead(r).Same(store.VersionOf(attrs)) {
		return ErrChanged
	}
	env, body, err := stored.ReadEnvelope(r, b.store.EnvelopeSize)
	opts := store.OptionsLike(attrs)
	opts.BeforeWrite = c.before(attrs)
	var s *store.Writer
	switch {
	case errors.Is(err, ErrPlain):
		s, err = c.encrypt(ctx, attrs, body, opts)
	case err == nil:
		s, err = c.reseal(ctx, attrs, env, body, opts)
	}
	if err != nil {
		return err
	}
	if c.hook != nil && c.late() {
		s.Abort()
		return errLate
	}
	// The source is read to its end by now, so no response is held. If the version
	// that was there before is still there, that version was read.
	unchanged := func() error {
		now, err := b.store.Inner.Attributes(ctx, c.src)
		if err != nil {
			return store.OpenError(err)
		}
		if !store.VersionOf(now).Same(store.VersionOf(attrs)) {
			return ErrChanged
		}
		return nil
	}
	return s.Commit(func(fn func() error) error {
		if c.src != c.dst {
			if err := unchanged(); err != nil {
				return err
			}
			return b.store.Locks.Commit(ctx, c.dst, fn)
		}
		return watch.Change(ctx, func(changed bool) error {
			if changed {
				return ErrChanged
			}
			if err := unchanged(); err != nil {
				return err
			}
			return fn()
		})
	})
}

// before is the hook of the inner write. A copy of an object onto itself must
// not replace a newer one.
func (c *copying) before(attrs *gcblob.Attributes) func(func(any) bool) error {
	condition := c.b.opts.IfUnchanged
	if condition == nil || c.src != c.dst {
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
	b := c.b
	if _, err := stored.PlaintextSize(attrs.Size, env.Size()); err != nil {
		return nil, err
	}
	cipher := b.store.Cipher
	if c.req.Cipher != nil {
		cipher = c.req.Cipher
	}
	if _, err := b.opts.Policy.precheck(cipher); err != nil {
		return nil, err
	}
	d, err := b.decrypt(ctx, c.src, env, &c.req.Source)
	if err != nil {
		return nil, err
	}
	obj := b.store.Object(c.dst)
	obj.Context, obj.AnyContext = c.req.Context, c.req.Context == nil
	env2, err := cipher.Rewrap(ctx, obj, d)
	if err != nil {
		return nil, store.KeyError(err)
	}
	if env2, err = b.store.Fit(env2); err != nil {
		return nil, err
	}
	s, err := b.store.Create(ctx, c.dst, env2, opts)
	if err != nil {
		return nil, err
	}
	n, err := io.Copy(s, body)
	if want := attrs.Size - int64(env.Size()); err == nil && n != want {
		err = fmt.Errorf("%w: %d of %d bytes of the body came", sse.ErrTruncated, n, want)
	}
	if err != nil {
		s.Abort()
		return nil, err
	}
	return s, nil
}

// encrypt writes the copy of a plain object, which is encrypted.
func (c *copying) encrypt(ctx context.Context, attrs *gcblob.Attributes, content io.Reader, opts *gcblob.WriterOptions) (*store.Writer, error) {
	b := c.b
	if !b.opts.AllowPlain {
		return nil, ErrPlain
	}
	if _, hinted := stored.ParseHint(attrs.Metadata); hinted {
		return nil, stored.ErrDamaged
	}
	if c.req.Source.brings() {
		return nil, errNotEncrypted
	}
	req := &WriteRequest{Cipher: c.req.encrypter(), Context: c.req.Context}
	enc, env, err := b.encrypt(ctx, c.dst, req)
	if err != nil {
		return nil, err
	}
	s, err := b.store.Create(ctx, c.dst, env, opts)
	if err != nil {
		return nil, err
	}
	w := enc.Writer(s)
	n, err := io.Copy(w, content)
	if err == nil && n != attrs.Size {
		err = fmt.Errorf("blob: %d of %d bytes of the source came: %w", n, attrs.Size, io.ErrUnexpectedEOF)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		s.Abort()
		return nil, err
	}
	return s, nil
}
