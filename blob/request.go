package blob

import (
	"fmt"

	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/sse"
)

// WriteRequest is what one write can have of its own. A BeforeWrite hook gets it
// with
//
//	var req *blob.WriteRequest
//	if as(&req) { req.Cipher = customer }
//
// and may ask for types of the inner bucket after it has set this one. What it
// sets later cannot be honoured, since the inner request was made of it, and fails
// the write with [sse.ErrInvalid].
type WriteRequest struct {
	// Cipher, if set, takes the place of the bucket's own. The bucket's policy
	// decides whether it may.
	Cipher sse.Encrypter

	// Context is the object's encryption context: bound, stored in the clear.
	Context kms.Context

	// Envelope is set by the bucket. Once the writer's Close has succeeded, it is
	// the envelope under which this write stored the object.
	Envelope *sse.Envelope
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

// encrypter is the cipher that a write uses, and whose it is.
func (b *Bucket) encrypter(asked sse.Encrypter) (sse.Encrypter, Rule) {
	if asked != nil {
		return asked, RuleRequest
	}
	return b.store.Cipher, RuleCipher
}

// decrypter is what a read of an object of this mode uses, and whose it is.
func (b *Bucket) decrypter(mode sse.Mode, req *ReadRequest) (sse.Decrypter, Rule) {
	if req.Decrypter != nil {
		return req.Decrypter, RuleRequest
	}
	if dec, ok := b.opts.Decrypters[mode]; ok {
		return dec, RuleDecrypters
	}
	return b.store.Cipher, RuleCipher
}

// brings reports whether the request has something that only encrypted objects
// have.
func (r *ReadRequest) brings() bool { return r.Decrypter != nil || len(r.Context) > 0 }

var errNotEncrypted = fmt.Errorf("%w: the request brings a key or a context, and the object is not encrypted", sse.ErrMode)

// encrypter is the request's cipher, or nil.
func (r *CopyRequest) encrypter() sse.Encrypter {
	if r.Cipher == nil {
		return nil // and not an interface that holds a nil one
	}
	return r.Cipher
}
