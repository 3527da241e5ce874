package blob

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"sync"

	gcblob "gocloud.dev/blob"

	"github.com/blobseal/blobseal/blob/stored"
	"github.com/blobseal/blobseal/sse"
)

// rangeRead is a read of n plaintext bytes from off.
//
// It makes its requests in an order that holds no response while it awaits another:
// first the envelope, together with the chunks if they are few, then the last chunk,
// which proves how long the object is, and at last the chunks if they are many.
type rangeRead struct {
	*getter
	off, n           int64
	bodyOff, bodyLen int64 // of the chunks that hold the range; bodyLen < 0 is to the end

	head   *part // holds the envelope
	env    *sse.Envelope
	size   int64     // of the plaintext
	chunks io.Reader // the chunks, or nil until they are requested
	from   *gcblob.Reader
}

// readRange opens part of the object. It returns the envelope also with an error, if
// it got so far.
func (g *getter) readRange(off, n int64) (*reader, *sse.Envelope, error) {
	r := &rangeRead{getter: g, off: off, n: n}
	var err error
	if r.bodyOff, r.bodyLen, err = sse.CiphertextRange(off, n); err != nil {
		r.bodyOff, r.bodyLen = 0, 0 // beyond the end of any object
	}
	opened, err := r.run()
	return opened, r.env, err
}

func (r *rangeRead) run() (*reader, error) {
	err := r.fetchHead()
	switch {
	case errors.Is(err, ErrPlain):
		return r.plain()
	case errors.Is(err, sse.ErrComposite):
		return r.composite()
	case err != nil:
		return nil, err
	}
	if r.size, err = stored.PlaintextSize(r.head.Size(), r.env.Size()); err != nil {
		return nil, err
	}
	d, err := r.decryptAndProve()
	if err != nil {
		return nil, err
	}
	switch {
	case r.startsBeyondEnd():
		return r.reader(new(bytes.Reader), r.size, r.env, r.head.Reader), r.askBeyond()
	case r.n == 0:
		return r.reader(new(bytes.Reader), r.size, r.env, r.head.Reader), nil
	}
	if err := r.openChunks(); err != nil {
		return nil, err
	}
	if r.reachesEnd() { // the range may end within the last chunk
		r.chunks = stored.ExactReader(r.chunks, r.head.Size()-int64(r.env.Size())-r.bodyOff, ErrChanged)
	}
	// The first chunk is opened here: if the requests met two versions of the
	// object, it does not open.
	plaintext := &prefixed{rest: d.RangeReader(r.chunks, r.off, r.n)}
	if _, err := io.ReadFull(plaintext.rest, plaintext.byte[:]); err != nil {
		if err == io.EOF { // authentic, and shorter than its size
			err = ErrChanged
		}
		return nil, err
	}
	left := r.size - r.off
	if r.n >= 0 {
		left = min(left, r.n)
	}
	return r.reader(&endReader{rest: plaintext, left: left}, r.size, r.env, r.from), nil
}

// startsBeyondEnd reports whether the range begins behind the object's end.
func (r *rangeRead) startsBeyondEnd() bool { return r.off >= r.size }

// reachesEnd reports whether a reader of the range verifies the last chunk.
func (r *rangeRead) reachesEnd() bool {
	last := r.size / sse.ChunkSize * sse.ChunkSize
	return !r.startsBeyondEnd() && (r.n < 0 || r.n > last-r.off || r.n >= r.size-r.off)
}

// fetchHead reads the envelope, and with it the chunks of a short range.
func (r *rangeRead) fetchHead() error {
	expect := int64(r.b.store.EnvelopeSize)
	short := r.bodyLen > 0 && r.bodyLen <= drainSize
	want := expect
	var chunks *part
	var chunksErr, err error
	var other sync.WaitGroup
	switch {
	case short && r.bodyOff == 0: // behind the envelope
		want += r.bodyLen
	case short:
		other.Go(func() { chunks, chunksErr = r.fetch(anyVersion, expect+r.bodyOff, r.bodyLen) })
	}
	r.head, err = r.fetch(anyVersion, 0, want)
	if err != nil && !r.fetchEmpty(err) {
		r.cancel()
		other.Wait()
		return err
	}
	other.Wait()
	if err != nil {
		return ErrPlain
	}
	rest := r.head.reader()
	if r.env, _, err = stored.ReadEnvelope(rest, int(expect)); errors.Is(err, io.ErrUnexpectedEOF) && r.head.Size() > want {
		if r.head, err = r.fetch(anyVersion, 0, sse.MaxEnvelopeSize); err != nil {
			return err
		}
		r.env, _, err = stored.ReadEnvelope(r.head.reader(), int(expect))
	}
	switch {
	case err != nil || int64(r.env.Size()) != expect || !short:
	case r.bodyOff == 0:
		r.chunks, r.from = rest, r.head.Reader
	case chunksErr == nil && !chunks.version().Same(r.head.version()):
		return ErrChanged
	case chunksErr == nil:
		r.chunks, r.from = chunks.reader(), chunks.Reader
	}
	return err
}

// fetchEmpty reads the stored object as the head, if the request for the head failed
// because the object is empty.
func (r *rangeRead) fetchEmpty(err error) bool {
	if !r.b.store.IsEmpty(r.ctx, r.key, err) {
		return false
	}
	r.head, err = r.fetch(anyVersion, 0, -1)
	return err == nil
}

// decryptAndProve opens the envelope. Unless the range reaches the last chunk, or
// the bucket waives that, it also reads the last chunk, which proves how long the
// object is. That nothing is stored at the range's offset is always proved.
func (r *rangeRead) decryptAndProve() (*sse.Decryption, error) {
	if r.reachesEnd() || r.b.opts.SkipLengthCheck && !r.startsBeyondEnd() {
		return r.b.decrypt(r.ctx, r.key, r.env)
	}
	last := r.size / sse.ChunkSize * sse.ChunkSize
	at, length, err := sse.CiphertextRange(last, sse.ChunkSize-1)
	if err != nil {
		return nil, err
	}
	var tail *part
	var tailErr error
	var other sync.WaitGroup
	other.Go(func() { tail, tailErr = r.fetch(anyVersion, int64(r.env.Size())+at, length) })
	d, err := r.b.decrypt(r.ctx, r.key, r.env)
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
	n, err := io.Copy(io.Discard, d.RangeReader(tail.reader(), last, -1))
	if err == nil && last+n != r.size {
		err = ErrChanged
	}
	return d, err
}

// openChunks requests the chunks, unless they came with the envelope.
func (r *rangeRead) openChunks() error {
	if r.chunks != nil {
		return nil
	}
	inner, err := r.open(r.head.version(), int64(r.env.Size())+r.bodyOff, r.bodyLen)
	if err != nil {
		return err
	}
	r.chunks, r.from = inner, inner
	return nil
}

// askBeyond asks the inner bucket what it says of an offset behind an object's end:
// some stores return nothing, and some an error.
func (r *rangeRead) askBeyond() error {
	at := int64(math.MaxInt64)
	if past := r.off - r.size; past <= math.MaxInt64-r.head.Size() {
		at = r.head.Size() + past
	}
	_, err := r.fetch(anyVersion, at, r.n)
	return err
}

// plain opens part of a plain object.
func (r *rangeRead) plain() (*reader, error) {
	if err := r.b.admitPlain(); err != nil {
		return nil, err
	}
	seen := r.head.version()
	if err := r.checkPlain(seen); err != nil {
		return nil, err
	}
	if seen.Size == 0 {
		return r.reader(new(bytes.Reader), 0, nil, r.head.Reader), nil
	}
	inner, err := r.open(seen, r.off, r.n)
	if err != nil {
		return nil, err
	}
	return r.reader(inner, inner.Size(), nil, inner), nil
}

// composite opens part of an object that was uploaded in parts.
func (r *rangeRead) composite() (*reader, error) {
	c := r.newComposite(r.head.Reader, r.head.data)
	err := c.openTrailer()
	if r.env = c.env; err != nil {
		return nil, err
	}
	r.size = c.object.Size()
	switch {
	case r.startsBeyondEnd():
		return r.reader(new(bytes.Reader), r.size, r.env, r.head.Reader), r.askBeyond()
	case r.n == 0:
		return r.reader(new(bytes.Reader), r.size, r.env, r.head.Reader), nil
	}
	at, length, err := c.object.StoredRange(r.off, r.n)
	if err != nil {
		return nil, err
	}
	src, err := c.open(at, length)
	if err != nil {
		return nil, err
	}
	return c.reader(c.object.RangeReader(src, r.off, r.n))
}

// prefixed reads a byte that was read ahead, and then the rest. Unlike those of package
// bufio, its first Read may return more than was read ahead, as gocloud's conformance
// tests ask.
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
	n, _ := p.rest.Read(b[1:]) // an error stays, and the next Read returns it
	return 1 + n, nil
}

// WriteTo implements [io.WriterTo], to use that of the rest.
func (p *prefixed) WriteTo(w io.Writer) (written int64, err error) {
	if !p.done {
		p.done = true
		n, err := w.Write(p.byte[:])
		if written = int64(n); err != nil {
			return written, err
		}
	}
	n, err := io.Copy(w, p.rest)
	return written + n, err
}

var errSize = fmt.Errorf("%w: the body's size differs from the size that the store reported", ErrChanged)
