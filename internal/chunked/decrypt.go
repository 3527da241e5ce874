package chunked

import (
	"fmt"
	"io"
	"math"
)

// Reader decrypts what it reads. See [Cipher.Reader] and [Cipher.RangeReader].
type Reader struct {
	c     *Cipher
	src   source
	next  uint64 // index of the next chunk
	end   uint64 // index at which a bounded range ends
	skip  int    // plaintext bytes to leave out of the next chunk
	left  int64  // plaintext bytes still wanted
	out   []byte // opened, in src.buf, not yet read
	err   error
	procs int
	nonce [nonceSize]byte
}

// Reader returns a reader of the plaintext of the body that src gives. Every
// byte that it returns is authentic, and it returns [io.EOF] only after the last
// chunk has proved that the body is whole; until then what was read is authentic
// but may not be all. Its first error, such as [ErrTruncated], a [*ChunkError]
// or one of src, is returned for ever. It implements [io.WriterTo]. It is not
// safe for concurrent use.
func (c *Cipher) Reader(src io.Reader) *Reader {
	return &Reader{
		c: c, src: source{r: src, unit: SealedChunkSize},
		end: math.MaxUint64, left: math.MaxInt64,
	}
}

// RangeReader returns a reader of n plaintext bytes from off; src starts where
// [CiphertextRange] says, and no more of it is read than that says. With a
// negative n it reads to the end, and proves it as [Cipher.Reader] does. Where
// the body ends inside of the range, the reader proves that end and returns
// [io.EOF] there. An invalid off is returned by the first Read.
func (c *Cipher) RangeReader(src io.Reader, off, n int64) *Reader {
	r := c.Reader(src)
	_, bodyLen, err := CiphertextRange(off, n)
	if err != nil {
		r.err = err
		return r
	}
	r.next = uint64(off / ChunkSize)
	r.skip = int(off % ChunkSize)
	if n >= 0 {
		r.src.r = io.LimitReader(src, bodyLen)
		r.end = r.next + uint64(bodyLen/SealedChunkSize)
		r.left = n
	}
	return r
}

// Read returns authentic plaintext. A large p is filled on several cores.
func (r *Reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for r.err == nil && len(r.out) == 0 {
		if r.left == 0 {
			r.err = io.EOF
			break
		}
		direct := int(min(int64(len(p)), r.left)) / ChunkSize * ChunkSize
		if direct > 0 && r.skip == 0 && !r.src.eof && r.next != r.end {
			n, err := r.readBatches(p[:direct])
			if err != nil {
				clear(p[n:direct]) // authentic, but behind a chunk that is not
				r.fail(err)
			}
			if n > 0 {
				return n, err
			}
			continue
		}
		if err := r.openOne(); err != nil {
			r.fail(err)
		}
	}
	n := copy(p, r.out)
	r.out = r.out[n:]
	if n > 0 {
		return n, nil
	}
	r.src.drop()
	return 0, r.err
}

// readBatches opens whole chunks straight into p, a multiple of their size.
func (r *Reader) readBatches(p []byte) (total int, err error) {
	run := pipeline{op: r.c.openBatch, procs: r.procs}
	run.fetch = func(b *batch) (bool, error) {
		more, err := r.fetch(b, len(p)/ChunkSize*SealedChunkSize)
		opened := len(b.in) / SealedChunkSize * ChunkSize
		b.out, p = p[:0:opened], p[opened:]
		return more && !b.prompt && len(p) > 0, err
	}
	run.emit = func(b *batch) error {
		total += len(b.out)
		r.left -= int64(len(b.out))
		return nil
	}
	err = run.run()
	return total, err
}

// fetch reads whole chunks, room bytes of them at most, into b.
func (r *Reader) fetch(b *batch, room int) (more bool, err error) {
	n, full, err := r.src.fill(b.inBuf[:min(room, sealedBatch)])
	chunks := n / SealedChunkSize
	if limit := wholeChunks(r.next, chunks); limit != nil {
		return false, limit
	}
	b.in, b.out, b.first, b.prompt = b.inBuf[:n], b.outBuf, r.next, !full
	r.next += uint64(chunks)
	return !r.src.eof && r.next != r.end, err
}

// openOne reads and opens the next chunk, in place. After the last one it sets
// err to io.EOF for the calls that come after out is read.
func (r *Reader) openOne() error {
	if r.next == r.end {
		r.err = io.EOF
		return nil
	}
	buf := r.src.hold()
	n := r.src.n
	if !r.src.eof {
		whole, _, err := r.src.fill(buf)
		if err != nil {
			return err
		}
		n = whole + r.src.n
	}
	last := n < SealedChunkSize
	if n < TagSize {
		return fmt.Errorf("%w: it ends within chunk %d", ErrTruncated, r.next)
	}
	if !last {
		if err := wholeChunks(r.next, 1); err != nil {
			return err
		}
	}
	r.src.n = 0
	out, err := r.c.openChunk(buf[:0], buf[:n], r.next, &r.nonce)
	if err != nil {
		return err
	}
	r.next++
	r.out = r.trim(out)
	r.left -= int64(len(r.out))
	if last {
		r.err = io.EOF
	}
	return nil
}

// trim cuts a chunk, or a run of them, to the part that is wanted.
func (r *Reader) trim(out []byte) []byte {
	skip := min(r.skip, len(out))
	r.skip -= skip
	out = out[skip:]
	return out[:min(int64(len(out)), r.left)]
}

// WriteTo writes the rest of the plaintext to dst, on several cores if src gives
// much at a time. After an error, of dst also, the reader has failed.
func (r *Reader) WriteTo(dst io.Writer) (int64, error) {
	var total int64
	write := func(p []byte) error {
		err := writeAll(dst, p)
		if err == nil {
			total += int64(len(p))
		}
		return err
	}
	if err := write(r.out); err != nil {
		return total, r.fail(err)
	}
	r.out = nil
	if r.err == nil && r.left > 0 && !r.src.eof && r.next != r.end {
		run := pipeline{op: r.c.openBatch, procs: r.procs}
		run.fetch = func(b *batch) (bool, error) { return r.fetch(b, sealedBatch) }
		run.emit = func(b *batch) error {
			out := r.trim(b.out)
			r.left -= int64(len(out))
			return write(out)
		}
		if err := run.run(); err != nil {
			return total, r.fail(err)
		}
	}
	if r.err == nil && r.left > 0 {
		err := r.openOne()
		if err == nil {
			err = write(r.out)
		}
		if err != nil {
			return total, r.fail(err)
		}
		r.out = nil
	}
	if r.err == nil {
		r.err = io.EOF // all that was wanted
	}
	r.src.drop()
	if r.err == io.EOF {
		return total, nil
	}
	return total, r.err
}

// fail ends the reader with its first error.
func (r *Reader) fail(err error) error {
	r.err, r.out = err, nil
	r.src.drop()
	return err
}
