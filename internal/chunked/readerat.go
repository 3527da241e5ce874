package chunked

import (
	"errors"
	"fmt"
	"io"
)

// ReaderAt gives random access to plaintext. See [Cipher.ReaderAt].
type ReaderAt struct {
	c     *Cipher
	src   io.ReaderAt
	size  int64 // of the plaintext
	body  int64
	procs int
}

// ReaderAt returns random access to the plaintext of a body of the given size.
// It reads the last chunk to authenticate that size, and refuses a body that was
// cut or extended with [ErrTruncated] or a [*ChunkError]. The result is safe for
// concurrent use if src is.
func (c *Cipher) ReaderAt(src io.ReaderAt, size int64) (*ReaderAt, error) {
	plain, err := PlaintextSize(size)
	if err != nil {
		tell(c.observe, 0, err)
		return nil, err
	}
	r := &ReaderAt{c: c, src: src, size: plain, body: size}
	if err := r.verifyLast(); err != nil {
		tell(c.observe, 0, err)
		return nil, err
	}
	return r, nil
}

// SizedReaderAt returns random access to the body of plain bytes, a size that
// the caller has authenticated. It reads nothing.
func (c *Cipher) SizedReaderAt(src io.ReaderAt, plain int64) (*ReaderAt, error) {
	body, err := CiphertextSize(plain)
	if err != nil {
		return nil, err
	}
	return &ReaderAt{c: c, src: src, size: plain, body: body}, nil
}

// verifyLast reads the last chunk and verifies it.
func (r *ReaderAt) verifyLast() error {
	last := batches.Get().(*batch)
	if err := r.load(last, r.size/ChunkSize, 1); err != nil {
		return err
	}
	r.c.openBatch(last)
	err := last.err
	last.recycle()
	return err
}

// Size returns the authentic size of the plaintext.
func (r *ReaderAt) Size() int64 { return r.size }

// ReadAt implements [io.ReaderAt]. It reads only the chunks that hold p, and
// decrypts a large p on several cores.
func (r *ReaderAt) ReadAt(p []byte, off int64) (total int, err error) {
	if off < 0 {
		return 0, fmt.Errorf("%w: negative offset %d", ErrInvalid, off)
	}
	if off >= r.size {
		if len(p) == 0 {
			return 0, nil
		}
		return 0, io.EOF
	}
	end := error(nil)
	if int64(len(p)) > r.size-off {
		p, end = p[:r.size-off], io.EOF
	}
	if len(p) == 0 {
		return 0, end
	}
	chunk := off / ChunkSize
	skip := int(off % ChunkSize)
	chunks := (int64(skip) + int64(len(p)) + ChunkSize - 1) / ChunkSize
	free := p // not yet assigned to a batch
	run := pipeline{op: r.c.openBatch, procs: r.procs}
	run.fetch = func(b *batch) (bool, error) {
		n := min(chunks, batchChunks)
		if err := r.load(b, chunk, n); err != nil {
			return false, err
		}
		chunk, chunks = chunk+n, chunks-n
		// Open a batch in place if it fills its part of p exactly.
		if opens := int(n) * ChunkSize; skip == 0 && len(free) >= opens {
			b.out, free = free[:0:opens], free[opens:]
		} else {
			free = free[min(opens-skip, len(free)):]
		}
		skip = 0
		return chunks > 0, nil
	}
	lead := int(off % ChunkSize)
	run.emit = func(b *batch) error {
		out := b.out[min(lead, len(b.out)):]
		lead = 0
		if len(out) > 0 && &out[0] != &p[total] { // not opened in place
			out = out[:copy(p[total:], out)]
		}
		total += len(out)
		return nil
	}
	if err := run.run(); err != nil {
		clear(p[total:]) // behind a chunk that is not authentic
		tell(r.c.observe, int64(total), err)
		return total, err
	}
	tell(r.c.observe, int64(total), nil)
	return total, end
}

// load reads n sealed chunks from the source into b. After an error, the source
// may still use b.
func (r *ReaderAt) load(b *batch, chunk, n int64) error {
	at := chunk * SealedChunkSize
	b.doubt = true
	sealed := b.input()[:min(n*SealedChunkSize, r.body-at)]
	m, err := r.src.ReadAt(sealed, at)
	switch {
	case m == len(sealed): // err may be io.EOF
		b.in, b.out, b.first, b.doubt = sealed, b.output(), uint64(chunk), false
		return nil
	case err == nil || errors.Is(err, io.EOF):
		return fmt.Errorf("%w: body ends before its size of %d bytes", ErrTruncated, r.body)
	}
	return err
}
