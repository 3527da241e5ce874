package store

import (
	"context"

	gcblob "gocloud.dev/blob"
)

// Source reads one version of a stored object, to copy it or to put another object in
// its place. It holds at most one response.
type Source struct {
	Key   string
	Attrs *gcblob.Attributes

	store *Store
	opts  *gcblob.ReaderOptions
	held  *gcblob.Reader // the response that is being read, or nil
}

// Source returns the Source of the version of the object at key that is there now. opts
// are those of its requests.
func (s *Store) Source(ctx context.Context, key string, opts *gcblob.ReaderOptions) (*Source, error) {
	attrs, err := s.Inner.Attributes(ctx, key)
	if err != nil {
		return nil, OpenError(err)
	}
	return &Source{Key: key, Attrs: attrs, store: s, opts: opts}, nil
}

// Open begins to read the first n bytes of the object, or all of them if n is negative.
func (o *Source) Open(ctx context.Context, n int64) (*gcblob.Reader, error) {
	o.Close()
	r, err := o.store.OpenVersion(ctx, o.Key, VersionOf(o.Attrs), 0, n, o.opts)
	if err != nil {
		return nil, err
	}
	o.held = r
	if r.Size() < 0 {
		return nil, ErrUnpacked
	}
	return r, nil
}

// Trailer reads the trailer of a composite object.
func (o *Source) Trailer(ctx context.Context) (*Trailer, error) {
	o.Close()
	return o.store.Trailer(ctx, o.Key, VersionOf(o.Attrs), nil)
}

// Close ends the response that is being read.
func (o *Source) Close() {
	if o.held != nil {
		o.held.Close()
		o.held = nil
	}
}
