package chunked

import "io"

// Reader decrypts what it reads, or encrypts it. See [Cipher.Reader],
// [Cipher.RangeReader] and [Cipher.EncryptingReader].
type Reader struct {
	stream
	out []byte // made, in the source's buffer, and not yet read
}

// EncryptingReader returns a reader of the body that src's bytes encrypt to,
// beginning with chunk 0. It ends after the last chunk, with [io.EOF]. An error
// of src is returned for ever. It implements [io.WriterTo]. It is not safe for
// concurrent use.
func (c *Cipher) EncryptingReader(src io.Reader) *Reader {
	return &Reader{stream: newStream(c, false, src)}
}

// Reader returns a reader of the plaintext of the body that src gives. Every
// byte that it returns is authentic, and it returns [io.EOF] only after the last
// chunk has proved that the body is whole; until then what was read is authentic
// but may not be all. Its first error, such as [ErrTruncated], a [*ChunkError]
// or one of src, is returned for ever. It implements [io.WriterTo]. It is not
// safe for concurrent use.
func (c *Cipher) Reader(src io.Reader) *Reader {
	return &Reader{stream: newStream(c, true, src)}
}

// RangeReader returns a reader of n plaintext bytes from off; src starts where
// [CiphertextRange] says, and no more of it is read than that says. With a
// negative n it reads to the end, and proves it as [Cipher.Reader] does. Where
// the body ends inside of the range, the reader proves that end and returns
// [io.EOF] there. An invalid off is returned by the first Read.
func (c *Cipher) RangeReader(src io.Reader, off, n int64) *Reader {
	r := c.Reader(src)
	_, bodyLen, err := CiphertextRange(off, n)
	if err != nil {
		r.err = err
		return r
	}
	r.next = uint64(off / ChunkSize)
	r.skip = int(off % ChunkSize)
	if n >= 0 {
		r.src.r = io.LimitReader(src, bodyLen)
		r.end = r.next + uint64(bodyLen/SealedChunkSize)
		r.left = n
	}
	return r
}

// Read fills p with what the source gives without making p wait for more. A
// large p is filled on several cores.
func (r *Reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for r.failed() == nil && len(r.out) == 0 {
		unit := r.outUnit()
		direct := int(min(int64(len(p)), r.left)) / unit * unit
		if direct > 0 && r.skip == 0 && !r.src.eof && r.next != r.end {
			n, err := r.readBatches(p[:direct])
			if err != nil {
				clear(p[n:direct]) // authentic, but behind a chunk that is not
				r.fail(err)
			}
			if n > 0 {
				return n, err
			}
			continue
		}
		if err := r.readOne(); err != nil {
			r.fail(err)
		}
	}
	n := copy(p, r.out)
	r.out = r.out[n:]
	if n > 0 {
		return n, nil
	}
	r.src.drop()
	return 0, r.err
}

// readBatches puts whole units straight into p, a multiple of their size.
func (r *Reader) readBatches(p []byte) (total int, err error) {
	in, out := r.src.unit, r.outUnit()
	run := pipeline{op: r.op(), procs: r.procs}
	run.fetch = func(b *batch) (bool, error) {
		more, err := r.fetch(b, min(len(p)/out, batchChunks)*in, p[:0])
		n := len(b.in) / in * out
		b.out, p = p[:0:n], p[n:]
		return more && !b.prompt && len(p) > 0, err
	}
	run.emit = func(b *batch) error {
		total += len(r.trim(b.out))
		return nil
	}
	err = run.run()
	return total, err
}

// readOne makes the next unit, in the source's buffer. Behind the last one it
// sets err to io.EOF, for the calls that come after out is read.
func (r *Reader) readOne() error {
	if r.left == 0 || r.next == r.end {
		r.err = io.EOF
		return nil
	}
	n := r.src.n
	if !r.src.eof {
		whole, _, err := r.src.fill(r.src.hold()[:r.src.unit])
		if err != nil {
			return err
		}
		n = whole + r.src.n
	}
	out, err := r.one(n)
	if err != nil {
		return err
	}
	r.out = out
	if n < r.src.unit {
		r.err = io.EOF
	}
	return nil
}

// WriteTo writes the rest to dst, on several cores if the source gives much at
// a time, and without a copy if the source can write itself, as a
// [bytes.Reader] can. After an error, of dst also, the reader has failed.
func (r *Reader) WriteTo(dst io.Writer) (int64, error) {
	failed, out := r.failed(), r.out
	r.out, r.src.away = nil, true
	w := &Writer{dst: dst}
	err := w.write(out)
	if err == nil && failed == nil {
		src := r.src.r
		w.stream = r.stream
		w.src.away = false
		if !w.src.eof && w.left > 0 && w.next != w.end {
			_, err = io.Copy(w, src)
		}
		if first := w.failed(); first != nil {
			err = first // whatever the source made of it
		}
		if err == nil && w.left > 0 && w.next != w.end {
			err = w.flush()
		}
		if err == nil {
			err = io.EOF
		}
		r.stream = w.stream
	}
	r.src.away = false
	if err != nil {
		r.fail(err)
	}
	if r.err == io.EOF {
		return w.written, nil
	}
	return w.written, r.err
}
