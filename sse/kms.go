package sse

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"unicode/utf8"

	"github.com/blobseal/blobseal/internal/chunked"
	"github.com/blobseal/blobseal/internal/isnil"
	"github.com/blobseal/blobseal/internal/secret"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/cache"
)

// Names in encryption contexts that begin with "blobseal:" are reserved.
const (
	reservedPrefix = "blobseal:"

	// ContextObject is the name of the pair by which a key service, its policies and
	// its audit trail know the object. The value is "BUCKET/KEY", or only the bucket
	// for objects with a bucket key.
	ContextObject = reservedPrefix + "object"

	// contextBucketKey, with the value "true", is stored with objects that have a
	// bucket key.
	contextBucketKey = reservedPrefix + "bucket-key"
)

// KMSOptions are for [NewKMS]. Most services leave this nil.
type KMSOptions struct {
	// BucketKey has the key service bind new data keys to the bucket and the
	// caller's context, and not to the object's key, so that one data key can seal
	// many objects, as with S3 Bucket Keys. blobseal itself binds the object in both
	// cases. Over a [cache.Client] it is on, since a cache serves nothing without it.
	// A cipher opens objects with and without bucket keys.
	BucketKey bool

	// NoBucketKey turns bucket keys off over a [cache.Client]. The key service and its
	// audit trail then see the name of each object, and the cache only serves an
	// object that is opened again.
	NoBucketKey bool

	// Accept reports whether objects under a key that is not the cipher's own may be
	// opened. keyID is the key's id in the envelope. Accept only keys that attackers
	// cannot use: whoever can write to the store and encrypt under an accepted key
	// can plant objects. Nil accepts only the cipher's own key.
	Accept func(keyID string) bool
}

// AnyKey is a [KMSOptions].Accept that accepts every key of the service that the
// principal may use. Set it only if nobody else can let that principal use a key.
func AnyKey(keyID string) bool { return true }

// KMS is mode SSE-KMS: a key service makes, for each object, a data key that
// seals the object's own. The service decides who may use which key, and records
// each use. Each Encrypt and Rewrap asks it for a data key, each Decrypt asks it
// to decrypt one; a [cache.Client] in between reduces the number of calls. A KMS is
// safe for concurrent use if its client is.
type KMS struct {
	client    kms.Client
	keyID     string
	bucketKey bool
	accept    func(string) bool
}

// NewKMS returns the mode for one key of a key service. keyID is the key's id, or
// an alias if the service has aliases. New objects are sealed under that key, and
// their envelopes store the id that the service answered with.
//
// The mode opens objects under that key, and under keys that Accept allows. Any
// other object is [ErrKey]: an attacker who can write to the store could name a
// key of their own. See [kms.KeyComparer] for which names mean one key. For an
// alias, the service compares: Decrypt asks for the alias, and the service refuses
// objects of other keys. So before you move an alias, accept the key that it
// leaves.
//
// If keyID is empty, Accept is required and the mode only opens objects.
//
// NewKMS asks nothing of the service and is cheap. If requests name their key,
// make a mode for each request, with the same client.
func NewKMS(client kms.Client, keyID string, opts *KMSOptions) (*KMS, error) {
	if isnil.Any(client) {
		return nil, fmt.Errorf("%w: NewKMS: no client", ErrInvalid)
	}
	if opts == nil {
		opts = new(KMSOptions)
	}
	if opts.BucketKey && opts.NoBucketKey {
		return nil, fmt.Errorf("%w: NewKMS: both BucketKey and NoBucketKey are set", ErrInvalid)
	}
	if opts.Accept == nil {
		if keyID == "" {
			return nil, fmt.Errorf("%w: NewKMS: no key id (to open objects only, set KMSOptions.Accept)", ErrInvalid)
		}
		if same, known := kms.SameKey(client, keyID, keyID); known && !same {
			return nil, fmt.Errorf("%w: NewKMS: the client cannot tell which key %q is (use the key's id, or set KMSOptions.Accept)", ErrInvalid, keyID)
		}
	}
	_, cached := kms.Find[*cache.Client](client)
	return &KMS{client: client, keyID: keyID, bucketKey: opts.BucketKey || cached && !opts.NoBucketKey, accept: opts.Accept}, nil
}

// Mode returns [ModeKMS].
func (k *KMS) Mode() Mode { return ModeKMS }

// check refuses a KMS that NewKMS did not make.
func (k *KMS) check() error {
	if k == nil || k.client == nil {
		return fmt.Errorf("%w: SSE-KMS cipher has no client (make it with NewKMS)", ErrInvalid)
	}
	return nil
}

// RequestedKey returns the keyID that NewKMS was given, which may be an alias.
// [Envelope.KeyID] is the id that the service answered with.
func (k *KMS) RequestedKey() string { return k.keyID }

// RequestedKey returns the key id or alias by which e requests keys from a key
// service: what its method RequestedKey returns, as that of [KMS], or "" without such
// a method. A type that wraps an Encrypter should have the method, and return
// RequestedKey of what it wraps.
func RequestedKey(e Encrypter) string {
	if e, ok := e.(interface{ RequestedKey() string }); ok {
		return e.RequestedKey()
	}
	return ""
}

// Encrypt implements [Encrypter]. ctx bounds the call of the key service and
// carries the principal, see [kms.WithPrincipal]. If the service refuses or does
// not answer, Encrypt fails with the error of package kms: it never falls back to
// a different key.
func (k *KMS) Encrypt(ctx context.Context, obj Object) (*Encryption, error) {
	return encrypt(ctx, k, obj)
}

// Decrypt implements [Decrypter]. A key that is not accepted is [ErrKey]. If the
// service refuses the ciphertext, or does not have the key, the error is ErrKey and
// the error of package kms. A disabled key, a principal who may not use the key and
// a service that does not answer are errors of package kms only.
func (k *KMS) Decrypt(ctx context.Context, obj Object, env *Envelope) (*Decryption, error) {
	if err := k.check(); err != nil {
		return nil, err
	}
	if err := env.checkMode(ModeKMS); err != nil {
		return nil, err
	}
	ask, err := k.openingKey(env.keyID)
	if err != nil {
		return nil, err
	}
	if obj, err = obj.opened(env); err != nil {
		return nil, err
	}
	ctx, ec, err := bind(ctx, obj, env.BucketKeyEnabled())
	if err != nil {
		return nil, err
	}
	plaintext, err := k.client.Decrypt(ctx, ask, env.wrapped, ec)
	switch {
	case ask != env.keyID && errors.Is(err, kms.ErrCiphertext):
		return nil, fmt.Errorf("%w: %q does not open an object of key %q (if the alias left that key, allow it in KMSOptions.Accept): %w",
			ErrKey, ask, env.keyID, err)
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

// openingKey returns the name by which to ask for the key that an envelope names,
// or ErrKey if that key may not open objects.
func (k *KMS) openingKey(envelopeKey string) (ask string, err error) {
	same, known := false, true
	if k.keyID != "" {
		same, known = kms.SameKey(k.client, k.keyID, envelopeKey)
	}
	switch {
	case known && same, k.accept != nil && k.accept(envelopeKey):
		return envelopeKey, nil
	case !known:
		return k.keyID, nil // an alias: the service refuses ciphertexts of other keys
	default:
		return "", k.notAccepted("object is under key", envelopeKey)
	}
}

// notAccepted returns the error for a key that this mode does not open.
func (k *KMS) notAccepted(what, key string) error {
	if k.keyID == "" {
		return fmt.Errorf("%w: %s %q (allow it in KMSOptions.Accept)", ErrKey, what, key)
	}
	return fmt.Errorf("%w: %s %q, not %q (if you trust that key, allow it in KMSOptions.Accept)", ErrKey, what, key, k.keyID)
}

// Rewrap implements [Cipher], under a new data key of the service's key.
func (k *KMS) Rewrap(ctx context.Context, obj Object, d *Decryption) (*Envelope, error) {
	return rewrap(ctx, k, obj, d)
}

// dataKeySealer is a key-encryption key that a key service made.
type dataKeySealer struct{ dk *kms.DataKey }

func (k dataKeySealer) Seal(dek, context []byte) ([]byte, error) {
	return chunked.Seal(k.dk.Plaintext(), context, dek)
}

// wrap asks the key service for a data key.
func (k *KMS) wrap(ctx context.Context, obj Object) (w wrapping, err error) {
	if err := k.check(); err != nil {
		return w, err
	}
	if k.keyID == "" {
		return w, fmt.Errorf("%w: this SSE-KMS cipher has no key id and only opens objects", ErrInvalid)
	}
	if err := obj.check(); err != nil {
		return w, err
	}
	ctx, ec, err := bind(ctx, obj, k.bucketKey)
	if err != nil {
		return w, err
	}
	dk, err := k.client.GenerateDataKey(ctx, k.keyID, ec)
	if err != nil {
		return w, fmt.Errorf("sse: %w", err)
	}
	if err := k.checkDataKey(dk); err != nil {
		return w, err
	}
	return wrapping{
		mode: ModeKMS, keyID: dk.KeyID, wrapped: dk.Ciphertext, kek: dataKeySealer{dk},
		bucketKey: k.bucketKey, dataKey: dk,
	}, nil
}

// checkDataKey refuses a data key under which objects could not be read back, and
// clears it.
func (k *KMS) checkDataKey(dk *kms.DataKey) (err error) {
	if dk == nil {
		return fmt.Errorf("sse: %w: no data key (retry)", kms.ErrUnavailable)
	}
	if dk.KeyID == "" || len(dk.Ciphertext) == 0 || dk.Plaintext() == nil {
		dk.Clear()
		return fmt.Errorf("sse: %w: data key lacks id, ciphertext or plaintext (retry)", kms.ErrUnavailable)
	}
	if _, err := k.openingKey(dk.KeyID); err != nil {
		dk.Clear()
		return k.notAccepted("key service answered with key", dk.KeyID)
	}
	return nil
}

// bind returns ctx with the object's name for audit records, and the encryption
// context that the key service binds: the caller's pairs, and the name of the object
// or, with a bucket key, of the bucket.
func bind(ctx context.Context, obj Object, bucketKey bool) (context.Context, kms.Context, error) {
	object := obj.Bucket + "/" + obj.Key
	name := object
	if bucketKey {
		name = obj.Bucket
	}
	if !utf8.ValidString(name) {
		return nil, nil, fmt.Errorf("%w: object name %q is not UTF-8 (SSE-KMS needs UTF-8)", ErrInvalid, name)
	}
	ec := make(kms.Context, len(obj.Context)+1)
	maps.Copy(ec, obj.Context)
	ec[ContextObject] = name
	return kms.WithResource(ctx, object), ec, nil
}
