package blob

import (
	"cmp"
	"context"
	"errors"

	gcblob "gocloud.dev/blob"
	"gocloud.dev/blob/driver"
	"gocloud.dev/gcerrors"

	"github.com/blobseal/blobseal/blob/internal/store"
	"github.com/blobseal/blobseal/blob/stored"
	"github.com/blobseal/blobseal/sse"
)

// bucketDriver implements gocloud's driver on the public API of the inner bucket.
type bucketDriver struct {
	b      *Bucket
	source *Bucket // of copies, if it is not b
}

var _ driver.Bucket = (*bucketDriver)(nil)

func (d *bucketDriver) ErrorCode(err error) gcerrors.ErrorCode { return errorCode(err) }

// As gives the *Bucket, its Store to packages of this module, and the types of the
// inner bucket.
func (d *bucketDriver) As(i any) bool {
	switch p := i.(type) {
	case **Bucket:
		*p = d.b
		return true
	case **store.Store:
		*p = d.b.store
		return true
	}
	return i != nil && d.b.store.Inner.As(i)
}

// ErrorAs gives the types of the inner bucket's errors, at any depth.
func (d *bucketDriver) ErrorAs(err error, i any) bool {
	if err == nil {
		return false
	}
	if d.b.store.Inner.ErrorAs(err, i) {
		return true
	}
	switch wrapper := err.(type) {
	case interface{ Unwrap() error }:
		return d.ErrorAs(wrapper.Unwrap(), i)
	case interface{ Unwrap() []error }:
		for _, err := range wrapper.Unwrap() {
			if d.ErrorAs(err, i) {
				return true
			}
		}
	}
	return false
}

// Attributes implements [driver.Bucket]. It takes one request to the store if the object's
// metadata has the hint, and two more, at once, if the object was uploaded in parts.
func (d *bucketDriver) Attributes(ctx context.Context, key string) (*driver.Attributes, error) {
	if err := d.b.store.CheckKey(key); err != nil {
		return nil, err
	}
	a, hint, size, err := d.b.attributes(ctx, key)
	if err != nil {
		return nil, err
	}
	return &driver.Attributes{
		CacheControl:       a.CacheControl,
		ContentDisposition: a.ContentDisposition,
		ContentEncoding:    cmp.Or(a.Metadata[stored.ContentEncoding], a.ContentEncoding),
		ContentLanguage:    a.ContentLanguage,
		ContentType:        a.ContentType,
		Metadata:           stored.CallerMetadata(a.Metadata),
		CreateTime:         a.CreateTime,
		ModTime:            a.ModTime,
		Size:               size,
		ETag:               a.ETag,
		AsFunc: func(i any) bool {
			if p, ok := i.(*stored.Hint); ok && hint.Mode != 0 {
				*p = hint
				return true
			}
			return i != nil && a.As(i)
		},
	}, nil
}

// attributes returns a stored object's attributes, its hint, and the size of what
// is in it, of one version.
func (b *Bucket) attributes(ctx context.Context, key string) (*gcblob.Attributes, stored.Hint, int64, error) {
	for attempt := 1; ; attempt++ {
		a, err := b.store.Inner.Attributes(ctx, key)
		if err != nil {
			return nil, stored.Hint{}, 0, store.OpenError(err)
		}
		hint, size, err := b.describe(ctx, key, a)
		looksDamaged := errors.Is(err, stored.ErrDamaged) || errors.Is(err, sse.ErrTruncated)
		if !errors.Is(err, ErrChanged) && !looksDamaged || attempt == stored.MaxTries {
			return a, hint, size, err
		}
		if looksDamaged {
			store.Pause(ctx, attempt)
		}
	}
}

// describe returns what the envelope of a stored object says, and the size of what
// is in the object: by its hint, if that can be right, or by a look at it, which may
// be [ErrChanged]. The hint of a plain object is zero.
func (b *Bucket) describe(ctx context.Context, key string, a *gcblob.Attributes) (stored.Hint, int64, error) {
	hint, hinted := stored.ParseHint(a.Metadata)
	if hint.EnvelopeSize > 0 {
		if size, err := stored.PlaintextSize(a.Size, hint.EnvelopeSize); err == nil {
			return hint, size, nil
		}
	}
	if hint.Composite {
		t, err := b.store.Trailer(ctx, key, store.VersionOf(a), nil)
		if err == nil {
			return stored.HintOf(t.Envelope()), t.Size(), nil
		}
		if !errors.Is(err, sse.ErrFormat) { // a hint of another version, perhaps
			return stored.Hint{}, 0, err
		}
	}
	o, err := b.store.Head(ctx, key, a.Size)
	switch {
	case err != nil && !errors.Is(err, ErrPlain):
		return stored.Hint{}, 0, err
	case !o.Version().Same(store.VersionOf(a)):
		return stored.Hint{}, 0, ErrChanged
	case err == nil:
		err := o.Measure()
		return stored.HintOf(o.Envelope), o.Size, err
	case !b.opts.AllowPlain:
		return stored.Hint{}, 0, ErrPlain
	case hinted:
		return stored.Hint{}, 0, stored.ErrDamaged
	}
	return stored.Hint{}, a.Size, nil
}

// Delete implements [driver.Bucket].
func (d *bucketDriver) Delete(ctx context.Context, key string, opts *driver.DeleteOptions) error {
	if err := d.b.store.CheckKey(key); err != nil {
		return err
	}
	return d.b.store.Commit(ctx, key, func() error {
		return store.OpenError(d.b.store.Inner.DeleteWithOptions(ctx, key, &gcblob.DeleteOptions{BeforeDelete: opts.BeforeDelete}))
	})
}

// SignedURL implements [driver.Bucket].
func (d *bucketDriver) SignedURL(ctx context.Context, key string, opts *driver.SignedURLOptions) (string, error) {
	if d.b.opts.Signer == nil {
		return "", errNoSigner
	}
	if opts.BeforeSign != nil {
		if err := opts.BeforeSign(func(any) bool { return false }); err != nil {
			return "", err
		}
	}
	return d.b.opts.Signer.SignedURL(ctx, key, opts)
}

// Close leaves the inner bucket open: who opened it closes it. Package bloburl has
// opened it by a URL, and says so by OnClose.
func (d *bucketDriver) Close() error {
	if d.b.store.OnClose == nil || d.source != nil {
		return nil
	}
	return d.b.store.OnClose()
}
