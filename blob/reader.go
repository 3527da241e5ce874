package blob

import (
	"bytes"
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

// reader is a driver's reader of plaintext.
type reader struct {
	io.Reader
	get   *getter
	attrs driver.ReaderAttributes
	env   *sse.Envelope  // nil for a plain object
	inner *gcblob.Reader // for As
}

func (r *reader) Attributes() *driver.ReaderAttributes { return &r.attrs }

// As gives the object's envelope, and the types of the inner bucket.
func (r *reader) As(i any) bool {
	if p, ok := i.(**sse.Envelope); ok && r.env != nil {
		*p = r.env
		return true
	}
	return i != nil && r.inner.As(i)
}

// Download implements [driver.Downloader]. It decrypts on several cores.
func (r *reader) Download(w io.Writer) error {
	_, err := io.Copy(w, r.Reader)
	return err
}

func (r *reader) Close() error { return r.get.close() }

// NewRangeReader implements [driver.Bucket].
func (d *bucketDriver) NewRangeReader(ctx context.Context, key string, offset, length int64, opts *driver.ReaderOptions) (driver.Reader, error) {
	if err := d.b.store.CheckKey(key); err != nil {
		return nil, err
	}
	open := func(g *getter) (*reader, *sse.Envelope, error) { return g.readRange(offset, length) }
	if offset == 0 && length < 0 {
		open = (*getter).readWhole
	}
	var before *sse.Envelope
	alike := 0 // attempts in a row that failed as torn with the same envelope
	for attempt := 1; ; attempt++ {
		g := d.b.getter(ctx, key, opts.BeforeRead)
		r, env, err := open(g)
		if err == nil {
			return r, nil
		}
		g.close()
		// Requests that met two versions of the object look like damage. If three
		// attempts meet the same envelope, nobody replaced the object, and it is
		// damaged. A store of files publishes metadata before content and so also
		// shows two versions at once.
		torn := env != nil && errors.Is(err, sse.ErrCorrupt)
		switch {
		case !torn:
			alike = 0
		case stored.SameEnvelope(before, env):
			alike++
		default:
			alike = 1
		}
		before = env
		retry := errors.Is(err, ErrChanged) || errors.Is(err, stored.ErrDamaged) || torn && alike < 3
		switch {
		case !retry:
			return nil, err
		case attempt == stored.MaxTries && torn:
			return nil, fmt.Errorf("%w: %v", ErrChanged, err)
		case attempt == stored.MaxTries:
			return nil, err
		}
		if errors.Is(err, stored.ErrDamaged) {
			store.Pause(ctx, attempt)
		}
	}
}

// reader returns the driver's reader of a plaintext of size bytes. inner is the
// request that tells the object's attributes.
func (g *getter) reader(plaintext io.Reader, size int64, env *sse.Envelope, inner *gcblob.Reader) *reader {
	return &reader{Reader: plaintext, get: g, env: env, inner: inner, attrs: driver.ReaderAttributes{
		ContentType: inner.ContentType(), ModTime: inner.ModTime(), Size: size,
	}}
}

// readWhole opens the object with one request, unless it is plain or composite. It
// returns the envelope also with an error, if it got so far.
func (g *getter) readWhole() (*reader, *sse.Envelope, error) {
	inner, err := g.open(anyVersion, 0, -1)
	if err != nil {
		return nil, nil, err
	}
	env, body, err := stored.ReadEnvelope(inner, g.b.store.EnvelopeSize)
	switch {
	case errors.Is(err, ErrPlain):
		r, err := g.plainWhole(inner, body)
		return r, nil, err
	case errors.Is(err, sse.ErrComposite):
		return g.compositeWhole(inner, body)
	case err != nil:
		return nil, nil, err
	}
	size, err := stored.PlaintextSize(inner.Size(), env.Size())
	if err != nil {
		return nil, env, err
	}
	d, err := g.b.decrypt(g.ctx, g.key, env)
	if err != nil {
		return nil, env, err
	}
	end := &endReader{rest: d.Reader(body), left: size}
	if size == 0 { // nobody reads from a reader of nothing
		if end.err = end.proveEnd(); end.err != io.EOF {
			return nil, env, end.err
		}
	}
	return g.reader(end, size, env, inner), env, nil
}

// plainWhole reads a plain object, which inner reads and whose content so far is in
// content. It must ask for the object's metadata before it can serve the object, and
// so ends the request first.
func (g *getter) plainWhole(inner *gcblob.Reader, content io.Reader) (*reader, error) {
	if err := g.b.admitPlain(); err != nil {
		return nil, err
	}
	seen := store.VersionRead(inner)
	if seen.Size >= 0 && seen.Size <= drainSize {
		data, err := io.ReadAll(stored.ExactReader(content, seen.Size, ErrChanged))
		if err != nil {
			return nil, err
		}
		g.end()
		if err := g.checkPlain(seen); err != nil {
			return nil, err
		}
		return g.reader(bytes.NewReader(data), seen.Size, nil, inner), nil
	}
	g.end()
	if err := g.checkPlain(seen); err != nil {
		return nil, err
	}
	inner, err := g.open(seen, 0, -1)
	if err != nil {
		return nil, err
	}
	_, content, err = stored.ReadEnvelope(inner, stored.MinEnvelopeSize)
	switch {
	case err == nil || errors.Is(err, sse.ErrFormat) && !errors.Is(err, ErrPlain):
		return nil, ErrChanged // it has been encrypted
	case !errors.Is(err, ErrPlain):
		return nil, err
	}
	return g.reader(content, inner.Size(), nil, inner), nil
}

// admitPlain returns nil if the bucket and the request accept plain objects.
func (b *Bucket) admitPlain() error {
	if !b.opts.AllowPlain {
		return ErrPlain
	}
	if b.req.needsEncryption() {
		return errNotEncrypted
	}
	return nil
}

// checkPlain returns nil if the object, which does not begin with an envelope, may
// be read as it is. Only the metadata tells a plain object from an encrypted one
// whose envelope was damaged.
func (g *getter) checkPlain(seen stored.Version) error {
	attrs, err := g.b.store.AttributesOf(g.ctx, g.key, seen)
	if err != nil {
		return err
	}
	if _, hinted := stored.ParseHint(attrs.Metadata); hinted {
		return stored.ErrDamaged
	}
	return nil
}
