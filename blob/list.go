package blob

import (
	"context"
	"errors"
	"sync"

	gcblob "gocloud.dev/blob"
	"gocloud.dev/blob/driver"
	"gocloud.dev/gcerrors"

	"github.com/blobseal/blobseal/blob/internal/store"
	"github.com/blobseal/blobseal/blob/stored"
	"github.com/blobseal/blobseal/sse"
)

const (
	defaultPageSize = 1000
	parallelLooks   = 16
)

// ListPaged implements [driver.Bucket].
func (d *bucketDriver) ListPaged(ctx context.Context, opts *driver.ListOptions) (*driver.ListPage, error) {
	token, size := opts.PageToken, opts.PageSize
	if len(token) == 0 {
		token = gcblob.FirstPageToken
	}
	if size == 0 {
		size = defaultPageSize
	}
	objects, next, err := d.b.store.Inner.ListPage(ctx, token, size, &gcblob.ListOptions{
		Prefix: opts.Prefix, Delimiter: opts.Delimiter, BeforeList: opts.BeforeList,
	})
	if err != nil {
		return nil, store.OpenError(err)
	}
	page := &driver.ListPage{NextPageToken: next, Objects: make([]*driver.ListObject, len(objects))}
	for i, o := range objects {
		page.Objects[i] = &driver.ListObject{
			Key: o.Key, ModTime: o.ModTime, Size: o.Size, IsDir: o.IsDir,
			AsFunc: func(i any) bool { return i != nil && o.As(i) },
		}
	}
	return page, d.b.listSizes(ctx, page.Objects)
}

// listSizes sets the objects' sizes to those of their plaintexts: by arithmetic, or by
// a look at each object. A bucket whose envelope size is not the default may hold
// objects from before it was changed, whose sizes only a look tells.
func (b *Bucket) listSizes(ctx context.Context, objects []*driver.ListObject) error {
	if !b.opts.AllowPlain && !b.opts.LookWhenListing {
		for _, o := range objects {
			size, err := stored.PlaintextSize(o.Size, b.store.EnvelopeSize)
			switch {
			case o.IsDir:
			case b.store.EnvelopeSize != DefaultEnvelopeSize:
				o.Size = -1
			case err == nil:
				o.Size = size
			}
		}
		return nil
	}
	parent := ctx
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var looks sync.WaitGroup
	slots := make(chan struct{}, parallelLooks)
	for _, o := range objects {
		if o.IsDir || o.Size < stored.MinEnvelopeSize {
			continue
		}
		slots <- struct{}{}
		looks.Go(func() {
			defer func() { <-slots }()
			if ctx.Err() != nil {
				return
			}
			if err := b.look(ctx, o); err != nil {
				cancel(err)
			}
		})
	}
	looks.Wait()
	if err := parent.Err(); err != nil {
		return err // gocloud knows its code, but not its cause's
	}
	return context.Cause(ctx)
}

// look sets an object's size from its envelope, or from its hint if the object cannot be
// read, as when it is archived. An object without either keeps its stored size.
func (b *Bucket) look(ctx context.Context, o *driver.ListObject) error {
	var envelope int
	seen, err := b.store.Head(ctx, o.Key, o.Size)
	switch {
	case err == nil: // of this version, even if the listing shows an older one
		o.Size, envelope = seen.Stored, seen.Envelope.Size()
	case errors.Is(err, ErrPlain) && seen.Stored >= 0:
		o.Size = seen.Stored
		return nil
	case errors.Is(err, sse.ErrFormat) || errors.Is(err, sse.ErrVersion) || gcerrors.Code(err) == gcerrors.NotFound:
		return nil
	default:
		attrs, headErr := b.store.Inner.Attributes(ctx, o.Key)
		if headErr != nil {
			return err
		}
		hint, _ := stored.ParseHint(attrs.Metadata)
		o.Size, envelope = attrs.Size, hint.EnvelopeSize // of one version
	}
	if size, err := stored.PlaintextSize(o.Size, envelope); err == nil && envelope > 0 {
		o.Size = size
	}
	return nil
}
