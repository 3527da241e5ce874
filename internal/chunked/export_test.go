package chunked

import "io"

// The streams below begin at chunk first and run on procs goroutines.

func (c *Cipher) WriterFrom(dst io.Writer, first uint64, procs int) *Writer {
	w := c.Writer(dst)
	w.next, w.procs = first, procs
	return w
}

func (c *Cipher) EncryptingReaderFrom(src io.Reader, first uint64, procs int) *Reader {
	return c.EncryptingReader(src).from(first, procs)
}

func (c *Cipher) ReaderFrom(src io.Reader, first uint64, procs int) *Reader {
	return c.Reader(src).from(first, procs)
}

func (r *Reader) from(first uint64, procs int) *Reader {
	r.next, r.procs = first, procs
	return r
}

func (r *Reader) OnProcs(n int) *Reader { r.procs = n; return r }

// OnProcs has a result of ReaderAt run on n goroutines.
func OnProcs(n int, r *io.SectionReader) *io.SectionReader {
	at, _, _ := r.Outer()
	at.(*readerAt).procs = n
	return r
}

func (c *Cipher) Nonce(i uint64) (n [12]byte) {
	c.nonce(&n, i)
	return n
}

const BatchChunks = batchChunks

// Expand and Info are the derivation's HKDF-Expand and the beginning of its info.
func Expand(key, salt, context []byte) []byte { return expand(key, salt, context) }

const Info = info
