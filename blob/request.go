package blob

import (
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/sse"
)

// WriteRequest is what one write can have of its own. A BeforeWrite hook gets it
// with
//
//	var req *blob.WriteRequest
//	if as(&req) { req.Cipher = customer }
//
// and may also ask for the types of the inner bucket, after it has set this one:
// the object's metadata, which depends on it, is then part of them.
type WriteRequest struct {
	// Cipher, if set, takes the place of the bucket's own. The bucket's policy
	// decides whether it may.
	Cipher sse.Encrypter

	// Context is the object's encryption context: bound, stored in the clear.
	Context kms.Context
}

// ReadRequest is what one read can have of its own. A BeforeRead hook gets it
// with as, as in [WriteRequest].
type ReadRequest struct {
	// Decrypter, if set, is the only one that is asked to open the object: an
	// object of another mode, or without encryption, is then [sse.ErrMode].
	Decrypter sse.Decrypter

	// Context, if it is not nil, must equal the object's encryption context.
	Context kms.Context
}

// CopyRequest is what one copy can have of its own. A BeforeCopy hook gets it
// with as, as in [WriteRequest].
type CopyRequest struct {
	Source ReadRequest

	// Cipher, if set, seals the copy's data key in place of the bucket's own.
	Cipher sse.Cipher

	// Context, if it is not nil, is the copy's encryption context. A nil one
	// keeps that of the source.
	Context kms.Context
}
