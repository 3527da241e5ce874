package sse

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"io"

	"github.com/blobseal/blobseal/internal/chunked"
)

// Reader returns a reader of the whole plaintext. src begins at the first byte of
// the stored object, and nothing is read of it behind the last part. All that the
// reader returns is authentic. It returns the last byte, and [io.EOF], only after
// every chunk of every part has verified. Its first error stays: a [*PartError] or
// one of src. It implements [io.WriterTo].
func (c *Composite) Reader(src io.Reader) io.Reader {
	s, err := c.span(0, -1)
	return &compositeReader{c: c, src: src, span: s, left: s.n, heads: true, err: err}
}

// RangeReader returns a reader of n plaintext bytes from off. src begins where
// [Composite.StoredRange] says, and no more is read of it than that says. A range
// up to the end of the object ends as [Composite.Reader] does. The reader
// implements [io.WriterTo].
func (c *Composite) RangeReader(src io.Reader, off, n int64) io.Reader {
	s, err := c.span(off, n)
	return &compositeReader{c: c, src: src, span: s, next: s.first, left: s.n, err: err}
}

// compositeReader reads part after part.
type compositeReader struct {
	c   *Composite
	src io.Reader
	span
	heads bool            // src is before the head of the next part
	next  int             // index of the part behind the open one
	part  *chunked.Reader // the open part, or nil
	left  int64           // plaintext bytes not yet released
	err   error
}

// Read implements [io.Reader].
func (r *compositeReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for r.err == nil && r.open() {
		if r.awaitsEmptyPart() {
			if r.left == 1 {
				return r.readLast(p)
			}
			p = p[:min(int64(len(p)), r.left-1)]
		}
		n, err := r.part.Read(p)
		r.left -= int64(n)
		r.partDone(err)
		if n > 0 {
			return n, nil
		}
	}
	return 0, r.err
}

// WriteTo implements [io.WriterTo].
func (r *compositeReader) WriteTo(dst io.Writer) (written int64, err error) {
	for r.err == nil && r.open() {
		var n int64
		if r.awaitsEmptyPart() {
			n = r.copyHeld(dst)
		} else {
			n, err = r.part.WriteTo(dst)
			r.left -= n
			if err == nil {
				err = io.EOF
			}
			r.partDone(err)
		}
		written += n
	}
	if r.err == io.EOF {
		return written, nil
	}
	return written, r.err
}

// copyHeld writes the rest of the object, the last part of which is empty, through
// Read.
func (r *compositeReader) copyHeld(dst io.Writer) (written int64) {
	p := make([]byte, 16*ChunkSize)
	for {
		n, err := r.Read(p)
		if n > 0 {
			m, werr := dst.Write(p[:n])
			written += int64(max(0, min(m, n)))
			if werr == nil && m != n {
				werr = io.ErrShortWrite
			}
			if werr != nil {
				r.err, err = werr, werr
			}
		}
		if err != nil {
			return written
		}
	}
}

// awaitsEmptyPart reports whether the open part holds the range's last byte and an
// empty part follows, which has to verify before that byte is released.
func (r *compositeReader) awaitsEmptyPart() bool {
	last := len(r.c.parts) - 1
	return r.toEnd && r.next == last && r.c.parts[last].size == 0
}

// readLast reads the last byte, and all that has to verify before its release.
func (r *compositeReader) readLast(p []byte) (int, error) {
	var last [1]byte
	_, err := io.ReadFull(r.part, last[:])
	r.left = 0
	if err == nil {
		err = r.readEnd()
	}
	r.partDone(err)
	if r.err == nil && r.open() { // the empty part
		r.partDone(r.readEnd())
		r.open()
	}
	if r.err != io.EOF {
		return 0, r.err
	}
	p[0] = last[0]
	return 1, nil
}

// readEnd returns io.EOF if the open part ends here.
func (r *compositeReader) readEnd() error {
	var none [1]byte
	n, err := io.ReadFull(r.part, none[:])
	if n > 0 {
		return fmt.Errorf("%w: it is longer than its size", ErrCorrupt)
	}
	return err
}

// partDone ends the open part with the error of its reader.
func (r *compositeReader) partDone(err error) {
	if r.err != nil {
		return
	}
	switch {
	case err == io.EOF:
		r.part = nil
	case err != nil:
		r.err = r.c.partError(r.next-1, err)
	}
}

// open opens the next part if none is open. It returns false, and sets err, if the
// range has ended or the part does not open.
func (r *compositeReader) open() bool {
	if r.part != nil {
		return true
	}
	if r.left == 0 && (!r.toEnd || r.next == len(r.c.parts)) {
		r.err = io.EOF
		return false
	}
	i := r.next
	r.next++
	body, head, err := r.c.body(i)
	if err == nil && r.heads {
		err = r.readHead(i, head)
	}
	if err != nil {
		r.err = r.c.partError(i, err)
		return false
	}
	r.heads = true // of the parts behind this one
	begin := max(r.off, r.c.plain[i])
	from := r.c.chunkAt(i, begin)
	to := min(r.to, r.c.stored[i]+partStored(r.c.parts[i].size))
	n := int64(-1)
	if end := r.off + r.n; end < r.c.plainEnd(i) {
		n = end - begin
	}
	r.part = body.RangeReader(&exactReader{r: r.src, left: to - from}, begin-r.c.plain[i], n)
	return true
}

// readHead reads what is stored before the chunks of part i and compares it.
func (r *compositeReader) readHead(i int, head [chunked.HeadSize]byte) error {
	want := append(partPrefix(r.c.parts[i].number), head[:]...)
	got := make([]byte, len(want))
	if _, err := io.ReadFull(&exactReader{r: r.src, left: int64(len(got))}, got); err != nil {
		return err
	}
	if subtle.ConstantTimeCompare(want, got) != 1 {
		return fmt.Errorf("%w: the head of the part is wrong", ErrCorrupt)
	}
	return nil
}

// partError names the part of an error that says that it is not authentic.
func (c *Composite) partError(i int, err error) error {
	if errors.Is(err, ErrCorrupt) {
		return &PartError{Number: c.parts[i].number, Err: err}
	}
	return err
}

// exactReader reads left bytes of r, and is ErrTruncated if r ends before them.
type exactReader struct {
	r     io.Reader
	left  int64
	empty int // reads in a row that returned nothing
}

func (e *exactReader) Read(p []byte) (int, error) {
	if e.left == 0 {
		return 0, io.EOF
	}
	if len(p) == 0 {
		return 0, nil
	}
	p = p[:min(int64(len(p)), e.left)]
	n, err := e.r.Read(p)
	if n < 0 || n > len(p) {
		return 0, errors.New("sse: source returned an invalid count from Read")
	}
	e.left -= int64(n)
	if n > 0 {
		e.empty = 0
	} else if e.empty++; e.empty == 100 && err == nil {
		return 0, io.ErrNoProgress
	}
	if err == io.EOF {
		err = nil
		if e.left > 0 {
			err = ErrTruncated
		}
	}
	return n, err
}
