package sse

import (
	"io"
	"sync/atomic"

	"github.com/blobseal/blobseal/internal/chunked"
	"github.com/blobseal/blobseal/internal/secret"
)

// Encryption encrypts one object, with one stream. A second stream would use
// the object's key twice and fails with [ErrUsed]. The methods are safe for
// concurrent use; the stream is not.
//
// A service that keeps envelopes in a database and bodies in a blob store must
// not let two writers of one key mix their parts. Store each body first, named
// by [Envelope.BodyID], and then replace the envelope in the database, which
// commits the write. Delete the body that no envelope names any more.
type Encryption struct {
	envelope *Envelope
	body     *chunked.Cipher
	used     atomic.Bool
	observe  observer // of body, or of the parts
}

// Envelope returns the envelope, which decrypts the body. Store it with the body
// or apart from it.
func (e *Encryption) Envelope() *Envelope { return e.envelope }

// Writer returns a writer that encrypts to dst. Close completes the object and
// leaves dst open. Without Close, the object is incomplete and readers refuse it.
//
// Call Close only after you wrote all of the plaintext, and never by defer: after
// an error or a panic of yours, it would complete a short object. A writer that is
// not closed holds no resources.
//
// After a failure, every call returns that first error and nothing more is
// written. A failed source in ReadFrom, and a panic of dst or of a source, are
// failures too. The writer holds less than 20 KiB between calls. It implements
// [io.ReaderFrom], and encrypts long writes on several cores.
func (e *Encryption) Writer(dst io.Writer) io.WriteCloser {
	if e.body == nil || e.used.Swap(true) {
		return failed{ErrUsed}
	}
	return e.body.Writer(dst)
}

// Reader returns a reader that encrypts src. It returns [io.EOF] after the last
// chunk. After a failure, such as an error of src, every call returns that first
// error. The reader implements [io.WriterTo].
func (e *Encryption) Reader(src io.Reader) io.Reader {
	if e.body == nil || e.used.Swap(true) {
		return failed{ErrUsed}
	}
	return e.body.EncryptingReader(src)
}

// failed is a stream that failed before it began.
type failed struct{ err error }

func (f failed) Read([]byte) (int, error)          { return 0, f.err }
func (f failed) Write([]byte) (int, error)         { return 0, f.err }
func (f failed) ReadFrom(io.Reader) (int64, error) { return 0, f.err }
func (f failed) WriteTo(io.Writer) (int64, error)  { return 0, f.err }
func (f failed) Close() error                      { return f.err }

// Decryption decrypts the body of one object, any number of times. It is
// immutable and safe for concurrent use. A reader that it returns belongs to one
// goroutine, except the result of ReaderAt.
type Decryption struct {
	envelope *Envelope
	dek      secret.Key
	body     *chunked.Cipher
	observe  observer // of body, or of the parts
}

// Reader returns a reader of the plaintext of the body in src. All that it
// returns is authentic. It returns [io.EOF] only after the last chunk has
// verified, and the last byte of the plaintext only if the body ends behind it.
// So a truncated body gives an error even to a caller that stops at the length
// its size suggests. The reader's first error stays: [ErrTruncated], a
// [*ChunkError] or one of src. It implements [io.WriterTo].
//
// All readers of a composite object's Decryption are [ErrComposite]: give it to
// [Trailer.Open].
func (d *Decryption) Reader(src io.Reader) io.Reader {
	if d.body == nil {
		return failed{ErrComposite}
	}
	return d.body.Reader(src)
}

// RangeReader returns a reader of n plaintext bytes from off. src starts where
// [CiphertextRange] says, and no more is read of it than that says. A negative
// n means to the end. If the body ends inside the range, or with it, the reader
// proves that end and returns [io.EOF] there. Otherwise it says nothing about
// the body's length: see [Decryption.ReaderAt]. It implements [io.WriterTo].
func (d *Decryption) RangeReader(src io.Reader, off, n int64) io.Reader {
	if d.body == nil {
		return failed{ErrComposite}
	}
	return d.body.RangeReader(src, off, n)
}

// ReaderAt returns random access to the plaintext of a body of size bytes. It
// reads the last chunk to authenticate that size. Each read fetches only the
// chunks it needs, of 16,400 bytes, so buffer small reads in sequence. The
// result's ReadAt is safe for concurrent use if that of src is. Give the result
// to [net/http.ServeContent] to serve ranges.
func (d *Decryption) ReaderAt(src io.ReaderAt, size int64) (*io.SectionReader, error) {
	if d.body == nil {
		return nil, ErrComposite
	}
	return d.body.ReaderAt(src, size)
}
