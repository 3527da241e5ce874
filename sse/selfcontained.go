package sse

import (
	"context"
	"fmt"
	"io"
)

// WriterOptions are for [NewWriter]. The zero value is right for most.
type WriterOptions struct {
	// EnvelopeSize pads the envelope to that many bytes, for rewraps in place;
	// zero leaves it as short as it is. See [Envelope.WithSize].
	EnvelopeSize int
}

// NewWriter starts an object in the self-contained form: it writes the envelope
// to dst, and the writer that it returns writes the body behind it. See
// [Encryption.Writer] on its Close. Nothing is written to dst if the key phase
// fails, which alone ctx bounds.
func NewWriter(ctx context.Context, dst io.Writer, enc Encrypter, obj Object, opts *WriterOptions) (io.WriteCloser, error) {
	e, err := enc.Encrypt(ctx, obj)
	if err != nil {
		return nil, err
	}
	env := e.Envelope()
	if opts != nil && opts.EnvelopeSize != 0 {
		if env, err = env.WithSize(opts.EnvelopeSize); err != nil {
			return nil, err
		}
	}
	data, err := env.MarshalBinary()
	if err != nil {
		return nil, err
	}
	n, err := dst.Write(data)
	if err == nil && n != len(data) {
		err = io.ErrShortWrite
	}
	if err != nil {
		return nil, fmt.Errorf("sse: writing the envelope: %w", err)
	}
	return e.Writer(dst), nil
}

// NewReader opens an object in the self-contained form and returns a reader of
// its plaintext; see [Decryption.Reader]. ctx bounds the key phase alone.
func NewReader(ctx context.Context, src io.Reader, dec Decrypter, obj Object) (io.Reader, error) {
	env, err := ReadEnvelope(src)
	if err != nil {
		return nil, err
	}
	d, err := dec.Decrypt(ctx, obj, env)
	if err != nil {
		return nil, err
	}
	return d.Reader(src), nil
}

// NewReaderAt opens an object of size bytes in the self-contained form, for
// random access to its plaintext, and authenticates its length; see
// [Decryption.ReaderAt]. ctx bounds the key phase alone.
func NewReaderAt(ctx context.Context, src io.ReaderAt, size int64, dec Decrypter, obj Object) (*io.SectionReader, error) {
	env, err := ReadEnvelope(io.NewSectionReader(src, 0, size))
	if err != nil {
		return nil, err
	}
	d, err := dec.Decrypt(ctx, obj, env)
	if err != nil {
		return nil, err
	}
	body := size - int64(env.Size())
	return d.ReaderAt(io.NewSectionReader(src, int64(env.Size()), body), body)
}
