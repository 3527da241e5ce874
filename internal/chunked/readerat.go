package chunked

import (
	"errors"
	"fmt"
	"io"
)

// ReaderAt returns random access to the plaintext of a body of the given size.
// It reads the last chunk to authenticate that size, and refuses a body that was
// cut or extended with [ErrTruncated] or a [*ChunkError]. The result's ReadAt is
// safe for concurrent use if that of src is.
func (c *Cipher) ReaderAt(src io.ReaderAt, size int64) (*io.SectionReader, error) {
	r := &readerAt{c: c, src: src, body: size}
	plain, err := PlaintextSize(size)
	if err == nil {
		err = r.verify(plain / ChunkSize)
	}
	if err != nil {
		c.tell(0, err)
		return nil, err
	}
	return io.NewSectionReader(r, 0, plain), nil
}

// SizedReaderAt returns random access to the body of plain bytes, a size that
// the caller has authenticated. It reads nothing.
func (c *Cipher) SizedReaderAt(src io.ReaderAt, plain int64) (*io.SectionReader, error) {
	body, err := CiphertextSize(plain)
	if err != nil {
		return nil, err
	}
	return io.NewSectionReader(&readerAt{c: c, src: src, body: body}, 0, plain), nil
}

// readerAt decrypts at random. The [io.SectionReader] around it keeps every read
// within the plaintext.
type readerAt struct {
	c     *Cipher
	src   io.ReaderAt
	body  int64 // size
	procs int
}

// verify reads and verifies one chunk.
func (r *readerAt) verify(chunk int64) error {
	b := batches.Get().(*batch)
	if err := r.load(b, chunk, 1); err != nil {
		return err
	}
	r.c.openBatch(b)
	err := b.err
	b.recycle()
	return err
}

// ReadAt implements [io.ReaderAt]. It reads only the chunks that hold p, and
// decrypts a large p on several cores.
func (r *readerAt) ReadAt(p []byte, off int64) (total int, err error) {
	if len(p) == 0 {
		return 0, nil
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
	err = run.run()
	clear(p[total:]) // behind a chunk that is not authentic
	r.c.tell(int64(total), err)
	return total, err
}

// load reads n sealed chunks from the source into b. After an error, the source
// may still use b.
func (r *readerAt) load(b *batch, chunk, n int64) error {
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
