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
	return &compositeReader{c: c, src: src, span: s, heads: true, err: err}
}

// RangeReader returns a reader of n plaintext bytes from off. src begins where
// [Composite.StoredRange] says, and no more is read of it than that says. A range
// up to the end of the object ends as [Composite.Reader] does. The reader
// implements [io.WriterTo].
func (c *Composite) RangeReader(src io.Reader, off, n int64) io.Reader {
	s, err := c.span(off, n)
	return &compositeReader{c: c, src: src, span: s, err: err}
}

// compositeReader reads part after part.
type compositeReader struct {
	c     *Composite
	src   io.Reader
	span                  // first is the part behind the open one
	heads bool            // src is before the head of part first
	part  *chunked.Reader // the open part, or nil
	err   error
}

// Read implements [io.Reader].
func (r *compositeReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for r.open() {
		n, err := r.part.Read(p)
		r.partDone(err)
		if n > 0 {
			return n, nil
		}
	}
	return 0, r.err
}

// WriteTo implements [io.WriterTo].
func (r *compositeReader) WriteTo(dst io.Writer) (written int64, err error) {
	for r.open() {
		n, err := r.part.WriteTo(dst)
		written += n
		if err == nil {
			err = io.EOF
		}
		r.partDone(err)
	}
	if r.err == io.EOF {
		return written, nil
	}
	return written, r.err
}

// partDone closes the open part at its end, and keeps any other error of its reader.
func (r *compositeReader) partDone(err error) {
	switch {
	case err == nil || r.err != nil:
	case err == io.EOF:
		r.part = nil
	default:
		r.err = r.c.partError(r.first-1, err)
	}
}

// open opens the next part if none is open. It reports whether a part is open; if
// none is, err says why.
func (r *compositeReader) open() bool {
	if r.err != nil || r.part != nil {
		return r.err == nil
	}
	if r.first == r.next {
		r.err = io.EOF
		return false
	}
	i := r.first
	body, err := r.openBody(i)
	if err != nil {
		r.err = r.c.partError(i, err)
		return false
	}
	begin, n := max(r.off, r.c.plain[i]), int64(-1)
	if r.end < r.c.plainEnd(i) {
		n = r.end - begin
	}
	to := min(r.to, r.c.stored[i]+partStored(r.c.parts[i].size))
	src := &exactReader{r: r.src, left: to - r.c.chunkAt(i, begin)}
	r.first++
	if r.first < r.next && r.c.parts[r.first].size == 0 {
		src.behind = r.verifyEmpty
	}
	r.part = body.Observed(r.c.observe.part).RangeReader(src, begin-r.c.plain[i], n)
	return true
}

// openBody returns the cipher of part i, and reads its head unless src is behind it.
func (r *compositeReader) openBody(i int) (*chunked.Cipher, error) {
	body, head, err := r.c.body(i)
	if err == nil && r.heads {
		err = r.readHead(i, head)
	}
	r.heads = true // of the parts behind this one
	return body, err
}

// verifyEmpty reads and verifies the last part, which is empty. The source of the part
// before it calls verifyEmpty before it ends, so that part holds back the object's
// last byte until then.
func (r *compositeReader) verifyEmpty() error {
	r.next--
	body, err := r.openBody(r.next)
	if err == nil {
		_, err = io.Copy(io.Discard, body.Reader(&exactReader{r: r.src, left: chunked.TagSize}))
	}
	r.err = r.c.partError(r.next, err)
	return r.err
}

// readHead reads what is stored before the chunks of part i, and verifies it.
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

// partError adds the number of part i to an error that means damage.
func (c *Composite) partError(i int, err error) error {
	if errors.Is(err, ErrCorrupt) {
		return &PartError{Number: c.parts[i].number, Err: err}
	}
	return err
}

// exactReader reads left bytes of r. If r ends before them, it returns ErrTruncated.
type exactReader struct {
	r      io.Reader
	left   int64
	behind func() error // called once after the last byte, unless nil; an error replaces io.EOF
}

func (e *exactReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if e.left == 0 {
		if e.behind != nil {
			if err := e.behind(); err != nil {
				return 0, err
			}
			e.behind = nil
		}
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), e.left)]
	n, err := e.r.Read(p)
	if n < 0 || n > len(p) {
		return 0, errors.New("sse: source returned an invalid count from Read")
	}
	e.left -= int64(n)
	if err == io.EOF {
		err = nil
		if e.left > 0 {
			err = ErrTruncated
		}
	}
	return n, err
}
