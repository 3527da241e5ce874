package sse

import (
	"errors"

	"github.com/blobseal/blobseal/internal/chunked"
)

// Errors, for [errors.Is]. Errors of the key ring, of the key service, of ctx and
// of the caller's own readers and writers stay visible behind them.
var (
	// ErrFormat: the data is not an envelope, or the envelope is missing. No key was
	// used. An envelope that ends early is also [io.ErrUnexpectedEOF].
	ErrFormat = errors.New("sse: not an envelope")

	// ErrVersion: the envelope has a version that this release cannot read. No key
	// was used. Upgrade.
	ErrVersion = errors.New("sse: unknown envelope version")

	// ErrComposite: the object was uploaded in parts, and reading it takes random
	// access. Open it with [NewReaderAt] or [ReadTrailer]. It is a kind of
	// [ErrVersion]. No key was used.
	ErrComposite error = composite{}

	// ErrReceipt: a part's receipt belongs to a different upload, or was edited.
	ErrReceipt = errors.New("sse: not a receipt of this upload")

	// ErrMode: the Decrypter is not for the envelope's mode. Either the service is
	// wired wrongly (use [ByMode]), or a request brought a customer's key for an
	// object that has none, or no key for one that does. No key was used.
	ErrMode = errors.New("sse: wrong mode")

	// ErrKey: the key, the object's name or its context is wrong, or the envelope
	// was edited. Cryptography cannot tell which. In SSE-C, it is usually the
	// caller's key: answer that the request is wrong. In the other modes, the
	// caller brought no key: look for an edited store or wrong wiring.
	//
	// If the key is missing, or a key service refused a ciphertext, the error is
	// also [keyring.ErrUnknownKey], [kms.ErrNotFound] or [kms.ErrCiphertext].
	// Check for those first.
	ErrKey = chunked.ErrKey

	// ErrCorrupt: the object is not authentic. A [*ChunkError] names the first bad
	// chunk, and a [*PartError] the part.
	ErrCorrupt = chunked.ErrCorrupt

	// ErrTruncated: the body ends where no body can end, or a composite object lacks
	// bytes. It is a kind of [ErrCorrupt], and never [io.ErrUnexpectedEOF], which [io.ReadFull] returns
	// for the short last part of a whole object.
	ErrTruncated = chunked.ErrTruncated

	// ErrTooLarge: an object, a name, a context or an envelope exceeds the format.
	ErrTooLarge = chunked.ErrTooLarge

	// ErrInvalid: an argument is wrong, whatever the object, such as a customer's
	// key of 31 bytes.
	ErrInvalid = chunked.ErrInvalid

	// ErrUsed: an [Encryption] or a [Part] was asked for a second stream, which
	// would use its key twice.
	ErrUsed = errors.New("sse: Encryption or Part already used (call Encrypt or Multipart.Part again)")
)

// ChunkError names the first chunk that is not authentic. Chunk counts from zero,
// and chunk k begins at plaintext offset k*[ChunkSize]. It is [ErrCorrupt].
type ChunkError = chunked.ChunkError

// composite is the type of ErrComposite.
type composite struct{}

func (composite) Error() string {
	return "sse: object was uploaded in parts (open it with NewReaderAt or ReadTrailer)"
}
func (composite) Unwrap() error { return ErrVersion }

// PartError names the part of a composite object that is not authentic, in its
// field Number. Its field Err is the cause, often a [*ChunkError] that counts the
// part's own chunks. It is [ErrCorrupt].
type PartError = chunked.PartError
