package sse

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/blobseal/blobseal/internal/chunked"
	"github.com/blobseal/blobseal/internal/secret"
	"github.com/blobseal/blobseal/kms"
)

// Names that begin with "blobseal:" are not for callers, neither in what an
// envelope stores nor in what a key service is asked.
const (
	reservedPrefix = "blobseal:"

	// ContextObject is the pair of the encryption context that names the object
	// to the key service, and so in its audit trail: "BUCKET/KEY", or the bucket
	// alone for objects under a bucket key.
	ContextObject = reservedPrefix + "object"

	// contextBucketKey, with the value "true", is stored with an object whose
	// data key's context names the bucket alone.
	contextBucketKey = reservedPrefix + "bucket-key"
)

// KMSOptions are for [NewKMS]. The zero value is right for most.
type KMSOptions struct {
	// BucketKey has the key service bind new data keys to the bucket and the
	// caller's pairs, and not to the object's key, so that a [kms.Cache] between
	// can serve many objects from one call. The object is bound all the same, by
	// blobseal's own seal. It is a property of each object: objects with and
	// without are read side by side, whatever is set here.
	BucketKey bool

	// Accept, if it is set, says which keys of the service may open objects, and
	// seal new ones. An envelope names its key; without Accept, any key that the
	// service lets the principal use is good. Set it where others could give that
	// principal access to keys of theirs, with which they could make objects of
	// their own. A key that is not accepted is [ErrKey].
	Accept func(keyID string) bool
}

// KMS is mode SSE-KMS: a key service makes, for each object, a data key that
// seals the object's own. It decides who may use which key and keeps the record
// of every use. Each Encrypt and Rewrap asks it for a data key, each Decrypt to
// decrypt one; a [kms.Cache] in between makes that fewer. It is safe for
// concurrent use if its client is.
type KMS struct {
	client kms.Client
	keyID  string
	opts   KMSOptions
}

// NewKMS returns the mode for a key service and the key of new objects: an id,
// or an alias where the service has them. Objects store the id that an alias
// stood for. An empty keyID makes a mode that only decrypts, objects of any key.
//
// It asks nothing of the service and costs nothing: where a request names the key,
// make one for each, with the same client.
func NewKMS(client kms.Client, keyID string, opts *KMSOptions) (*KMS, error) {
	if client == nil {
		return nil, fmt.Errorf("%w: no client", ErrInvalid)
	}
	k := &KMS{client: client, keyID: keyID}
	if opts != nil {
		k.opts = *opts
	}
	return k, nil
}

// RequestedKey returns the key of new objects as NewKMS was given it. It may be an
// alias: which key that stands for is for the service to say, at each use, and
// [Envelope.KeyID] tells it afterwards.
func (k *KMS) RequestedKey() string { return k.keyID }

// Encrypt implements [Encrypter]. ctx bounds the call of the key service and
// carries the principal, see [kms.WithPrincipal]. The errors of package kms are
// visible; nothing is written when the service refuses or does not answer, and
// there is no other key to fall back to.
func (k *KMS) Encrypt(ctx context.Context, obj Object) (*Encryption, error) {
	dk, err := k.generate(ctx, obj)
	if err != nil {
		return nil, err
	}
	defer dk.Clear()
	return k.wrapping(dk).encrypt(obj)
}

// Decrypt implements [Decrypter]. A ciphertext that the service refuses, as for
// another context, and a key that it does not have are [ErrKey] and the error of
// package kms. That of a key which is disabled, of a principal who is denied and
// of a service that does not answer is not ErrKey.
func (k *KMS) Decrypt(ctx context.Context, obj Object, env *Envelope) (*Decryption, error) {
	if err := env.require(ModeKMS); err != nil {
		return nil, err
	}
	if k.opts.Accept != nil && !k.opts.Accept(env.keyID) {
		return nil, fmt.Errorf("%w: key %q is not accepted", ErrKey, env.keyID)
	}
	stored := env.Context()
	if obj.Context != nil && !obj.Context.Equal(stored) {
		return nil, errContext
	}
	obj.Context = stored
	name := resource(obj)
	ec, err := keyContext(obj, name, env.BucketKey())
	if err != nil {
		return nil, err
	}
	ctx = kms.WithResource(ctx, name)
	plaintext, err := k.client.Decrypt(ctx, env.keyID, env.wrapped, ec)
	switch {
	case errors.Is(err, kms.ErrCiphertext), errors.Is(err, kms.ErrNotFound), errors.Is(err, kms.ErrInvalid):
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	case err != nil:
		return nil, fmt.Errorf("sse: %w", err)
	}
	kek, err := secret.New(plaintext)
	clear(plaintext)
	if err != nil {
		return nil, fmt.Errorf("%w: the key service's data %v", ErrKey, err)
	}
	return decrypt(keySealer{kek}, obj, env)
}

// Rewrap implements [Cipher], under a new data key of the service's key.
func (k *KMS) Rewrap(ctx context.Context, obj Object, d *Decryption) (*Envelope, error) {
	if obj.Context == nil {
		obj.Context = d.envelope.Context()
	}
	dk, err := k.generate(ctx, obj)
	if err != nil {
		return nil, err
	}
	defer dk.Clear()
	return k.wrapping(dk).rewrap(obj, d)
}

// wrapping seals under a data key, until that is cleared.
func (k *KMS) wrapping(dk *kms.DataKey) wrapping {
	return wrapping{
		mode: ModeKMS, keyID: dk.KeyID, wrapped: dk.Ciphertext,
		bucketKey: k.opts.BucketKey, kek: dataKeySealer{dk},
	}
}

// dataKeySealer is a key-encryption key that a key service made.
type dataKeySealer struct{ dk *kms.DataKey }

func (k dataKeySealer) Seal(dek, context []byte) ([]byte, error) {
	return chunked.Seal(k.dk.Plaintext(), context, dek)
}

// generate asks for a data key for obj. The caller clears it.
func (k *KMS) generate(ctx context.Context, obj Object) (*kms.DataKey, error) {
	if k.keyID == "" {
		return nil, fmt.Errorf("%w: no key id to encrypt under", ErrInvalid)
	}
	if err := checkCallerContext(obj.Context); err != nil {
		return nil, err
	}
	name := resource(obj)
	ec, err := keyContext(obj, name, k.opts.BucketKey)
	if err != nil {
		return nil, err
	}
	ctx = kms.WithResource(ctx, name)
	dk, err := k.client.GenerateDataKey(ctx, k.keyID, ec)
	if err != nil {
		return nil, fmt.Errorf("sse: %w", err)
	}
	if err := k.usable(dk); err != nil {
		return nil, err
	}
	return dk, nil
}

// usable refuses what a broken service returns, and clears it.
func (k *KMS) usable(dk *kms.DataKey) (err error) {
	switch {
	case dk == nil:
		return fmt.Errorf("sse: %w: it returned no data key", kms.ErrUnavailable)
	case dk.KeyID == "", len(dk.Ciphertext) == 0, dk.IsZero():
		err = fmt.Errorf("sse: %w: it returned half a data key", kms.ErrUnavailable)
	case k.opts.Accept != nil && !k.opts.Accept(dk.KeyID):
		err = fmt.Errorf("%w: the key service answered with key %q, which is not accepted", ErrKey, dk.KeyID)
	default:
		return nil
	}
	dk.Clear()
	return err
}

// resource is how records of use name an object, also one under a bucket key.
func resource(obj Object) string { return obj.Bucket + "/" + obj.Key }

// keyContext is the encryption context that the key service binds: the object's
// name, or with a bucket key the bucket's, and the caller's pairs.
func keyContext(obj Object, name string, bucketKey bool) (kms.Context, error) {
	if bucketKey {
		name = obj.Bucket
	}
	if !utf8.ValidString(name) {
		return nil, fmt.Errorf("%w: object name %q is not UTF-8, which a key service needs", ErrInvalid, name)
	}
	ec := make(kms.Context, len(obj.Context)+1)
	for k, v := range obj.Context {
		ec[k] = v
	}
	ec[ContextObject] = name
	return ec, nil
}

// checkCallerContext refuses the names that are not a caller's to set.
func checkCallerContext(c kms.Context) error {
	for name := range c {
		if strings.HasPrefix(name, reservedPrefix) {
			return fmt.Errorf("%w: %q in the encryption context is reserved", ErrInvalid, name)
		}
	}
	return nil
}
