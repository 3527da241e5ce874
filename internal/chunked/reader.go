package chunked

import (
	"io"
	"math"
)

// Reader decrypts what it reads, or encrypts it. See [Cipher.Reader],
// [Cipher.RangeReader] and [Cipher.EncryptingReader].
type Reader struct {
	stream
	out []byte // output in the source's buffer that no Read has returned yet

	partial bool // reads a range
	told    bool // the observer has heard of the end
}

// EncryptingReader returns a reader of the body that src encrypts to, from
// chunk 0 on. It returns [io.EOF] after the last chunk. Its first error stays.
//
// A Reader implements [io.WriterTo]. It is not safe for concurrent use: a second
// call at the same time fails, and so does the Reader.
func (c *Cipher) EncryptingReader(src io.Reader) *Reader {
	return newReader(c, false, src)
}

// Reader returns a reader of the plaintext of the body in src. Every byte that
// it returns is authentic. It returns [io.EOF] only after the last chunk has
// verified, and the last byte of the plaintext only if the body ends behind
// it: a truncated body fails before the length that its size suggests. Its
// first error stays: [ErrTruncated], a [*ChunkError] or one of src.
func (c *Cipher) Reader(src io.Reader) *Reader {
	return newReader(c, true, src)
}

func newReader(c *Cipher, decrypt bool, src io.Reader) *Reader {
	r := new(Reader)
	r.init(c, decrypt)
	r.src.r = src
	return r
}

// RangeReader returns a reader of n plaintext bytes from off. src starts where
// [CiphertextRange] says, and no more is read of it than that says. A negative
// n means to the end. If the body ends inside the range, the reader proves
// that end and returns [io.EOF] there. The first Read returns the error of an
// invalid off.
func (c *Cipher) RangeReader(src io.Reader, off, n int64) *Reader {
	r := c.Reader(src)
	_, bodyLen, err := CiphertextRange(off, n)
	if err != nil {
		r.err = err
		return r
	}
	r.partial = off > 0 || n >= 0
	r.next = uint64(off / ChunkSize)
	r.skip = int(off % ChunkSize)
	if n >= 0 {
		r.end = r.next + uint64(bodyLen/SealedChunkSize)
		r.probe = int(bodyLen % SealedChunkSize)
		r.left = n
	}
	return r
}

// Read fills p with what the source has, without waiting for more than one
// chunk. It fills a large p on several cores.
func (r *Reader) Read(p []byte) (int, error) {
	if err := r.enter(); err != nil {
		return 0, err
	}
	n, err := r.read(p)
	r.tellRead(int64(n))
	return n, r.leave(err)
}

func (r *Reader) read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for len(r.out) == 0 && r.err == nil {
		if units := r.direct(len(p)); units > 0 {
			n, err := r.readBatches(p, units)
			if err != nil {
				r.fail(err)
			}
			if n > 0 {
				return n, err
			}
			continue
		}
		r.out, r.err = r.readUnit()
	}
	n := copy(p, r.out)
	r.out = r.out[n:]
	if len(r.out) == 0 && r.err != nil { // at once: many callers know the length and never read the end
		r.fail(r.err)
	}
	if n > 0 {
		return n, nil
	}
	return 0, r.err
}

// direct returns how many units can go straight into n bytes of the caller's memory.
func (r *Reader) direct(n int) int {
	if r.src.eof || r.next == r.end || r.skip > 0 {
		return 0
	}
	room := min(int64(n), r.left)
	if r.held {
		room--
	}
	return int(room) / r.outUnit()
}

// readBatches puts up to the given number of units straight into p.
func (r *Reader) readBatches(p []byte, units int) (total int, err error) {
	filled := 0 // bytes of p that belong to a batch
	run := pipeline{op: r.transform(), procs: r.procs}
	run.fetch = func(b *batch) (bool, error) {
		more, err := r.fetch(b, min(units, batchChunks), p[filled:filled])
		n := len(b.in) / r.src.unit
		units -= n
		filled += len(b.out) + n*r.outUnit()
		return more && !b.prompt && units > 0, err
	}
	run.emit = func(b *batch) error {
		total += len(r.release(b.out, b.proven || b.err != nil))
		return nil
	}
	err = run.run()
	clear(p[total:filled]) // held back, or behind a chunk that is not authentic
	return total, err
}

// readUnit returns the next unit, in the source's buffer, and the error that
// follows it: [io.EOF] behind the last one.
func (r *Reader) readUnit() (out []byte, err error) {
	if r.left == 0 {
		return nil, io.EOF
	}
	n := r.src.n
	units, size := 1, r.src.unit
	if r.next == r.end {
		units, size = 0, r.probe
	}
	if !r.src.eof {
		n, err = r.src.fill(r.src.buffer()[:size], r.capRead(size))
	}
	whole := n == r.src.unit
	if last := r.src.eof && (units > 0 || n < proof); whole || last {
		out, stepErr := r.step(n, r.proves(0))
		switch {
		case stepErr != nil:
			return out, stepErr
		case !whole:
			return out, io.EOF
		}
		return out, err
	}
	r.src.n = n
	if r.held && n >= proof {
		out = r.releaseHeld()
	}
	return out, err
}

// WriteTo writes the rest to dst, on several cores if the source returns much
// at a time, and without a copy if the source can write itself, as a
// [bytes.Reader] can. After an error, of dst too, the reader has failed.
func (r *Reader) WriteTo(dst io.Writer) (int64, error) {
	if err := r.enter(); err != nil {
		return 0, err
	}
	r.dst, r.written = dst, 0
	err := r.writeOut()
	if err == nil && !r.src.eof {
		err = r.writeSource()
	}
	if err == errInUse {
		return 0, err // without leave: the source may still push
	}
	if err == nil && r.left > 0 {
		err = r.flush(true)
	}
	if err == nil {
		err = io.EOF
	}
	if r.fail(err); err == io.EOF {
		err = nil
	}
	r.tellRead(r.written)
	return r.written, r.leave(err)
}

// writeOut writes what an earlier Read left over, and returns the error that
// follows it.
func (r *Reader) writeOut() error {
	out := r.out
	r.out = nil
	if err := r.write(out); err != nil {
		return err
	}
	return r.err
}

// writeSource writes what the source returns, up to a partial unit. It returns
// errInUse if the source still uses the stream.
func (r *Reader) writeSource() error {
	src, pushes := r.src.r.(io.WriterTo)
	if !pushes || r.end != math.MaxUint64 { // a range must not read to the end
		_, err := r.pull(r.src.r)
		return err
	}
	p := &pusher{s: &r.stream}
	_, err := src.WriteTo(p)
	if !p.guard.enter() { // never to leave: p is of no more use
		return errInUse
	}
	if r.err != nil { // even if the source ignored it
		return r.err
	}
	if err == io.EOF { // a source that calls its end an error; flush proves the end
		return nil
	}
	return err
}

// pusher is the writer that a source writes itself to. The source is foreign
// code: it may write from several goroutines, keep the pusher, ignore errors
// and recover from panics.
type pusher struct {
	s     *stream
	guard guard
}

func (p *pusher) Write(b []byte) (int, error) {
	err := p.do(func() error { return p.s.push(b) })
	if err != nil {
		return 0, err
	}
	return len(b), nil
}

// ReadFrom serves sources such as [os.File], whose WriteTo is a copy.
func (p *pusher) ReadFrom(src io.Reader) (n int64, err error) {
	err = p.do(func() error {
		n, err = p.s.pull(src)
		return err
	})
	return n, err
}

// do calls f with the stream, unless that has failed or is in use.
func (p *pusher) do(f func() error) error {
	if !p.guard.enter() {
		return errInUse
	}
	if p.s.err == nil {
		if err := f(); err != nil {
			p.s.fail(err)
		}
	}
	err := p.s.err
	if !p.guard.leave() {
		p.s.src.drop()
		return errInUse
	}
	return err
}
