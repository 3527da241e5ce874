package blob

import (
	"context"
	"fmt"
	"maps"
	"slices"

	gcblob "gocloud.dev/blob"
	"gocloud.dev/blob/driver"

	"github.com/blobseal/blobseal/blob/internal/store"
	"github.com/blobseal/blobseal/blob/stored"
	"github.com/blobseal/blobseal/sse"
)

// DefaultEnvelopeSize is what envelopes are padded to where [Options] do not say.
const DefaultEnvelopeSize = 1024

// URLSigner makes signed URLs of a bucket's objects, whatever serves them. It is
// safe for concurrent use.
type URLSigner interface {
	// SignedURL returns a URL for one method on key; opts are complete, as the
	// driver package says. BeforeSign was called before.
	SignedURL(ctx context.Context, key string, opts *driver.SignedURLOptions) (string, error)
}

// Options are for [NewBucket]. The zero value is right for most.
type Options struct {
	// EnvelopeSize is what every object's envelope is padded to, in bytes; 0
	// means [DefaultEnvelopeSize]. It should stay the same for a bucket's life:
	// objects with another size are read, at the price of one more request, but
	// are listed with a wrong size unless LookWhenListing is set.
	EnvelopeSize int

	// Decrypters open objects of modes, or with keys, that the bucket's cipher is
	// not for, such as those from before a change of mode. An envelope's mode
	// chooses among them; the cipher is for modes that are not here.
	Decrypters sse.ByMode

	// Policy says what may be written.
	Policy Policy

	// AllowPlain lets objects that are not encrypted be read as they are, for
	// buckets that were there before. Whoever can write to the store can then
	// pass off an object of his own, which is why it is not the default.
	AllowPlain bool

	// LookWhenListing reads the envelope's first bytes of every object that is
	// listed, to know its size. It is implied by AllowPlain.
	LookWhenListing bool

	// SkipLengthCheck saves a read of part of an object the request that proves
	// how long the whole object is. What is read is authentic nevertheless.
	SkipLengthCheck bool

	// Signer makes signed URLs. Without it SignedURL is unimplemented.
	Signer URLSigner

	// IfUnchanged, if set, adds to a write the store's own condition that the
	// object is still the one with these attributes, such as If-Match with its
	// ETag. It is called as the BeforeWrite hook of writes that replace an object
	// by itself, as rewraps do, and gets the inner bucket's types from as. Without
	// it, only writers that use the same Bucket are safe from being overwritten by
	// what was there before.
	IfUnchanged func(as func(any) bool, attrs *gcblob.Attributes) error
}

// Bucket is a bucket that encrypts. The embedded bucket is what a service uses,
// as any of gocloud; beside it are the jobs that keep its keys. It is safe for
// concurrent use.
type Bucket struct {
	*gcblob.Bucket

	store *store.Store
	opts  Options // with its defaults
}

// NewBucket returns a bucket that keeps its objects encrypted in inner. name is
// what they are bound to, beside their keys: it must stay the same, whatever inner
// is called. cipher is the mode and the key of new objects, and opens those of its
// mode. Closing the bucket leaves inner open, which stays the caller's to close. A
// policy that refuses the bucket's own cipher is [ErrPolicy], and an inner bucket
// that encrypts already is [sse.ErrInvalid].
func NewBucket(inner *gcblob.Bucket, name string, cipher sse.Cipher, opts *Options) (*Bucket, error) {
	if inner == nil || cipher == nil {
		return nil, fmt.Errorf("%w: NewBucket needs a bucket and a cipher", sse.ErrInvalid)
	}
	var nested *Bucket
	if inner.As(&nested) { // which refuses our metadata
		return nil, fmt.Errorf("%w: the inner bucket is bucket %q, which encrypts already", sse.ErrInvalid, nested.Name())
	}
	b := new(Bucket)
	if opts != nil {
		b.opts = *opts
		b.opts.Policy.Modes = slices.Clone(opts.Policy.Modes)
		b.opts.Policy.KMSKeys = slices.Clone(opts.Policy.KMSKeys)
		b.opts.Decrypters = maps.Clone(opts.Decrypters)
	}
	if b.opts.EnvelopeSize == 0 {
		b.opts.EnvelopeSize = DefaultEnvelopeSize
	}
	if b.opts.EnvelopeSize < 0 || b.opts.EnvelopeSize > sse.MaxEnvelopeSize {
		return nil, fmt.Errorf("%w: envelopes of %d bytes, at most %d", sse.ErrInvalid, b.opts.EnvelopeSize, sse.MaxEnvelopeSize)
	}
	if err := b.opts.Policy.valid(); err != nil {
		return nil, err
	}
	if _, err := b.opts.Policy.precheck(cipher); err != nil {
		return nil, err
	}
	b.store = &store.Store{
		Inner: inner, Name: name, EnvelopeSize: b.opts.EnvelopeSize, Cipher: cipher, Decrypter: b,
		Locks: new(stored.Locks), AllowPlain: b.opts.AllowPlain, Admit: b.admit, IfUnchanged: b.opts.IfUnchanged,
	}
	b.Bucket = gcblob.NewBucket(&bucketDriver{b})
	return b, nil
}

// Inner returns the bucket that holds the stored objects.
func (b *Bucket) Inner() *gcblob.Bucket { return b.store.Inner }

// Name returns what the bucket's objects are bound to, beside their keys.
func (b *Bucket) Name() string { return b.store.Name }

// Decrypt opens an envelope as the bucket's reads do. It implements
// [sse.Decrypter].
func (b *Bucket) Decrypt(ctx context.Context, obj sse.Object, env *sse.Envelope) (*sse.Decryption, error) {
	dec, _ := b.decrypter(env.Mode(), new(ReadRequest))
	return dec.Decrypt(ctx, obj, env)
}
