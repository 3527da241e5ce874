package blob

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"sync"

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

// Download implements [driver.Downloader]: what it writes comes in large pieces,
// which are decrypted on several cores.
func (r *reader) Download(w io.Writer) error {
	_, err := io.Copy(w, r.Reader)
	return err
}

func (r *reader) Close() error { return r.get.close() }

// NewRangeReader implements [driver.Bucket].
func (d *bucketDriver) NewRangeReader(ctx context.Context, key string, offset, length int64, opts *driver.ReaderOptions) (driver.Reader, error) {
	open := func() (*reader, *sse.Envelope, error) {
		return d.b.readRange(ctx, key, offset, length, opts.BeforeRead)
	}
	if offset == 0 && length < 0 {
		open = func() (*reader, *sse.Envelope, error) { return d.b.read(ctx, key, opts.BeforeRead) }
	}
	var before *sse.Envelope
	alike := 0 // attempts in a row that failed so with the same envelope
	for attempt := 1; ; attempt++ {
		r, env, err := open()
		if err == nil {
			return r, nil
		}
		// Requests that met two versions of the object look like damage. It is
		// damage if three attempts look so and met the same envelope: nothing was
		// replaced in the second of them. Stores that publish metadata before
		// content, as that of files, also look so.
		torn := env != nil && errors.Is(err, sse.ErrCorrupt)
		same := stored.SameEnvelope(before, env)
		switch before = env; {
		case !torn:
			alike = 0
		case !same:
			alike = 1
		default:
			alike++
		}
		again := errors.Is(err, ErrChanged) || errors.Is(err, stored.ErrDamaged) || torn && alike < 3
		switch {
		case !again:
			return nil, err
		case attempt == store.MaxTries && torn:
			return nil, fmt.Errorf("%w: %v", ErrChanged, err)
		case attempt == store.MaxTries:
			return nil, err
		}
		if errors.Is(err, stored.ErrDamaged) {
			store.Pause(ctx, attempt)
		}
	}
}

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
	r, err := g.b.store.Open(g.ctx, g.key, off, n, opts)
	if err != nil {
		return nil, err
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
	obj := b.store.Object(key)
	obj.Context = req.Context
	d, err := dec.Decrypt(ctx, obj, env)
	return d, store.KeyError(err)
}

// read opens the whole object with one inner request. It returns the envelope
// also with an error, where it got so far.
func (b *Bucket) read(ctx context.Context, key string, hook func(func(any) bool) error) (_ *reader, _ *sse.Envelope, err error) {
	g := b.getter(ctx, key, hook)
	defer func() {
		if err != nil {
			g.close()
		}
	}()
	inner, err := g.get(0, -1)
	if err != nil {
		return nil, nil, err
	}
	env, body, err := stored.ReadEnvelope(inner, b.store.EnvelopeSize)
	if errors.Is(err, ErrPlain) {
		if err := g.checkPlain(inner); err != nil {
			return nil, nil, err
		}
		return g.reader(body, inner.Size(), nil, inner), nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	size, err := stored.PlaintextSize(inner.Size(), env.Size())
	if err != nil {
		return nil, env, err
	}
	d, err := g.decrypt(env)
	if err != nil {
		return nil, env, err
	}
	length, err := sse.CiphertextSize(size)
	if err != nil {
		return nil, env, err
	}
	count := &counter{r: body}
	return g.reader(&proved{rest: d.Reader(count), body: count, length: length}, size, env, inner), env, nil
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
	attrs, err := g.b.store.Inner.Attributes(g.ctx, g.key)
	if err != nil {
		return store.OpenError(err)
	}
	if !store.VersionRead(r).Same(store.VersionOf(attrs)) {
		return ErrChanged
	}
	if _, hinted := stored.ParseHint(attrs.Metadata); hinted {
		return stored.ErrDamaged
	}
	return nil
}

// rangeOf is a read of n bytes from off, under way.
type rangeOf struct {
	*getter
	off, n           int64
	bodyOff, bodyLen int64 // of the chunks that hold them

	head      *gcblob.Reader // gives the envelope
	env       *sse.Envelope
	size      int64          // of the plaintext
	chunks    *gcblob.Reader // gives the chunks
	body      io.Reader      // what of chunks is chunks; nil if that is not known
	chunksErr error
}

// readRange opens part of the object. It returns the envelope also with an error,
// where it got so far.
func (b *Bucket) readRange(ctx context.Context, key string, off, n int64, hook func(func(any) bool) error) (_ *reader, _ *sse.Envelope, err error) {
	r := &rangeOf{getter: b.getter(ctx, key, hook), off: off, n: n}
	defer func() {
		if err != nil {
			r.close()
		}
	}()
	if r.bodyOff, r.bodyLen, err = sse.CiphertextRange(off, n); err != nil {
		r.bodyOff, r.bodyLen = 0, 0 // beyond any object's end
	}
	if err := r.request(); errors.Is(err, ErrPlain) {
		plain, err := r.plain()
		return plain, nil, err
	} else if err != nil {
		return nil, r.env, err
	}
	if err := r.locate(); err != nil {
		return nil, r.env, err
	}
	d, err := r.open()
	if err != nil {
		return nil, r.env, err
	}
	switch {
	case r.beyond():
		err = r.askBeyond()
		return r.reader(eof{}, r.size, r.env, r.head), r.env, err
	case n == 0:
		return r.reader(eof{}, r.size, r.env, r.head), r.env, nil
	}
	// The first chunk is opened here, since it is what shows that the requests met
	// two versions of the object.
	count := &counter{r: r.body}
	plaintext := &prefixed{rest: d.RangeReader(count, off, n)}
	if _, err := io.ReadFull(plaintext.rest, plaintext.byte[:]); err != nil {
		if err == io.EOF { // authentic, and shorter than its size
			err = ErrChanged
		}
		return nil, r.env, err
	}
	if !r.reachesEnd() {
		return r.reader(plaintext, r.size, r.env, r.chunks), r.env, nil
	}
	length, err := sse.CiphertextSize(r.size)
	if err != nil {
		return nil, r.env, err
	}
	p := &proved{rest: plaintext, body: count, length: length - r.bodyOff}
	if count.ended {
		err = p.prove()
	}
	return r.reader(p, r.size, r.env, r.chunks), r.env, err
}

// beyond reports whether the range begins behind the object's end.
func (r *rangeOf) beyond() bool { return r.off >= r.size }

// reachesEnd reports whether a reader of the range verifies the last chunk.
func (r *rangeOf) reachesEnd() bool {
	last := r.size / chunkSize * chunkSize
	return !r.beyond() && (r.n < 0 || r.n > last-r.off || r.n >= r.size-r.off)
}

// request asks for the envelope and the chunks, side by side, or together where
// they are neighbours, and reads the envelope.
func (r *rangeOf) request() (err error) {
	expect := r.b.store.EnvelopeSize
	if r.bodyOff == 0 {
		want := int64(-1)
		if r.bodyLen >= 0 {
			want = int64(expect) + r.bodyLen
		}
		if r.head, err = r.get(0, want); err != nil {
			return err
		}
		r.env, r.body, err = stored.ReadEnvelope(r.head, expect)
		r.chunks = r.head
	} else {
		var other sync.WaitGroup
		other.Go(func() { r.chunks, r.chunksErr = r.get(int64(expect)+r.bodyOff, r.bodyLen) })
		if r.head, err = r.get(0, int64(expect)); err != nil {
			r.cancel()
		} else {
			r.env, _, err = stored.ReadEnvelope(r.head, expect)
		}
		other.Wait()
		r.body = r.chunks
	}
	if r.head != nil && errors.Is(err, io.ErrUnexpectedEOF) && r.head.Size() > int64(expect) {
		r.env, err = r.envelope() // it is longer than the bucket's are, or the answer broke off
	}
	return err
}

// locate finds the object's size, and asks again for the chunks if they are not
// where they should be.
func (r *rangeOf) locate() (err error) {
	if r.size, err = stored.PlaintextSize(r.head.Size(), r.env.Size()); err != nil {
		return err
	}
	if r.chunksErr != nil {
		if r.beyond() {
			return nil // as it had to be, in some stores
		}
		return r.chunksErr
	}
	if !store.VersionRead(r.chunks).Same(store.VersionRead(r.head)) {
		return ErrChanged
	}
	if r.beyond() || r.body != nil && r.env.Size() == r.b.store.EnvelopeSize {
		return nil
	}
	if r.chunks, err = r.get(int64(r.env.Size())+r.bodyOff, r.bodyLen); err != nil {
		return err
	}
	r.body = r.chunks
	if r.chunks.Size() != r.head.Size() {
		return ErrChanged
	}
	return nil
}

// open opens the envelope and the last chunk, which proves how long the object is.
// It leaves out the last chunk if the range reaches it, and with SkipLengthCheck.
// That option saves no proof that a range lies beyond the end: for such a range, the
// proof is all there is.
func (r *rangeOf) open() (*sse.Decryption, error) {
	if r.reachesEnd() || r.b.opts.SkipLengthCheck && !r.beyond() {
		return r.decrypt(r.env)
	}
	last := r.size / chunkSize
	var tail *gcblob.Reader
	var tailErr error
	var other sync.WaitGroup
	other.Go(func() { tail, tailErr = r.get(int64(r.env.Size())+last*sealedChunkSize, -1) })
	d, err := r.decrypt(r.env)
	if err != nil {
		r.cancel()
	}
	other.Wait()
	if err != nil {
		return nil, err
	}
	if tailErr != nil {
		return nil, tailErr
	}
	n, err := io.Copy(io.Discard, d.RangeReader(tail, last*chunkSize, -1))
	if err == nil && last*chunkSize+n != r.size {
		err = ErrChanged
	}
	return d, err
}

// askBeyond asks the inner bucket what it says of an offset behind an object's
// end: some return nothing, and some an error.
func (r *rangeOf) askBeyond() error {
	at := int64(math.MaxInt64)
	if past := r.off - r.size; past <= math.MaxInt64-r.head.Size() {
		at = r.head.Size() + past
	}
	_, err := r.get(at, r.n)
	return err
}

// plain opens part of a plain object.
func (r *rangeOf) plain() (*reader, error) {
	if err := r.checkPlain(r.head); err != nil {
		return nil, err
	}
	part, err := r.get(r.off, r.n)
	if err != nil {
		return nil, err
	}
	if !store.VersionRead(part).Same(store.VersionRead(r.head)) {
		return nil, ErrChanged
	}
	return r.reader(part, part.Size(), nil, part), nil
}

// envelope reads the object's envelope, whatever its size.
func (g *getter) envelope() (*sse.Envelope, error) {
	size := int64(g.b.store.EnvelopeSize)
	r, err := g.get(0, size)
	if err != nil {
		if attrs, e := g.b.store.Inner.Attributes(g.ctx, g.key); e == nil && attrs.Size == 0 {
			return nil, ErrPlain // some stores refuse a range of nothing
		}
		return nil, err
	}
	env, _, err := stored.ReadEnvelope(r, g.b.store.EnvelopeSize)
	if errors.Is(err, io.ErrUnexpectedEOF) && r.Size() > size {
		if r, err = g.get(0, sse.MaxEnvelopeSize); err == nil {
			env, _, err = stored.ReadEnvelope(r, g.b.store.EnvelopeSize)
		}
	}
	return env, err
}

// Sizes of a body's chunks, see package sse.
const (
	chunkSize       = 16384
	sealedChunkSize = chunkSize + 16
)

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

// counter counts what is read of a body.
type counter struct {
	r     io.Reader
	n     int64
	ended bool // r returned io.EOF
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	c.ended = c.ended || err == io.EOF
	return n, err
}

// WriteTo implements [io.WriterTo], for what r has of its own.
func (c *counter) WriteTo(w io.Writer) (int64, error) {
	n, err := io.Copy(w, c.r)
	c.n += n
	return n, err
}

// proved reads a plaintext to the object's end, and ends well only if that is where
// the store said it to be: a store of files looks at a file and then opens it, and
// so may tell the size of a version and give the next one.
type proved struct {
	rest   io.Reader
	body   *counter
	length int64 // that body must have
}

func (p *proved) prove() error {
	if p.body.n != p.length {
		return fmt.Errorf("%w: its size is not the one that the store said", ErrChanged)
	}
	return nil
}

func (p *proved) Read(b []byte) (int, error) {
	n, err := p.rest.Read(b)
	if err == io.EOF {
		if proof := p.prove(); proof != nil {
			err = proof
		}
	}
	return n, err
}

// WriteTo implements [io.WriterTo].
func (p *proved) WriteTo(w io.Writer) (int64, error) {
	n, err := io.Copy(w, p.rest)
	if err == nil {
		err = p.prove()
	}
	return n, err
}

// eof is an empty reader.
type eof struct{}

func (eof) Read([]byte) (int, error) { return 0, io.EOF }
