package blob

import "io"

// endReader reads a plaintext whose length the store claims. It releases the last
// byte only after the plaintext has ended there, which authenticates the end: many
// callers stop reading at the claimed length and never see the error behind it.
type endReader struct {
	rest io.Reader
	left int64 // bytes of plaintext until the claimed end
	err  error // sticks
}

func (e *endReader) Read(p []byte) (int, error) {
	switch {
	case e.err != nil:
		return 0, e.err
	case e.left == 0:
		e.err = e.proveEnd()
		return 0, e.err
	case len(p) == 0:
		return 0, nil
	}
	n, err := e.rest.Read(p[:min(int64(len(p)), e.left)])
	e.left -= int64(n)
	switch {
	case e.left > 0 && err == io.EOF:
		e.err = errSize
		return n, e.err
	case e.left > 0:
		e.err = err
		return n, err
	case err == nil:
		err = e.proveEnd()
	}
	e.err = err
	if err != io.EOF {
		n--
		p[n] = 0
		return n, err
	}
	return n, nil
}

// proveEnd returns io.EOF if the plaintext ends here.
func (e *endReader) proveEnd() error {
	var beyond [1]byte
	n, err := io.ReadFull(e.rest, beyond[:])
	if n > 0 {
		return errSize
	}
	return err
}

// WriteTo implements [io.WriterTo].
func (e *endReader) WriteTo(w io.Writer) (int64, error) {
	if e.err == io.EOF {
		return 0, nil
	}
	if e.err != nil {
		return 0, e.err
	}
	hold := &holdLast{w: w, left: e.left}
	_, err := io.Copy(hold, e.rest)
	e.left = hold.left
	if err == nil && e.left > 0 {
		err = errSize
	}
	if err == nil {
		err = hold.release()
	}
	if e.err = err; err == nil {
		e.err = io.EOF
	}
	return hold.written, err
}

// holdLast writes to w all of left bytes but the last, until release.
type holdLast struct {
	w       io.Writer
	left    int64
	last    [1]byte
	held    bool
	written int64
}

func (h *holdLast) Write(p []byte) (int, error) {
	if int64(len(p)) > h.left {
		return 0, errSize
	}
	h.left -= int64(len(p))
	send := p
	if h.left == 0 && len(p) > 0 {
		send = p[:len(p)-1]
		h.last[0], h.held = p[len(p)-1], true
	}
	if len(send) > 0 {
		n, err := h.w.Write(send)
		h.written += int64(n)
		if err != nil {
			return n, err
		}
		if n < len(send) {
			return n, io.ErrShortWrite
		}
	}
	return len(p), nil
}

// release writes the last byte.
func (h *holdLast) release() error {
	if !h.held {
		return nil
	}
	n, err := h.w.Write(h.last[:])
	h.written += int64(n)
	return err
}
