package sse

import (
	"errors"

	"github.com/blobseal/blobseal/internal/chunked"
)

// Errors, for [errors.Is]. Errors of the key ring, of a key service, of ctx and
// of the caller's own readers and writers stay visible beside them.
var (
	// ErrFormat: the bytes are not an envelope, or there is none. No key was
	// touched. An envelope that ends early is [io.ErrUnexpectedEOF] too.
	ErrFormat = errors.New("sse: not an envelope")

	// ErrVersion: the envelope is of a version that this package does not know.
	// No key was touched.
	ErrVersion = errors.New("sse: unknown envelope version")

	// ErrMode: the envelope is of a mode that the Decrypter is not for. That is a
	// matter of wiring or, where requests bring customer keys, of one that brought
	// none, or one too many. No key was touched.
	ErrMode = errors.New("sse: wrong mode")

	// ErrKey: the key, the object's name or its context is another, or the
	// envelope was edited. Which of them cannot be told. In SSE-C it is, as a
	// rule, the caller's key. In the other modes the caller brought none: it is
	// harm to what is stored, or wiring, and for the service to look into.
	//
	// Where a key is not there at all, or a key service refused a ciphertext, the
	// error is also [keyring.ErrUnknownKey], [kms.ErrNotFound] or
	// [kms.ErrCiphertext]: ask for those first.
	ErrKey = chunked.ErrKey

	// ErrCorrupt: the body is not authentic. A [*ChunkError] says from where on.
	ErrCorrupt = chunked.ErrCorrupt

	// ErrTruncated: the body ends where no body can end. It is a kind of
	// [ErrCorrupt], and never [io.ErrUnexpectedEOF], which [io.ReadFull] returns
	// for the short last part of a whole object.
	ErrTruncated = chunked.ErrTruncated

	// ErrTooLarge: an object, a name, a context or an envelope is beyond what
	// the format holds.
	ErrTooLarge = chunked.ErrTooLarge

	// ErrInvalid: an argument that is wrong in itself, such as a customer key of
	// another length than 32 bytes.
	ErrInvalid = chunked.ErrInvalid

	// ErrUsed: an [Encryption] was asked for a second stream, which would use the
	// object's key twice.
	ErrUsed = errors.New("sse: Encryption already used (call Encrypt again)")
)

// ChunkError names the first chunk that is not authentic: its field Chunk counts
// from zero, and chunk k begins at plaintext offset k*16384. It is [ErrCorrupt].
type ChunkError = chunked.ChunkError
