package chunked

import "io"

// Writer encrypts what is written to it. See [Cipher.Writer].
type Writer struct {
	stream
	dst     io.Writer
	written int64
}

// Writer returns a writer that encrypts to dst, as a body that begins with
// chunk 0. Close seals the last chunk and leaves dst open; without it the body
// is truncated, and shows it. After any failure, also of a source in ReadFrom,
// and after a panic of either, every call returns that first error and nothing
// more is sealed or written.
// It implements [io.ReaderFrom]. It is not safe for concurrent use.
func (c *Cipher) Writer(dst io.Writer) *Writer {
	return &Writer{stream: newStream(c, false, nil), dst: dst}
}

// Write encrypts p. A large p is encrypted on several cores.
func (w *Writer) Write(p []byte) (int, error) {
	if err := w.failed(); err != nil {
		return 0, err
	}
	unit, total := w.src.unit, len(p)
	for len(p) > 0 && (w.src.n > 0 || len(p) < unit) {
		n := copy(w.src.hold()[w.src.n:unit], p)
		w.src.n += n
		p = p[n:]
		if w.src.n == unit {
			if err := w.flush(); err != nil {
				return 0, w.fail(err)
			}
		}
	}
	if len(p) == 0 {
		return total, nil
	}
	run := pipeline{op: w.op(), emit: w.emit, procs: w.procs}
	run.fetch = func(b *batch) (bool, error) {
		units := p[:min(len(p)/unit, batchChunks)*unit]
		p = p[len(units):]
		return len(p) >= unit, w.assign(b, units, b.output())
	}
	if err := run.run(); err != nil {
		return 0, w.fail(err)
	}
	if len(p) > 0 {
		w.src.n = copy(w.src.hold(), p)
	}
	return total, nil
}

// ReadFrom encrypts src until it ends, on several cores if it gives much at a
// time. It does not close the writer. An error of src fails the writer, so that
// a Close that follows cannot make a short object pass for a whole one.
func (w *Writer) ReadFrom(src io.Reader) (int64, error) {
	if err := w.failed(); err != nil {
		return 0, err
	}
	w.src.r, w.src.eof = src, false
	total := -int64(w.src.n)
	run := pipeline{op: w.op(), emit: w.emit, procs: w.procs}
	run.fetch = func(b *batch) (bool, error) {
		more, err := w.fetch(b, batchChunks*w.src.unit, b.output())
		total += int64(len(b.in))
		return more, err
	}
	err := run.run()
	w.src.r = nil
	total += int64(w.src.n)
	if err != nil {
		return total, w.fail(err)
	}
	return total, nil
}

// Close seals the last chunk. After a failure it returns that failure; a Close
// that succeeded may be repeated.
func (w *Writer) Close() error {
	if w.failed() == nil {
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

// flush transforms what has come of a unit and writes it.
func (w *Writer) flush() error {
	out, err := w.one(w.src.n)
	if err != nil {
		return err
	}
	return w.write(out)
}

func (w *Writer) emit(b *batch) error { return w.write(w.trim(b.out)) }

// write writes all of p. A short write is an error.
func (w *Writer) write(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	w.src.away = true
	n, err := w.dst.Write(p)
	w.src.away = false
	w.written += int64(max(0, min(n, len(p))))
	if err == nil && n != len(p) {
		err = io.ErrShortWrite
	}
	return err
}
