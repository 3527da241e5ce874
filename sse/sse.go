// Package sse encrypts objects as S3's server-side encryption does.
//
// Each object gets a random 256-bit data key, sealed under a second key and
// kept in the object's [Envelope]. Modes differ in who holds the second key:
//
//   - SSE-S3, [NewManaged]: your key ring, which rotates.
//   - SSE-KMS, [NewKMS]: a key service, which decides who may use it.
//   - SSE-C, [NewCustomer]: the caller, who sends it with each request.
//
// [NewWriter] and [NewReader] keep envelope and body in one stream:
//
//	w, err := sse.NewWriter(ctx, dst, cipher, obj, nil)
//	_, err = io.Copy(w, src)
//	err = w.Close() // only if Copy succeeded
//
//	r, err := sse.NewReader(ctx, dst, cipher, obj)
//	_, err = io.Copy(out, r)
//
// [NewEncryptingReader] does what NewWriter does for clients that upload from
// an [io.Reader]. To store envelopes elsewhere, call [Encrypter.Encrypt] and
// [Decrypter.Decrypt]: see [Encryption]. Only key operations use ctx; to cancel
// a stream, make its source or destination fail.
//
// # Guarantees
//
// Readers authenticate plaintext before returning it. A reader of a whole
// object returns [io.EOF], and the last byte, only if the object is complete.
// On any other error, a server must abort its response, as the [NewReader]
// example does.
//
// An envelope opens only its own body, in its own mode, for the bucket, key
// and context it was sealed for. SPEC.md defines the format.
//
// # Objects in parts
//
// [StartMultipart] encrypts one object in parts, in any order and in several
// processes. [NewReaderAt] reads such composite objects as it does others, and
// [ReadTrailer] opens them for streams and ranges.
//
// # Changing keys
//
// [Cipher.Rewrap] seals the data key for a new key, mode or name. The body
// does not change, and the old envelope still opens with its old key.
package sse

import (
	"context"
	"fmt"
	"maps"
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

	sealing *sealing // set by StartMultipart and State: what Encrypt seals
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
	case !obj.AnyContext && !maps.Equal(obj.Context, stored):
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

	// Encrypt draws a new data key for obj and seals it. ctx bounds only the key
	// operation.
	Encrypt(ctx context.Context, obj Object) (*Encryption, error)
}

// Decrypter opens objects. Implementations are safe for concurrent use.
type Decrypter interface {
	// Decrypt opens env's data key for obj. ctx bounds only the key operation.
	// Decrypt fails with [ErrMode] if it is not for env's mode, and with [ErrKey]
	// if the key, the object or its context is wrong, or env was edited.
	Decrypt(ctx context.Context, obj Object, env *Envelope) (*Decryption, error)
}

// Cipher is a mode and its key.
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
// with [ErrTooLarge] from 4 PiB on. In the self-contained form, the envelope
// adds [Envelope.Size].
func CiphertextSize(plain int64) (int64, error) { return chunked.CiphertextSize(plain) }

// PlaintextSize is the inverse of [CiphertextSize]. If no body has that size, the
// error is [ErrTruncated], or [ErrTooLarge] above the largest body. The result is
// only as true as the size that the store reports: [Decryption.ReaderAt]
// authenticates it.
func PlaintextSize(body int64) (int64, error) { return chunked.PlaintextSize(body) }

// CiphertextRange returns which part of a body [Decryption.RangeReader] needs
// for n plaintext bytes from off: chunks of 16,400 bytes and, for a range that
// ends with a chunk, 17 bytes that prove that the object does not end there. The
// body may end before bodyOff+bodyLen. A negative n means to the end and gives
// a bodyLen of -1. A negative off is [ErrInvalid], and an off beyond the largest
// object is [ErrTooLarge].
func CiphertextRange(off, n int64) (bodyOff, bodyLen int64, err error) {
	return chunked.CiphertextRange(off, n)
}
