package sse

import (
	"fmt"
	"io"
	"iter"
	"sort"
	"sync/atomic"

	"github.com/blobseal/blobseal/internal/chunked"
	"github.com/blobseal/blobseal/internal/secret"
)

// Composite reads an object that was uploaded in parts. Its sizes and its list of
// parts are authentic. It is immutable and safe for concurrent use. A reader that it
// returns belongs to one goroutine, except the result of ReaderAt.
type Composite struct {
	layout
	dek      secret.Key
	uploadID []byte
	observe  observer
}

// layout says where the parts of an object are.
type layout struct {
	parts  []entry
	plain  []int64 // plain[i] is where part i begins in the plaintext
	stored []int64 // stored[i] is where part i begins in the stored object
	size   int64   // of the plaintext
	end    int64   // where the parts end in the stored object
}

func newLayout(parts []entry) layout {
	l := layout{parts: parts, plain: make([]int64, len(parts)), stored: make([]int64, len(parts))}
	for i, p := range parts {
		l.plain[i], l.stored[i] = l.size, l.end
		l.size += p.size
		l.end += partStored(p.size)
	}
	return l
}

// Size returns the plaintext's size.
func (c *Composite) Size() int64 { return c.size }

// Parts yields each part's number and plaintext size, in order.
func (c *Composite) Parts() iter.Seq2[int, int64] {
	return func(yield func(int, int64) bool) {
		for _, p := range c.parts {
			if !yield(p.number, p.size) {
				return
			}
		}
	}
}

// partAt returns the index of the part that holds plaintext byte off. off is below
// the size.
func (c *Composite) partAt(off int64) int {
	return sort.Search(len(c.parts), func(i int) bool { return c.plainEnd(i) > off })
}

// plainEnd returns where part i ends in the plaintext.
func (c *Composite) plainEnd(i int) int64 { return c.plain[i] + c.parts[i].size }

// chunkAt returns where the chunk of plaintext byte off, in part i, is stored.
func (c *Composite) chunkAt(i int, off int64) int64 {
	return c.stored[i] + PartOverhead + (off-c.plain[i])/ChunkSize*chunked.SealedChunkSize
}

// body returns the cipher and the head of part i.
func (c *Composite) body(i int) (*chunked.Cipher, [chunked.HeadSize]byte, error) {
	p := &c.parts[i]
	return chunked.FromSalt(c.dek.Bytes(), partContext(c.uploadID, p.number), p.salt[:])
}

// StoredRange returns which part of the stored object [Composite.RangeReader]
// needs for n plaintext bytes from off. A negative n means to the end, and an n
// beyond the end is reduced to it. An off that is negative or beyond the end is
// [ErrInvalid].
func (c *Composite) StoredRange(off, n int64) (storedOff, storedLen int64, err error) {
	r, err := c.span(off, n)
	if err != nil {
		return 0, 0, err
	}
	return r.from, r.to - r.from, nil
}

// span is a range of the plaintext, and of the stored bytes that it needs.
type span struct {
	off, end    int64 // in the plaintext
	first, next int   // indices of the first part, and of the part behind the last one
	from, to    int64 // in the stored object
}

func (c *Composite) span(off, n int64) (span, error) {
	if off < 0 || off > c.size {
		return span{}, fmt.Errorf("%w: offset %d in an object of %d bytes", ErrInvalid, off, c.size)
	}
	r := span{off: off, end: c.size, next: len(c.parts), to: c.end}
	if 0 <= n && n < c.size-off {
		r.end = off + n
	}
	if r.end == off && c.size > 0 {
		return span{off: off, end: off, from: c.end, to: c.end}, nil
	}
	if c.size > 0 {
		r.first = c.partAt(off)
	}
	r.from = c.chunkAt(r.first, off)
	if r.end == c.size {
		return r, nil
	}
	last := c.partAt(r.end - 1)
	r.next = last + 1
	_, bodyLen, err := chunked.CiphertextRange(0, r.end-c.plain[last])
	r.to = c.stored[last] + min(PartOverhead+bodyLen, partStored(c.parts[last].size))
	return r, err
}

// ReaderAt returns random access to the plaintext. src is the whole stored object.
// Each read fetches only the chunks it needs, of 16,400 bytes, so buffer small reads
// in sequence. The result's ReadAt is safe for concurrent use if that of src is.
// Damage is a [*PartError].
func (c *Composite) ReaderAt(src io.ReaderAt) *io.SectionReader {
	return io.NewSectionReader(&compositeReaderAt{c: c, src: src}, 0, c.size)
}

// compositeReaderAt decrypts at random. The [io.SectionReader] around it keeps every
// read within the plaintext.
type compositeReaderAt struct {
	c    *Composite
	src  io.ReaderAt
	last atomic.Pointer[openPart]
}

// openPart is the part that was read last.
type openPart struct {
	index int
	r     *io.SectionReader
}

// ReadAt implements [io.ReaderAt].
func (r *compositeReaderAt) ReadAt(p []byte, off int64) (total int, err error) {
	for len(p) > 0 {
		i := r.c.partAt(off)
		n := int(min(int64(len(p)), r.c.plainEnd(i)-off))
		part, err := r.part(i)
		if err != nil {
			return total, err
		}
		n, err = part.ReadAt(p[:n], off-r.c.plain[i])
		total += n
		if err != nil {
			return total, r.c.partError(i, err)
		}
		p, off = p[n:], off+int64(n)
	}
	return total, nil
}

// part returns random access to part i.
func (r *compositeReaderAt) part(i int) (*io.SectionReader, error) {
	if last := r.last.Load(); last != nil && last.index == i {
		return last.r, nil
	}
	body, _, err := r.c.body(i)
	if err != nil {
		return nil, err
	}
	size := r.c.parts[i].size
	at := r.c.stored[i] + PartOverhead
	chunks := io.NewSectionReader(r.src, at, partStored(size)-PartOverhead)
	body = body.Observed(r.c.observe.part)
	var part *io.SectionReader
	if size%ChunkSize == 0 { // nobody else reads the empty last chunk, which proves the size
		part, err = body.ReaderAt(chunks, chunks.Size())
	} else {
		part, err = body.SizedReaderAt(chunks, size)
	}
	if err != nil {
		return nil, err
	}
	r.last.Store(&openPart{i, part})
	return part, nil
}
