package blob

import (
	"cmp"
	"context"
	"errors"

	gcblob "gocloud.dev/blob"
	"gocloud.dev/blob/driver"
	"gocloud.dev/gcerrors"
	"golang.org/x/sync/errgroup"

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
// objects from before it was changed, whose sizes only a look tells. So does the size
// of an object that was uploaded in parts.
func (b *Bucket) listSizes(ctx context.Context, objects []*driver.ListObject) error {
	if b.opts.AllowPlain || b.opts.LookWhenListing {
		return b.lookAt(ctx, objects)
	}
	var unknown []*driver.ListObject
	for _, o := range objects {
		size, err := stored.PlaintextSize(o.Size, b.store.EnvelopeSize)
		switch {
		case o.IsDir:
		case b.store.EnvelopeSize != DefaultEnvelopeSize:
			o.Size = -1
		case err != nil:
			unknown = append(unknown, o)
		default:
			o.Size = size
		}
	}
	return b.lookAt(ctx, unknown)
}

// lookAt sets the objects' sizes by a look at each.
func (b *Bucket) lookAt(ctx context.Context, objects []*driver.ListObject) error {
	looks, looking := errgroup.WithContext(ctx)
	looks.SetLimit(parallelLooks)
	for _, o := range objects {
		if o.IsDir || o.Size < stored.MinEnvelopeSize {
			continue
		}
		looks.Go(func() error {
			if looking.Err() != nil {
				return looking.Err()
			}
			return b.look(looking, o)
		})
	}
	err := looks.Wait()
	return cmp.Or(ctx.Err(), err) // gocloud knows the code of ctx's error, but not what the store makes of it
}

// look sets an object's size from its envelope or its trailer, or from its hint if the
// object cannot be read, as when it is archived. An object without either keeps its
// stored size. That of a composite object that cannot be read is -1.
func (b *Bucket) look(ctx context.Context, o *driver.ListObject) error {
	seen, err := b.store.Head(ctx, o.Key, o.Size)
	switch {
	case err == nil: // of this version, even if the listing shows an older one
		if o.Size = seen.Stored; seen.Measure() == nil {
			o.Size = seen.Size
		}
		return nil
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
		size, err := stored.PlaintextSize(attrs.Size, hint.EnvelopeSize) // of one version
		switch o.Size = attrs.Size; {
		case hint.Composite:
			o.Size = -1
		case err == nil && hint.EnvelopeSize > 0:
			o.Size = size
		}
		return nil
	}
}
