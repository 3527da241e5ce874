// Package sse encrypts blobs as S3's server-side encryption does: every object
// under its own random 256-bit data key, and that key sealed under a key that
// one of three mutually exclusive modes manages.
//
//   - SSE-S3, [NewManaged]: a key ring of yours, whose master key rotates.
//   - SSE-KMS, [NewKMS]: a key service, which decides who may use which key and
//     records each use.
//   - SSE-C, [NewCustomer]: a key that the caller brings with every request.
//
// The shortest way to use it is the self-contained form, an envelope and then
// the body, through [NewWriter] and [NewReader]:
//
//	ring, err := keyring.Open(ctx, store, root, nil)
//	cipher := sse.NewManaged(ring)
//	obj := sse.Object{Bucket: "photos", Key: "2026/cat.jpg"}
//
//	w, err := sse.NewWriter(ctx, dst, cipher, obj, nil)
//	_, err = io.Copy(w, plaintext)
//	err = w.Close() // without Close the object is truncated, and shows it
//
//	r, err := sse.NewReader(ctx, src, cipher, obj)
//	_, err = io.Copy(plaintext, r)
//
// # Two phases
//
// Encryption has a key phase and a data phase. The key phase, [Encrypter.Encrypt]
// or [Decrypter.Decrypt], may talk to a network, so it takes a ctx. What it
// returns, an [Encryption] or a [Decryption], makes streams that need nothing
// more; they are cancelled through the reader or writer under them. A service
// that has a metadata store of its own keeps the [Envelope] there, detached from
// the body; the self-contained form is only a convenience on top.
//
// # What is guaranteed
//
// No byte of plaintext is released before it is authenticated, in the stream, in
// a range and at random. A reader returns [io.EOF] only after it has proved that
// the body is whole: data is tentative until then, and a server that meets an
// error when it has sent some breaks its answer off, as in the example of
// [NewReader], rather than end a short object cleanly. An envelope opens only for
// its own object (bucket, key and encryption context), only in its own mode and
// only with its own body. See SPEC.md beside this package for the format, which
// version 1 fixes for good, and for what an attacker can and cannot do.
//
// # Changing keys
//
// Rotation of a master key, exchange of a customer's key, a rename, a copy and a
// change of mode re-seal the data key, 104 bytes in the envelope; the body's
// bytes never change: see [Cipher].
package sse

import (
	"context"

	"github.com/blobseal/blobseal/internal/chunked"
	"github.com/blobseal/blobseal/kms"
)

// Object identifies what is encrypted. It is authenticated and not stored: who
// opens an object says which one it should be, and an envelope that was moved to
// another name does not open. Bucket and Key are compared byte by byte, never
// cleaned or joined; each holds at most 65,535 bytes, and both may be empty.
//
// Context holds the caller's own pairs. They are bound like the name, stored in
// the envelope in the clear, and at most 8,192 bytes long in its encoding. When
// an object is opened or rewrapped, a nil Context stands for the stored pairs,
// and one that is not nil must equal them, or replaces them. Names that begin with
// "blobseal:" are [ErrInvalid].
type Object struct {
	Bucket, Key string
	Context     kms.Context
}

// Encrypter starts the encryption of objects. Implementations are safe for
// concurrent use.
type Encrypter interface {
	// Encrypt draws a new data key for obj and seals it. ctx bounds the key
	// operation only. Nothing is written when it fails.
	Encrypt(ctx context.Context, obj Object) (*Encryption, error)
}

// Decrypter opens objects. Implementations are safe for concurrent use.
type Decrypter interface {
	// Decrypt opens env's data key for obj. ctx bounds the key operation only.
	// It fails with [ErrMode] where env is of a mode that this Decrypter is not
	// for, and with [ErrKey] where the key, the object or its context is another
	// or env was edited.
	Decrypt(ctx context.Context, obj Object, env *Envelope) (*Decryption, error)
}

// Cipher is a mode with its key: it encrypts, decrypts and rewraps.
type Cipher interface {
	Encrypter
	Decrypter

	// Rewrap returns a new envelope for the body that d opens: its data key
	// sealed again, under this Cipher's current key and for obj, which may be
	// another name or have another context. d may come from another Cipher, of
	// this mode or another; the body stays as it is. The new envelope is padded
	// to the size of d's where it fits, so that a store can replace it in place.
	//
	// The old envelope still opens the body for whoever has it and its key.
	Rewrap(ctx context.Context, obj Object, d *Decryption) (*Envelope, error)
}

// CiphertextSize returns the size in bytes of the body of plain bytes. It fails
// with [ErrTooLarge] from 4 PiB on. The envelope's size comes on top: see
// [Envelope.Size].
func CiphertextSize(plain int64) (int64, error) { return chunked.CiphertextSize(plain) }

// PlaintextSize is the inverse of [CiphertextSize]. A size that no body has is
// [ErrTruncated]. The result is only as authentic as body is: see
// [Decryption.ReaderAt].
func PlaintextSize(body int64) (int64, error) { return chunked.PlaintextSize(body) }

// CiphertextRange returns which part of a body [Decryption.RangeReader] needs
// for n plaintext bytes from off: chunks of 16,400 bytes and, for a range that
// ends with a chunk, 17 bytes that prove the object does not end there. The
// body may end before bodyOff+bodyLen. A negative n means to the end and gives
// a bodyLen of -1. A negative off is [ErrInvalid], one beyond the largest
// object [ErrTooLarge].
func CiphertextRange(off, n int64) (bodyOff, bodyLen int64, err error) {
	return chunked.CiphertextRange(off, n)
}
