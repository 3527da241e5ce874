package s3wire

import (
	"cmp"
	"fmt"
	"maps"

	"github.com/blobseal/blobseal/internal/isnil"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/sse"
)

// defaultKey is S3's name of the default key.
const defaultKey = "alias/aws/s3"

// KeysOptions are for [NewKeys]. Requests for a mode that is not configured are
// NotImplemented.
type KeysOptions struct {
	// Managed encrypts and opens the objects of SSE-S3. It is usually the result of
	// [sse.NewManaged].
	Managed sse.Cipher

	// KMS is the key service of SSE-KMS. The requester is the [kms.Principal] of
	// each call's ctx. A cache of package kms/cache serves objects with a bucket key.
	KMS kms.Client

	// DefaultKey is the id or alias of the key for objects of SSE-KMS if neither the
	// request nor the bucket's configuration names one. Empty means "alias/aws/s3",
	// as in S3. A DefaultKey needs KMS.
	DefaultKey string

	// Accept reports whether requests and configurations may use a key besides the
	// default key. keyID is the id to which the key service resolves the key. Objects
	// under other keys are not opened either. [sse.AnyKey] accepts every key that the
	// requester may use. An attacker who can write to the store, and who may use an
	// accepted key, can plant objects under it. Nil accepts only the default key.
	// Accept needs KMS.
	Accept func(keyID string) bool
}

// Keys makes ciphers for requests. It is immutable and safe for concurrent use.
type Keys struct {
	opts   KeysOptions
	opener *sse.KMS // opens objects of SSE-KMS; nil without a key service
}

// NewKeys returns the keys of a service. Customer keys need no option here: each
// bucket's configuration decides about them. NewKeys returns [sse.ErrInvalid] for
// options that cannot be honoured.
func NewKeys(opts KeysOptions) (*Keys, error) {
	if isnil.Any(opts.Managed) {
		opts.Managed = nil
	}
	if opts.Managed != nil && opts.Managed.Mode() != sse.ModeManaged {
		return nil, fmt.Errorf("%w: KeysOptions.Managed is a cipher of %v", sse.ErrInvalid, opts.Managed.Mode())
	}
	k := &Keys{opts: opts}
	if isnil.Any(opts.KMS) {
		if opts.DefaultKey != "" || opts.Accept != nil {
			return nil, fmt.Errorf("%w: KeysOptions has DefaultKey or Accept, and no KMS", sse.ErrInvalid)
		}
		k.opts.KMS = nil
		return k, nil
	}
	k.opts.DefaultKey = cmp.Or(k.opts.DefaultKey, defaultKey)
	opener, err := sse.NewKMS(k.opts.KMS, k.opts.DefaultKey, &sse.KMSOptions{Accept: opts.Accept})
	if err != nil {
		return nil, err
	}
	k.opener = opener
	return k, nil
}

// ForWrite returns the cipher of one request that stores an object, by what the
// request says and, for what it leaves out, the bucket's configuration. A nil w is the
// zero Write. A nil configuration means SSE-S3 and no customer keys. Every error is an
// [*Error].
func (k *Keys) ForWrite(w *Write, c *Configuration) (*Cipher, error) {
	if w == nil {
		w = new(Write)
	}
	if c == nil {
		c = new(Configuration)
	}
	if w.Customer != nil {
		if !c.AllowCustomerKeys {
			return nil, &Error{Code: codeAccessDenied, Message: "The bucket blocks objects with server-side encryption with customer provided keys (SSE-C)."}
		}
		return k.cipher(&Read{Customer: w.Customer}, w.Customer), nil
	}
	algorithm, keyID := w.Algorithm, w.KeyID
	if algorithm == "" {
		algorithm, keyID = c.algorithm(), c.KeyID
	}
	bucketKey := c.BucketKeyEnabled
	if w.BucketKey != nil {
		bucketKey = *w.BucketKey
	}
	switch algorithm {
	case AES256:
		if w.BucketKey != nil && bucketKey {
			return nil, &Error{Code: codeInvalidArgument, Message: messageBucketKey}
		}
		if k.opts.Managed == nil {
			return nil, notConfigured(sse.ModeManaged)
		}
		return k.cipher(new(Read), k.opts.Managed), nil
	case AWSKMS:
		return k.kmsCipher(keyID, w.Context, bucketKey)
	case awsKMSDSSE:
		return nil, notImplementedDSSE()
	default:
		return nil, &Error{Code: codeInvalidArgument, Message: messageUnknownMethod}
	}
}

func (k *Keys) kmsCipher(keyID string, ec kms.Context, bucketKey bool) (*Cipher, error) {
	if k.opts.KMS == nil {
		return nil, notConfigured(sse.ModeKMS)
	}
	keyID = cmp.Or(keyID, k.opts.DefaultKey)
	same, known := kms.SameKey(k.opts.KMS, k.opts.DefaultKey, keyID)
	isDefault := keyID == k.opts.DefaultKey || known && same
	if !isDefault && k.opts.Accept == nil {
		return nil, notAccepted()
	}
	inner, err := sse.NewKMS(k.opts.KMS, keyID, &sse.KMSOptions{BucketKey: bucketKey, NoBucketKey: !bucketKey, Accept: k.opts.Accept})
	if err != nil {
		return nil, FromError(err)
	}
	c := k.cipher(new(Read), inner)
	c.context = maps.Clone(ec)
	c.bucketKey = bucketKey
	if !isDefault {
		c.accept = k.opts.Accept
	}
	return c, nil
}

func (k *Keys) cipher(q *Read, inner sse.Cipher) *Cipher {
	return &Cipher{Opener: Opener{keys: k, read: *q}, inner: inner}
}

// ForRead returns the opener of one request's object. A nil q is the zero Read.
func (k *Keys) ForRead(q *Read) *Opener {
	if q == nil {
		q = new(Read)
	}
	return &Opener{keys: k, read: *q}
}

func notImplementedDSSE() *Error {
	return &Error{Code: codeNotImplemented, Message: "The encryption method aws:kms:dsse is not implemented."}
}

func notConfigured(mode sse.Mode) *Error {
	return &Error{Code: codeNotImplemented, Message: fmt.Sprintf("This service does not have %v.", mode)}
}

func notAccepted() *Error {
	return &Error{Code: codeAccessDenied, Message: "The KMS key is not one that this service accepts."}
}
