package sse

import (
	"errors"
	"fmt"
	"io"

	"github.com/blobseal/blobseal/internal/chunked"
)

// Trailer is the end of a stored composite object: its manifest, envelope and footer.
// It is immutable.
type Trailer struct {
	stored   int64 // size of the whole stored object
	footer   footer
	manifest []byte // sealed
	env      *Envelope
}

// ReadTrailer reads the trailer of a composite object of size stored bytes. It
// reads the first 10 bytes and the last 64 KiB of src, and then, for an object of
// many parts, once more, at most 400 KiB. Nothing in the trailer is authentic yet.
//
// An object that is not composite, and one without a valid footer at its end, is
// [ErrFormat]. An object of an unknown version is [ErrVersion].
func ReadTrailer(src io.ReaderAt, size int64) (*Trailer, error) {
	if size < 0 {
		return nil, fmt.Errorf("%w: negative size %d", ErrInvalid, size)
	}
	head, err := readStored(src, 0, min(size, int64(len(magic)+2)))
	if err != nil {
		return nil, err
	}
	if !isComposite(head) {
		if _, err := parsePrefix(head, version); errors.Is(err, ErrVersion) {
			return nil, err
		}
		return nil, fmt.Errorf("%w: object is not composite", ErrFormat)
	}
	at := max(0, size-tailSize)
	tail, err := readStored(src, at, size-at)
	if err != nil {
		return nil, err
	}
	t := &Trailer{stored: size}
	if err := t.footer.unmarshal(tail[max(0, len(tail)-footerSize):]); err != nil {
		return nil, err
	}
	start := size - t.footer.trailer()
	if start < leastPartStored {
		return nil, fmt.Errorf("%w: composite object of %d bytes is smaller than its trailer says", ErrFormat, size)
	}
	if start < at {
		more, err := readStored(src, start, at-start)
		if err != nil {
			return nil, err
		}
		tail, at = append(more, tail...), start
	}
	trailer := tail[start-at:]
	t.manifest = trailer[:t.footer.manifest]
	t.env = new(Envelope)
	envelope := trailer[t.footer.manifest:][:t.footer.envelope]
	if isComposite(envelope) { // a part's prefix is no envelope
		return nil, fmt.Errorf("%w: composite object has no envelope", ErrFormat)
	}
	if err := t.env.parse(envelope, kindComposite); err != nil {
		return nil, err
	}
	return t, nil
}

// readStored reads n bytes at off.
func readStored(src io.ReaderAt, off, n int64) ([]byte, error) {
	p := make([]byte, n)
	m, err := src.ReadAt(p, off)
	switch {
	case m == len(p): // with io.EOF or without
		return p, nil
	case err == nil || errors.Is(err, io.EOF):
		return nil, fmt.Errorf("%w: it ends before its size", ErrTruncated)
	}
	return nil, fmt.Errorf("sse: reading a composite object: %w", err)
}

// trailer returns the size of manifest, envelope and footer.
func (f footer) trailer() int64 { return int64(f.manifest) + int64(f.envelope) + footerSize }

// Envelope returns the object's envelope, for [Decrypter].Decrypt.
func (t *Trailer) Envelope() *Envelope { return t.env }

// Size returns the plaintext size in the footer, for listings. It is not authentic;
// [Composite.Size] is.
func (t *Trailer) Size() int64 { return t.footer.plain }

// Open authenticates the list of parts and the stored size. d is what a Decrypter
// returned for [Trailer.Envelope]. A truncated object is [ErrTruncated], and one with
// any other change is [ErrCorrupt].
func (t *Trailer) Open(d *Decryption) (*Composite, error) {
	if d == nil || !sameUpload(d.envelope, t.env) {
		return nil, fmt.Errorf("%w: Trailer.Open needs the Decryption of its own envelope", ErrInvalid)
	}
	mk, err := manifestKey(d.dek, t.env.uploadID())
	if err != nil {
		return nil, err
	}
	plain, err := chunked.OpenMessage(mk.Bytes(), []byte(manifestLabel), t.manifest)
	if err != nil {
		return nil, fmt.Errorf("%w: its manifest is not authentic", ErrCorrupt)
	}
	var m manifest
	if err := m.unmarshal(plain); err != nil {
		return nil, err
	}
	c := &Composite{layout: newLayout(m.parts), dek: d.dek, uploadID: t.env.uploadID(), observe: d.observe}
	if c.size != t.footer.plain {
		return nil, fmt.Errorf("%w: its footer says %d bytes, its parts have %d", ErrCorrupt, t.footer.plain, c.size)
	}
	switch want := c.end + m.filler + t.footer.trailer(); {
	case t.stored < want:
		return nil, fmt.Errorf("%w: %d of %d bytes", ErrTruncated, t.stored, want)
	case t.stored > want:
		return nil, fmt.Errorf("%w: it has %d bytes, its parts have %d", ErrCorrupt, t.stored, want)
	}
	return c, nil
}

// Replace returns the new end of the stored object for an envelope that
// [Cipher.Rewrap] made, and the offset where it begins. The bytes before off do not
// change. The tail is as long as the old one, or a multiple of 16,400 bytes longer,
// which keeps the effect of [TrailerOptions].EnvelopeSize. An envelope that you padded
// with [Envelope.WithSize] keeps its size.
//
// The store must publish the new object as a whole, and only in place of the
// version that you read.
func (t *Trailer) Replace(env *Envelope) (tail []byte, off int64, err error) {
	if !sameUpload(env, t.env) {
		return nil, 0, fmt.Errorf("%w: Trailer.Replace needs an envelope of the same composite object", ErrInvalid)
	}
	if env.padding == 0 {
		size := t.env.Size()
		for size < env.Size() {
			size += chunked.SealedChunkSize
		}
		if env, err = env.WithSize(size); err != nil {
			return nil, 0, err
		}
	}
	envelope, err := env.MarshalBinary()
	if err != nil {
		return nil, 0, err
	}
	f := t.footer
	f.envelope = len(envelope)
	return append(envelope, f.marshal()...), t.stored - int64(t.footer.envelope) - footerSize, nil
}
