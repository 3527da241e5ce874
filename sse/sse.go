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
	"fmt"
	"strings"

	"github.com/blobseal/blobseal/internal/chunked"
	"github.com/blobseal/blobseal/kms"
)

// Object identifies what is encrypted. Bucket, Key and Context are authenticated.
// Bucket and Key are not stored: whoever opens an object says which object it
// should be, and a moved envelope does not open. They are compared byte by byte,
// never cleaned or joined. Each holds at most 65,535 bytes and may be empty, as
// for files that belong to no bucket.
type Object struct {
	Bucket, Key string

	// Context holds more claims about the object, such as its tenant. To open
	// the object, state the same pairs: a nil Context opens only objects
	// without any. The envelope stores the pairs in the clear, in at most 8,192
	// bytes. Names that begin with "blobseal:" are [ErrInvalid].
	Context kms.Context

	// AnyContext opens or rewraps the object whatever context its envelope
	// stores. Set it in tools that serve all tenants, never for a request of
	// one. It is [ErrInvalid] together with Context, and for Encrypt.
	AnyContext bool
}

// check refuses what no new envelope can hold.
func (obj Object) check() error {
	if obj.AnyContext {
		return fmt.Errorf("%w: Object.AnyContext is set for a new object (set Context, or nothing)", ErrInvalid)
	}
	for name := range obj.Context {
		if strings.HasPrefix(name, reservedPrefix) {
			return fmt.Errorf("%w: %q in the encryption context is reserved", ErrInvalid, name)
		}
	}
	return nil
}

// opened returns obj with the context that env stores, if obj may open env.
func (obj Object) opened(env *Envelope) (Object, error) {
	stored := env.Context()
	switch {
	case obj.AnyContext && obj.Context != nil:
		return obj, errBothContexts
	case !obj.AnyContext && !obj.Context.Equal(stored):
		return obj, fmt.Errorf("%w (encryption context differs: state it in Object.Context)", ErrKey)
	}
	obj.Context, obj.AnyContext = stored, false
	return obj, nil
}

// rewrapped returns obj with the context of its new envelope. A context must
// not get lost because a caller forgot it.
func (obj Object) rewrapped(d *Decryption) (Object, error) {
	if d == nil || d.envelope == nil {
		return obj, fmt.Errorf("%w: Rewrap without a Decryption", ErrInvalid)
	}
	stored := d.envelope.Context()
	switch {
	case obj.AnyContext && obj.Context != nil:
		return obj, errBothContexts
	case obj.AnyContext:
		obj.Context, obj.AnyContext = stored, false
	case obj.Context == nil && len(stored) > 0:
		return obj, fmt.Errorf("%w: Rewrap would drop the encryption context (state it, or set AnyContext; an empty Context drops it)", ErrInvalid)
	}
	return obj, nil
}

var errBothContexts = fmt.Errorf("%w: Object.Context and AnyContext are both set", ErrInvalid)

// Encrypter starts the encryption of objects. Implementations are safe for
// concurrent use.
type Encrypter interface {
	// Mode returns the mode of the envelopes that Encrypt makes.
	Mode() Mode

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

	// Rewrap returns a new envelope for the body that d opens. Its data key is
	// sealed again, under this Cipher's current key and for obj, which may have
	// another name. d may come from any Cipher. The body does not change. If the
	// new envelope fits, it is padded to the size of d's, so that a store can
	// replace it in place.
	//
	// obj.Context replaces the stored context; to keep that, state it or set
	// AnyContext. A nil Context is [ErrInvalid] if there is one to lose.
	//
	// The old envelope still opens the body for whoever has it and its key.
	Rewrap(ctx context.Context, obj Object, d *Decryption) (*Envelope, error)
}

// ChunkSize is the plaintext size in bytes of every chunk of a body but the
// last, which is shorter. Reads of whole chunks, aligned to chunks, are fastest.
const ChunkSize = chunked.ChunkSize

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
