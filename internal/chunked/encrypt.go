package chunked

import (
	"errors"
	"fmt"
	"io"
)

// ErrClosed: a write after Close.
var ErrClosed = errors.New("sse: write to closed writer")

// errTooManyChunks is returned before a chunk that no message can hold.
var errTooManyChunks = fmt.Errorf("%w: more than 2^38 chunks", ErrTooLarge)

// wholeChunks returns an error if chunks whole ones from index first on are
// more than a message can hold, whose last chunk is never a whole one.
func wholeChunks(first uint64, chunks int) error {
	if first+uint64(chunks) > MaxChunks-1 {
		return errTooManyChunks
	}
	return nil
}

// writeAll writes p and turns a short write into an error.
func writeAll(dst io.Writer, p []byte) error {
	if len(p) == 0 {
		return nil
	}
	n, err := dst.Write(p)
	if err == nil && n != len(p) {
		err = io.ErrShortWrite
	}
	return err
}

// Writer encrypts what is written to it. See [Cipher.Writer].
type Writer struct {
	c     *Cipher
	dst   io.Writer
	next  uint64 // index of the next chunk
	part  source // plaintext of a chunk that is not whole yet; never the reader's
	err   error
	procs int
	nonce [nonceSize]byte
}

// Writer returns a writer that encrypts to dst, as a body that begins with
// chunk 0. Close seals the last chunk and leaves dst open; without it the body
// is truncated, and shows it. After any failure, also of a source in ReadFrom,
// every call returns that first error and nothing more is sealed or written.
// It implements [io.ReaderFrom]. It is not safe for concurrent use.
func (c *Cipher) Writer(dst io.Writer) *Writer {
	return &Writer{c: c, dst: dst, part: source{unit: ChunkSize}}
}

// Write encrypts p. A large p is encrypted on several cores.
func (w *Writer) Write(p []byte) (int, error) {
	if w.err != nil {
		return 0, w.err
	}
	total := len(p)
	for w.part.n > 0 && len(p) > 0 || 0 < len(p) && len(p) < ChunkSize {
		n := copy(w.part.hold()[w.part.n:ChunkSize], p)
		w.part.n += n
		p = p[n:]
		if w.part.n == ChunkSize {
			if err := w.flush(); err != nil {
				return 0, w.fail(err)
			}
		}
	}
	run := pipeline{op: w.c.sealBatch, emit: w.emit, procs: w.procs}
	run.fetch = func(b *batch) (bool, error) {
		n := min(len(p)/ChunkSize*ChunkSize, plainBatch)
		if err := w.take(b, p[:n]); err != nil {
			return false, err
		}
		p = p[n:]
		return len(p) >= ChunkSize, nil
	}
	if len(p) >= ChunkSize {
		if err := run.run(); err != nil {
			return 0, w.fail(err)
		}
	}
	if len(p) > 0 {
		w.part.n = copy(w.part.hold(), p)
	}
	return total, nil
}

// take gives b whole chunks of plaintext, and the next indices.
func (w *Writer) take(b *batch, in []byte) error {
	if err := wholeChunks(w.next, len(in)/ChunkSize); err != nil {
		return err
	}
	b.in, b.out, b.first = in, b.outBuf, w.next
	w.next += uint64(len(in) / ChunkSize)
	return nil
}

func (w *Writer) emit(b *batch) error { return writeAll(w.dst, b.out) }

// flush seals the part in place, as the next chunk, and writes it.
func (w *Writer) flush() error {
	if w.part.n == ChunkSize {
		if err := wholeChunks(w.next, 1); err != nil {
			return err
		}
	}
	buf := w.part.hold()
	sealed := w.c.sealChunk(buf[:0], buf[:w.part.n], w.next, &w.nonce)
	w.next++
	w.part.n = 0
	return writeAll(w.dst, sealed)
}

// ReadFrom encrypts src until it ends, on several cores if it gives much at a
// time. It does not close the writer. An error of src fails the writer, so that
// a Close that follows cannot make a short object pass for a whole one.
func (w *Writer) ReadFrom(src io.Reader) (int64, error) {
	if w.err != nil {
		return 0, w.err
	}
	w.part.r, w.part.eof = src, false
	total := -int64(w.part.n)
	run := pipeline{op: w.c.sealBatch, emit: w.emit, procs: w.procs}
	run.fetch = func(b *batch) (bool, error) {
		n, full, err := w.part.fill(b.inBuf[:plainBatch])
		total += int64(n)
		b.prompt = !full
		if limit := w.take(b, b.inBuf[:n]); limit != nil {
			return false, limit
		}
		return !w.part.eof, err
	}
	err := run.run()
	w.part.r = nil
	total += int64(w.part.n)
	if err != nil {
		return total, w.fail(err)
	}
	return total, nil
}

// Close seals the last chunk. A second Close returns what the first did, but
// for a Close that succeeded, which may be repeated.
func (w *Writer) Close() error {
	if w.err == nil {
		if err := w.flush(); err != nil {
			return w.fail(err)
		}
		w.fail(ErrClosed)
	}
	if w.err == ErrClosed {
		return nil
	}
	return w.err
}

// fail ends the writer with its first error.
func (w *Writer) fail(err error) error {
	w.err = err
	w.part.drop()
	return err
}

// EncryptingReader encrypts what it reads. See [Cipher.EncryptingReader].
type EncryptingReader struct {
	c     *Cipher
	src   source
	next  uint64
	out   []byte // sealed, in src.buf, not yet read
	err   error
	procs int
	nonce [nonceSize]byte
}

// EncryptingReader returns a reader of the body that src's bytes encrypt to,
// beginning with chunk 0. It ends after the last chunk, with [io.EOF]. An error
// of src is returned for ever. It implements [io.WriterTo]. It is not safe for
// concurrent use.
func (c *Cipher) EncryptingReader(src io.Reader) *EncryptingReader {
	return &EncryptingReader{c: c, src: source{r: src, unit: ChunkSize}}
}

// Read fills p with as much of the body as src gives without making p wait. A
// large p is filled on several cores.
func (r *EncryptingReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	n := copy(p, r.out)
	r.out = r.out[n:]
	if n > 0 {
		return n, nil
	}
	if r.err != nil {
		r.src.drop()
		return 0, r.err
	}
	if len(p) >= SealedChunkSize && !r.src.eof {
		n, err := r.readBatches(p)
		if err != nil {
			r.fail(err)
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
	if err := r.sealOne(); err != nil {
		return 0, r.fail(err)
	}
	n = copy(p, r.out)
	r.out = r.out[n:]
	return n, nil
}

// readBatches seals whole chunks straight into p.
func (r *EncryptingReader) readBatches(p []byte) (total int, err error) {
	free := p[:len(p)/SealedChunkSize*SealedChunkSize]
	run := pipeline{op: r.c.sealBatch, procs: r.procs}
	run.fetch = func(b *batch) (bool, error) {
		room := min(len(free)/SealedChunkSize*ChunkSize, plainBatch)
		more, err := r.fetch(b, room)
		sealed := len(b.in) / ChunkSize * SealedChunkSize
		b.out, free = free[:0:sealed], free[sealed:]
		return more && !b.prompt && len(free) > 0, err
	}
	run.emit = func(b *batch) error {
		total += len(b.out)
		return nil
	}
	err = run.run()
	return total, err
}

// fetch reads up to room bytes of whole chunks into b.
func (r *EncryptingReader) fetch(b *batch, room int) (more bool, err error) {
	n, full, err := r.src.fill(b.inBuf[:room])
	if limit := wholeChunks(r.next, n/ChunkSize); limit != nil {
		return false, limit
	}
	b.in, b.out, b.first, b.prompt = b.inBuf[:n], b.outBuf, r.next, !full
	r.next += uint64(n / ChunkSize)
	return !r.src.eof, err
}

// sealOne reads and seals the next chunk, in place. After the last one it sets
// err to io.EOF for the calls that come after out is read.
func (r *EncryptingReader) sealOne() error {
	buf := r.src.hold()
	n := r.src.n
	if !r.src.eof {
		whole, _, err := r.src.fill(buf[:ChunkSize])
		if err != nil {
			return err
		}
		n = whole + r.src.n
	}
	if n == ChunkSize {
		if err := wholeChunks(r.next, 1); err != nil {
			return err
		}
	} else {
		r.err = io.EOF
	}
	r.src.n = 0
	r.out = r.c.sealChunk(buf[:0], buf[:n], r.next, &r.nonce)
	r.next++
	return nil
}

// WriteTo writes the rest of the body to dst, on several cores if src gives
// much at a time. After an error, of dst also, the reader has failed.
func (r *EncryptingReader) WriteTo(dst io.Writer) (int64, error) {
	var total int64
	write := func(p []byte) error {
		if err := writeAll(dst, p); err != nil {
			return err
		}
		total += int64(len(p))
		return nil
	}
	if err := write(r.out); err != nil {
		return total, r.fail(err)
	}
	r.out = nil
	if r.err == nil {
		run := pipeline{op: r.c.sealBatch, procs: r.procs}
		run.fetch = func(b *batch) (bool, error) { return r.fetch(b, plainBatch) }
		run.emit = func(b *batch) error { return write(b.out) }
		err := error(nil)
		if !r.src.eof {
			err = run.run()
		}
		if err == nil {
			err = r.sealOne()
		}
		if err == nil {
			err = write(r.out)
		}
		if err != nil {
			return total, r.fail(err)
		}
		r.out = nil
	}
	if r.err == io.EOF {
		r.src.drop()
		return total, nil
	}
	return total, r.err
}

// fail ends the reader with its first error.
func (r *EncryptingReader) fail(err error) error {
	r.err, r.out = err, nil
	r.src.drop()
	return err
}
