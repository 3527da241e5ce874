package sse

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/blobseal/blobseal/internal/chunked"
)

// Part is one attempt to upload a part. It encrypts one stream; a second one is
// [ErrUsed]. To try again after a failure, call [Multipart.Part] for a new attempt
// and send the part again from its start. Its methods are safe for concurrent use;
// its stream is not.
//
// A part takes [PartOverhead] bytes more than the [CiphertextSize] of its
// plaintext.
type Part struct {
	completer *Completer
	entry     entry // without the size
	head      [chunked.HeadSize]byte
	body      *chunked.Cipher
	used      atomic.Bool
	size      atomic.Int64 // of the plaintext, plus 1; 0 until the stream has ended
}

// Part starts an attempt at the part of a number from 1 to 10,000. Numbers order
// the parts, and may have gaps.
func (m *Multipart) Part(number int) (*Part, error) {
	if err := m.check(); err != nil {
		return nil, err
	}
	if number < 1 || number > maxParts {
		return nil, fmt.Errorf("%w: part number %d, not 1 to %d", ErrInvalid, number, maxParts)
	}
	p := &Part{completer: &m.Completer, entry: entry{number: number}}
	var err error
	p.body, p.head, err = chunked.New(m.dek.Bytes(), partContext(m.env.uploadID(), number))
	if err == nil && m.observe != nil {
		p.body = p.body.Observed(m.observe.part)
	}
	copy(p.entry.salt[:], p.head[:])
	return p, err
}

// prefix is what a part stores before its chunks.
func (p *Part) prefix() []byte { return append(partPrefix(p.entry.number), p.head[:]...) }

// Writer returns a writer that encrypts the part to dst. Close ends the part and
// leaves dst open. Call it only when the plaintext is complete, as for
// [Encryption.Writer]; the writer has the same properties.
func (p *Part) Writer(dst io.Writer) io.WriteCloser {
	if p.used.Swap(true) {
		return failed{ErrUsed}
	}
	return &partWriter{part: p, dst: dst, w: p.body.Writer(dst)}
}

// Reader returns a reader of the encrypted part, for clients that upload from an
// [io.Reader]. An error of src is returned for ever. It implements [io.WriterTo].
func (p *Part) Reader(src io.Reader) io.Reader {
	if p.used.Swap(true) {
		return failed{ErrUsed}
	}
	r := p.body.EncryptingReader(src)
	return &partReader{part: p, all: io.MultiReader(bytes.NewReader(p.prefix()), r), body: r}
}

// Receipt returns the part's receipt, which [Completer.Trailer] takes. It is 106
// bytes, and not secret: it names this attempt, and is encrypted for whoever
// completes the upload. Until the stream has ended well, it is [ErrInvalid].
//
// Keep the receipt with the part's number, and replace both together. A receipt
// without its stored part, or one of another attempt, makes the object unreadable.
func (p *Part) Receipt() ([]byte, error) {
	size := p.size.Load()
	if size == 0 {
		return nil, fmt.Errorf("%w: part %d has not ended (close its writer, or read its reader to the end)", ErrInvalid, p.entry.number)
	}
	e := p.entry
	e.size = size - 1
	return p.completer.receipt(e)
}

// ended records the plaintext size of a stream that ended well.
func (p *Part) ended(plain int64) { p.size.Store(plain + 1) }

// partWriter encrypts a part that is written to it.
type partWriter struct {
	part  *Part
	dst   io.Writer
	w     *chunked.Writer
	begun bool
	err   error // of writing the prefix
	plain int64
}

// errPanicked stays if the destination panics in begin.
var errPanicked = errors.New("sse: destination panicked (start a new part)")

// begin writes the prefix and the head before the first chunk.
func (w *partWriter) begin() error {
	if w.begun {
		return w.err
	}
	w.begun, w.err = true, errPanicked
	prefix := w.part.prefix()
	n, err := w.dst.Write(prefix)
	if err == nil && n != len(prefix) {
		err = io.ErrShortWrite
	}
	w.err = err
	return err
}

func (w *partWriter) Write(p []byte) (int, error) {
	if err := w.begin(); err != nil {
		return 0, err
	}
	n, err := w.w.Write(p)
	w.plain += int64(n)
	return n, err
}

// ReadFrom implements [io.ReaderFrom].
func (w *partWriter) ReadFrom(src io.Reader) (int64, error) {
	if err := w.begin(); err != nil {
		return 0, err
	}
	n, err := w.w.ReadFrom(src)
	w.plain += n
	return n, err
}

func (w *partWriter) Close() error {
	if err := w.begin(); err != nil {
		return err
	}
	if err := w.w.Close(); err != nil {
		return err
	}
	w.part.ended(w.plain)
	return nil
}

// partReader reads an encrypted part.
type partReader struct {
	part   *Part
	all    io.Reader
	body   *chunked.Reader
	stored int64
}

func (r *partReader) Read(p []byte) (int, error) {
	n, err := r.all.Read(p)
	r.count(int64(n))
	return n, err
}

// WriteTo implements [io.WriterTo].
func (r *partReader) WriteTo(dst io.Writer) (int64, error) {
	n, err := r.all.(io.WriterTo).WriteTo(dst)
	r.count(n)
	return n, err
}

// count adds n stored bytes, and records the end of the part.
func (r *partReader) count(n int64) {
	r.stored += n
	if !r.body.Ended() {
		return
	}
	if plain, err := PlaintextSize(r.stored - PartOverhead); err == nil {
		r.part.ended(plain)
	}
}
