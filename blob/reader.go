package blob

import (
	"context"
	"errors"
	"io"
	"math"
	"sync"
	"time"

	gcblob "gocloud.dev/blob"
	"gocloud.dev/blob/driver"

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

// Download implements [driver.Downloader]: what it writes comes in large pieces,
// which are decrypted on several cores.
func (r *reader) Download(w io.Writer) error {
	_, err := io.Copy(w, r.Reader)
	return err
}

func (r *reader) Close() error { return r.get.close() }

// NewRangeReader implements [driver.Bucket].
func (d *bucketDriver) NewRangeReader(ctx context.Context, key string, offset, length int64, opts *driver.ReaderOptions) (driver.Reader, error) {
	if offset == 0 && length < 0 {
		return d.b.read(ctx, key, opts.BeforeRead)
	}
	var before *sse.Envelope
	for attempt := 1; ; attempt++ {
		r, env, err := d.b.readRange(ctx, key, offset, length, opts.BeforeRead)
		if err == nil {
			return r, nil
		}
		// Requests that met two versions of the object look like damage. It is
		// damage if the object is the same when one looks again.
		torn := errors.Is(err, ErrChanged) || errors.Is(err, sse.ErrCorrupt)
		if !torn || attempt == maxTries {
			return nil, err
		}
		if before != nil && env != nil {
			if same, _ := sameEnvelope(before, env); same && !errors.Is(err, ErrChanged) {
				return nil, err
			}
		}
		before = env
	}
}

// maxTries bounds how often a request of several inner ones is tried while
// others replace the object.
const maxTries = 4

// getter makes the inner requests of one read, and closes them.
type getter struct {
	b      *Bucket
	ctx    context.Context // of this read
	cancel context.CancelFunc
	key    string
	hook   func(as func(any) bool) error
	req    ReadRequest // what the hook's first call set; written before any request is answered

	mu    sync.Mutex // guards what follows, and calls of hook
	asked bool
	open  []*gcblob.Reader
}

func (b *Bucket) getter(ctx context.Context, key string, hook func(as func(any) bool) error) *getter {
	g := &getter{b: b, key: key, hook: hook}
	g.ctx, g.cancel = context.WithCancel(ctx)
	return g
}

// get begins a request for part of the stored object.
func (g *getter) get(off, n int64) (*gcblob.Reader, error) {
	var opts *gcblob.ReaderOptions
	if g.hook != nil {
		opts = &gcblob.ReaderOptions{BeforeRead: g.before}
	}
	r, err := g.b.inner.NewRangeReader(g.ctx, g.key, off, n, opts)
	if err != nil {
		return nil, openError(err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open = append(g.open, r)
	return r, nil
}

// before calls the caller's hook for one inner request.
func (g *getter) before(as func(any) bool) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	req := new(ReadRequest)
	err := g.hook(func(i any) bool {
		if p, ok := i.(**ReadRequest); ok {
			*p = req
			return true
		}
		return i != nil && as(i)
	})
	if !g.asked {
		g.asked, g.req = true, *req
	}
	return err
}

// close ends all requests.
func (g *getter) close() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	var errs []error
	for _, r := range g.open {
		errs = append(errs, r.Close())
	}
	g.open = nil
	g.cancel()
	return errors.Join(errs...)
}

// reader returns the driver's reader of a plaintext of size bytes. inner is the
// request that tells what else is to be told.
func (g *getter) reader(plaintext io.Reader, size int64, env *sse.Envelope, inner *gcblob.Reader) *reader {
	return &reader{Reader: plaintext, get: g, env: env, inner: inner, attrs: driver.ReaderAttributes{
		ContentType: inner.ContentType(), ModTime: inner.ModTime(), Size: size,
	}}
}

// decrypt opens the envelope with what the request brought, or as the bucket does.
func (g *getter) decrypt(env *sse.Envelope) (*sse.Decryption, error) {
	return g.b.decrypt(g.ctx, g.key, env, &g.req)
}

// decrypt opens the envelope of the object at key for a request.
func (b *Bucket) decrypt(ctx context.Context, key string, env *sse.Envelope, req *ReadRequest) (*sse.Decryption, error) {
	dec, _ := b.decrypter(env.Mode(), req)
	obj := b.object(key)
	obj.Context = req.Context
	d, err := dec.Decrypt(ctx, obj, env)
	return d, keyError(err)
}

// read opens the whole object with one inner request.
func (b *Bucket) read(ctx context.Context, key string, hook func(func(any) bool) error) (_ *reader, err error) {
	g := b.getter(ctx, key, hook)
	defer func() {
		if err != nil {
			g.close()
		}
	}()
	inner, err := g.get(0, -1)
	if err != nil {
		return nil, err
	}
	env, body, err := readEnvelope(inner, b.opts.EnvelopeSize)
	if errors.Is(err, ErrPlain) {
		if err := g.checkPlain(inner); err != nil {
			return nil, err
		}
		return g.reader(body, inner.Size(), nil, inner), nil
	}
	if err != nil {
		return nil, err
	}
	size, err := plainSize(inner.Size(), env.Size())
	if err != nil {
		return nil, err
	}
	d, err := g.decrypt(env)
	if err != nil {
		return nil, err
	}
	return g.reader(d.Reader(body), size, env, inner), nil
}

// checkPlain returns nil if the object, which does not begin with an envelope,
// may be read as it is. Only its metadata can tell it from an encrypted one whose
// envelope was damaged.
func (g *getter) checkPlain(r *gcblob.Reader) error {
	if !g.b.opts.AllowPlain {
		return ErrPlain
	}
	if g.req.brings() {
		return errNotEncrypted
	}
	attrs, err := g.b.inner.Attributes(g.ctx, g.key)
	if err != nil {
		return openError(err)
	}
	if attrs.Size != r.Size() || !sameSecond(attrs.ModTime, r.ModTime()) {
		return ErrChanged
	}
	if _, hinted := parseHint(attrs.Metadata); hinted {
		return errDamaged
	}
	return nil
}

// sameSecond compares two stores' words for one time: some give it to the second
// in one request and exactly in another.
func sameSecond(x, y time.Time) bool {
	return x.Truncate(time.Second).Equal(y.Truncate(time.Second))
}

// readRange opens part of the object. The envelope and the chunks are requested
// side by side, or together where they are neighbours. It returns the envelope
// also with an error, where it got so far.
func (b *Bucket) readRange(ctx context.Context, key string, off, n int64, hook func(func(any) bool) error) (_ *reader, env *sse.Envelope, err error) {
	g := b.getter(ctx, key, hook)
	defer func() {
		if err != nil {
			g.close()
		}
	}()
	bodyOff, bodyLen, err := sse.CiphertextRange(off, n)
	if err != nil {
		bodyOff, bodyLen = 0, 0 // beyond any object's end
	}
	envelopeSize := int64(b.opts.EnvelopeSize)

	var head, chunks *gcblob.Reader
	var body io.Reader
	var chunksErr error
	if bodyOff == 0 {
		want := int64(-1)
		if bodyLen >= 0 {
			want = envelopeSize + bodyLen
		}
		if head, err = g.get(0, want); err == nil {
			env, body, err = readEnvelope(head, b.opts.EnvelopeSize)
		}
		chunks = head
	} else {
		var other sync.WaitGroup
		other.Go(func() { chunks, chunksErr = g.get(envelopeSize+bodyOff, bodyLen) })
		if head, err = g.get(0, envelopeSize); err == nil {
			env, _, err = readEnvelope(head, b.opts.EnvelopeSize)
		}
		if err != nil {
			g.cancel()
		}
		other.Wait()
		body = chunks
	}
	if head == nil {
		return nil, nil, err
	}
	if errors.Is(err, ErrPlain) {
		r, err := b.readPlainRange(ctx, g, head, off, n)
		return r, nil, err
	}
	if errors.Is(err, io.ErrUnexpectedEOF) && head.Size() > envelopeSize {
		// An envelope that is longer than the bucket's are.
		env, err = g.envelope()
	}
	if err != nil {
		return nil, nil, err
	}
	size, err := plainSize(head.Size(), env.Size())
	if err != nil {
		return nil, env, err
	}
	beyond := off >= size
	if chunksErr != nil && !beyond {
		return nil, env, chunksErr
	}
	if chunksErr == nil && (chunks.Size() != head.Size() || !chunks.ModTime().Equal(head.ModTime())) {
		return nil, env, ErrChanged
	}
	if int64(env.Size()) != envelopeSize && !beyond {
		if chunks, err = g.get(int64(env.Size())+bodyOff, bodyLen); err != nil {
			return nil, env, err
		}
		if chunks.Size() != head.Size() {
			return nil, env, ErrChanged
		}
		body = chunks
	}

	// The last chunk proves how long the object is.
	var tail *gcblob.Reader
	var tailErr error
	var request sync.WaitGroup
	last := size / chunkSize
	reached := !beyond && (bodyLen < 0 || bodyOff+bodyLen > last*sealedChunkSize)
	if !reached && !b.opts.SkipLengthCheck {
		request.Go(func() { tail, tailErr = g.get(int64(env.Size())+last*sealedChunkSize, -1) })
	}
	d, err := g.decrypt(env)
	if err != nil {
		g.cancel()
	}
	request.Wait()
	if err == nil {
		err = tailErr
	}
	if err == nil && tail != nil {
		_, err = io.Copy(io.Discard, d.RangeReader(tail, last*chunkSize, -1))
	}
	if err != nil {
		return nil, env, err
	}

	if beyond {
		// The inner bucket says what it says of an offset beyond an object's end.
		at := int64(math.MaxInt64)
		if off-size <= math.MaxInt64-head.Size() {
			at = head.Size() + off - size
		}
		if n >= 0 || off > 0 {
			if _, err := g.get(at, n); err != nil {
				return nil, env, err
			}
		}
		return g.reader(eof{}, size, env, head), env, nil
	}
	if n == 0 {
		return g.reader(eof{}, size, env, head), env, nil
	}
	first := &prefixed{rest: d.RangeReader(body, off, n)}
	if _, err := io.ReadFull(first.rest, first.byte[:]); err != nil {
		if err == io.EOF { // authentic, and shorter than its size
			err = ErrChanged
		}
		return nil, env, err
	}
	return g.reader(first, size, env, chunks), env, nil
}

// envelopeAt reads the envelope that is stored at key, and nothing else.
func (b *Bucket) envelopeAt(ctx context.Context, key string) (*sse.Envelope, error) {
	g := b.getter(ctx, key, nil)
	defer g.close()
	return g.envelope()
}

// envelope reads the object's envelope, whatever its size.
func (g *getter) envelope() (*sse.Envelope, error) {
	size := int64(g.b.opts.EnvelopeSize)
	r, err := g.get(0, size)
	if err != nil {
		if attrs, e := g.b.inner.Attributes(g.ctx, g.key); e == nil && attrs.Size == 0 {
			return nil, ErrPlain // some stores refuse a range of nothing
		}
		return nil, err
	}
	env, _, err := readEnvelope(r, g.b.opts.EnvelopeSize)
	if errors.Is(err, io.ErrUnexpectedEOF) && r.Size() > size {
		if r, err = g.get(0, sse.MaxEnvelopeSize); err == nil {
			env, _, err = readEnvelope(r, g.b.opts.EnvelopeSize)
		}
	}
	return env, err
}

// Sizes of a body's chunks, see package sse.
const (
	chunkSize       = 16384
	sealedChunkSize = chunkSize + 16
)

// readPlainRange opens part of a plain object.
func (b *Bucket) readPlainRange(ctx context.Context, g *getter, head *gcblob.Reader, off, n int64) (*reader, error) {
	if err := g.checkPlain(head); err != nil {
		return nil, err
	}
	r, err := g.get(off, n)
	if err != nil {
		return nil, err
	}
	if r.Size() != head.Size() || !r.ModTime().Equal(head.ModTime()) {
		return nil, ErrChanged
	}
	return g.reader(r, r.Size(), nil, r), nil
}

// prefixed reads a byte that was read ahead, and then the rest.
type prefixed struct {
	byte [1]byte
	done bool
	rest io.Reader
}

func (p *prefixed) Read(b []byte) (int, error) {
	if p.done || len(b) == 0 {
		return p.rest.Read(b)
	}
	b[0], p.done = p.byte[0], true
	if len(b) == 1 {
		return 1, nil
	}
	n, _ := p.rest.Read(b[1:]) // an error stays, and is returned next
	return 1 + n, nil
}

// eof is an empty reader.
type eof struct{}

func (eof) Read([]byte) (int, error) { return 0, io.EOF }
