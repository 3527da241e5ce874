package chunked

import (
	"cmp"
	"fmt"
	"io"
)

// Writer encrypts what is written to it. See [Cipher.Writer].
type Writer struct{ stream }

// Writer returns a writer that encrypts to dst, as a body that begins with
// chunk 0. Close seals the last chunk and leaves dst open; without Close, the
// body is truncated. After a failure, a source's in ReadFrom included, every
// call returns that first error and nothing more is written. A panic of dst or
// of a source is a failure too.
//
// A Writer implements [io.ReaderFrom]. It is not safe for concurrent use: a second
// call at the same time fails, and so does the Writer.
func (c *Cipher) Writer(dst io.Writer) *Writer {
	w := new(Writer)
	w.init(c, false)
	w.dst = dst
	return w
}

// begin enters the stream if it can still be written to.
func (w *Writer) begin() error {
	if err := w.enter(); err != nil {
		return err
	}
	if w.err != nil {
		return w.leave(w.err)
	}
	return nil
}

// Write encrypts p. It encrypts a large p on several cores.
func (w *Writer) Write(p []byte) (int, error) {
	if err := w.begin(); err != nil {
		return 0, err
	}
	if err := w.push(p); err != nil {
		w.c.tell(0, err)
		return 0, w.leave(w.fail(err))
	}
	w.c.tell(int64(len(p)), nil)
	return len(p), w.leave(nil)
}

// ReadFrom encrypts src until it ends, on several cores if src returns much at
// a time. It does not close the writer. An error of src fails the writer, so a
// later Close cannot complete a short object.
func (w *Writer) ReadFrom(src io.Reader) (int64, error) {
	if err := w.begin(); err != nil {
		return 0, err
	}
	n, err := w.pull(src)
	if err == errClosed { // that of another writer
		err = fmt.Errorf("sse: source failed: %w", err)
	}
	if err != nil {
		w.fail(err)
	}
	w.c.tell(n, err)
	return n, w.leave(err)
}

// Close seals the last chunk. After a failure it returns that failure. A Close
// that succeeded may be repeated.
func (w *Writer) Close() error {
	if err := w.enter(); err != nil {
		return err
	}
	switch w.err {
	case nil:
	case errClosed:
		return w.leave(nil)
	default:
		return w.leave(w.err)
	}
	err := w.flush(true)
	w.fail(cmp.Or(err, errClosed))
	err = w.leave(err) // before the observer learns that the end is good
	w.c.tell(0, cmp.Or(err, io.EOF))
	return err
}
