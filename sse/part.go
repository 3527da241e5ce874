package sse

import (
	"bytes"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/blobseal/blobseal/internal/chunked"
)

// Part is one attempt to upload a part. It encrypts one stream; a second one is
// [ErrUsed]. To retry after a failure, call [Multipart.Part] for a new attempt and
// send the part again from its start. The methods are safe for concurrent use; the
// stream is not.
//
// A part takes [PartOverhead] bytes more than the [CiphertextSize] of its
// plaintext.
type Part struct {
	upload *Multipart
	entry  entry // without the size
	head   [chunked.HeadSize]byte
	body   *chunked.Cipher
	used   atomic.Bool
	plain  int64        // bytes that the stream has encrypted
	size   atomic.Int64 // plain at the end of the stream, plus 1; 0 until then
}

// Part starts an attempt at the part with this number, from 1 to 10,000. Numbers
// order the parts, and may have gaps.
func (m *Multipart) Part(number int) (*Part, error) {
	if err := m.check(); err != nil {
		return nil, err
	}
	if number < 1 || number > maxParts {
		return nil, fmt.Errorf("%w: part number %d, not 1 to %d", ErrInvalid, number, maxParts)
	}
	p := &Part{upload: m, entry: entry{number: number}}
	body, head, err := chunked.New(m.dek.Bytes(), partContext(m.env.uploadID(), number))
	if err != nil {
		return nil, err
	}
	p.head, p.body = head, body.Observed(p.observe)
	copy(p.entry.salt[:], head[:])
	return p, nil
}

// observe counts the plaintext, and records its size when the stream ends well.
func (p *Part) observe(plain int64, err error) {
	p.plain += plain
	if err == io.EOF {
		p.size.Store(p.plain + 1)
	}
	p.upload.observe.part(plain, err)
}

// prefix returns a reader of what a part stores before its chunks.
func (p *Part) prefix() *bytes.Reader {
	return bytes.NewReader(append(partPrefix(p.entry.number), p.head[:]...))
}

// Writer returns a writer that encrypts the part to dst. Close ends the part and
// leaves dst open. Call it only when the plaintext is complete, as for
// [Encryption.Writer]; the writer has the same properties.
func (p *Part) Writer(dst io.Writer) io.WriteCloser {
	if p.used.Swap(true) {
		return failed{ErrUsed}
	}
	return p.body.Writer(&prefixWriter{prefix: p.prefix(), dst: dst})
}

// Reader returns a reader of the encrypted part, for clients that upload from an
// [io.Reader]. After a failure, such as an error of src, every call returns that
// first error. The reader implements [io.WriterTo].
func (p *Part) Reader(src io.Reader) io.Reader {
	if p.used.Swap(true) {
		return failed{ErrUsed}
	}
	return io.MultiReader(p.prefix(), p.body.EncryptingReader(src))
}

// Receipt returns the part's receipt, for [Completer.Trailer]. The receipt has 106
// bytes and is not secret: it names this attempt, encrypted for whoever completes the
// upload. Receipt is [ErrInvalid] until the whole part is encrypted.
//
// Store the receipt with the part's number. If the part is sent again, replace stored
// part and receipt together: the receipt of a different attempt makes the object
// unreadable.
func (p *Part) Receipt() ([]byte, error) {
	size := p.size.Load()
	if size == 0 {
		return nil, fmt.Errorf("%w: part %d has not ended (close its writer, or read its reader to the end)", ErrInvalid, p.entry.number)
	}
	e := p.entry
	e.size = size - 1
	return p.upload.receipt(e)
}

// prefixWriter writes prefix before the first bytes that it is given.
type prefixWriter struct {
	prefix *bytes.Reader
	dst    io.Writer
}

func (w *prefixWriter) Write(p []byte) (int, error) {
	if _, err := w.prefix.WriteTo(w.dst); err != nil {
		return 0, err
	}
	return w.dst.Write(p)
}
