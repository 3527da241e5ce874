package sse

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
)

// WriterOptions are for [NewWriter] and [NewEncryptingReader]. Most services
// leave this nil.
type WriterOptions struct {
	// EnvelopeSize pads the envelope to this size in bytes, so that a rewrapped
	// envelope fits in its place. Zero adds no padding. See [Envelope.WithSize].
	EnvelopeSize int
}

// NewWriter begins an object in the self-contained form. It writes the envelope
// to dst, and returns a writer that encrypts the body behind it. See
// [Encryption.Writer] for when to call Close. ctx bounds only the key
// operation. If that fails, nothing is written to dst.
func NewWriter(ctx context.Context, dst io.Writer, enc Encrypter, obj Object, opts *WriterOptions) (io.WriteCloser, error) {
	e, envelope, err := begin(ctx, enc, obj, opts)
	if err != nil {
		return nil, err
	}
	if _, err := bytes.NewReader(envelope).WriteTo(dst); err != nil {
		return nil, fmt.Errorf("sse: writing the envelope: %w", err)
	}
	return e.Writer(dst), nil
}

// NewEncryptingReader returns a reader of src as an object in the self-contained
// form, for clients that upload from an [io.Reader]. It has [CiphertextSize]
// bytes for src, and the envelope's. An error of src becomes the reader's, so an
// upload must fail with it. The reader implements [io.WriterTo]. ctx bounds only
// the key operation.
func NewEncryptingReader(ctx context.Context, src io.Reader, enc Encrypter, obj Object, opts *WriterOptions) (io.Reader, error) {
	e, envelope, err := begin(ctx, enc, obj, opts)
	if err != nil {
		return nil, err
	}
	return io.MultiReader(bytes.NewReader(envelope), e.Reader(src)), nil
}

// begin draws and seals a data key, and returns the encoded envelope.
func begin(ctx context.Context, enc Encrypter, obj Object, opts *WriterOptions) (*Encryption, []byte, error) {
	if enc == nil {
		return nil, nil, fmt.Errorf("%w: no Encrypter", ErrInvalid)
	}
	e, err := enc.Encrypt(ctx, obj)
	if err != nil {
		return nil, nil, err
	}
	env := e.Envelope()
	if opts != nil && opts.EnvelopeSize != 0 {
		if env, err = env.WithSize(opts.EnvelopeSize); err != nil {
			return nil, nil, err
		}
	}
	envelope, err := env.MarshalBinary()
	return e, envelope, err
}

// NewReader opens an object in the self-contained form and returns a reader of
// its plaintext, as [Decryption.Reader] does. An object that was uploaded in parts
// is [ErrComposite]. ctx bounds only the key operation.
func NewReader(ctx context.Context, src io.Reader, dec Decrypter, obj Object) (io.Reader, error) {
	_, d, err := open(ctx, src, dec, obj)
	if err != nil {
		return nil, err
	}
	return d.Reader(src), nil
}

// NewReaderAt opens an object of size bytes in the self-contained form, or one
// that was uploaded in parts, for random access to its plaintext. It
// authenticates the length, as [Decryption.ReaderAt] and [Trailer.Open] do. ctx
// bounds only the key operation.
func NewReaderAt(ctx context.Context, src io.ReaderAt, size int64, dec Decrypter, obj Object) (*io.SectionReader, error) {
	env, d, err := open(ctx, io.NewSectionReader(src, 0, size), dec, obj)
	if errors.Is(err, ErrComposite) {
		return openComposite(ctx, src, size, dec, obj)
	}
	if err != nil {
		return nil, err
	}
	body := size - int64(env.Size())
	return d.ReaderAt(io.NewSectionReader(src, int64(env.Size()), body), body)
}

// openComposite opens an object that begins with a part.
func openComposite(ctx context.Context, src io.ReaderAt, size int64, dec Decrypter, obj Object) (*io.SectionReader, error) {
	t, err := ReadTrailer(src, size)
	if err != nil {
		return nil, err
	}
	d, err := dec.Decrypt(ctx, obj, t.env)
	if err != nil {
		return nil, err
	}
	c, err := t.Open(d)
	if err != nil {
		return nil, err
	}
	return c.ReaderAt(src), nil
}

// open reads an envelope and opens its data key.
func open(ctx context.Context, src io.Reader, dec Decrypter, obj Object) (*Envelope, *Decryption, error) {
	if dec == nil {
		return nil, nil, fmt.Errorf("%w: no Decrypter", ErrInvalid)
	}
	env, err := ReadEnvelope(src)
	if err != nil {
		return nil, nil, err
	}
	d, err := dec.Decrypt(ctx, obj, env)
	return env, d, err
}
