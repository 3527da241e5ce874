package blob

import "io"

// endReader reads a plaintext whose length the store claims. It releases the last
// byte only after the plaintext has ended there, which authenticates the end: many
// callers stop reading at the claimed length and never see the error behind it.
type endReader struct {
	rest    io.Reader
	left    int64    // bytes of plaintext until the claimed end
	body    *counter // what rest reads
	bodyLen int64    // that body must have, if not negative
	err     error    // sticks
}

func (e *endReader) Read(p []byte) (int, error) {
	switch {
	case e.err != nil:
		return 0, e.err
	case e.left == 0:
		e.err = e.end()
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
		err = e.end()
	case err == io.EOF:
		err = e.checkBody()
	}
	e.err = err
	if err != io.EOF {
		n--
		p[n] = 0
		return n, err
	}
	return n, nil
}

// end returns io.EOF if the plaintext ends here.
func (e *endReader) end() error {
	var beyond [1]byte
	n, err := io.ReadFull(e.rest, beyond[:])
	switch {
	case n > 0:
		return errSize
	case err != io.EOF:
		return err
	}
	return e.checkBody()
}

// checkBody returns io.EOF if the body had the length that the store claims: a store
// of files looks at a file and then opens it, and so may report the size of one
// version and serve the next.
func (e *endReader) checkBody() error {
	if e.bodyLen >= 0 && e.body.n != e.bodyLen {
		return errSize
	}
	return io.EOF
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
		if err = e.checkBody(); err == io.EOF {
			err = hold.release()
		}
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

// counter counts what is read of a body.
type counter struct {
	r io.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// WriteTo implements [io.WriterTo], to use that of the source.
func (c *counter) WriteTo(w io.Writer) (int64, error) {
	n, err := io.Copy(w, c.r)
	c.n += n
	return n, err
}
