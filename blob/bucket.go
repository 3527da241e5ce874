package blob

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"slices"

	gcblob "gocloud.dev/blob"
	"gocloud.dev/blob/driver"

	"github.com/blobseal/blobseal/blob/internal/store"
	"github.com/blobseal/blobseal/blob/stored"
	"github.com/blobseal/blobseal/sse"
)

// DefaultEnvelopeSize is the size of envelopes if [Options] do not say.
const DefaultEnvelopeSize = stored.DefaultEnvelopeSize

// URLSigner makes signed URLs of a bucket's objects. It is safe for concurrent use.
// Package signedurl has one.
type URLSigner interface {
	// SignedURL returns a URL for one method on key. gocloud has checked and
	// completed opts, and BeforeSign was called.
	SignedURL(ctx context.Context, key string, opts *driver.SignedURLOptions) (string, error)
}

// Options are for [NewBucket]. Most services leave them nil.
type Options struct {
	// EnvelopeSize is the size, in bytes, to which every object's envelope is
	// padded; 0 means [DefaultEnvelopeSize]. Choose a larger one if objects have
	// a long encryption context. Objects with envelopes of another size are read,
	// with one more request. With any size but the default, lists report the size
	// -1 unless LookWhenListing is set.
	EnvelopeSize int

	// Decrypters open objects of other modes than the cipher's, or with other
	// keys, such as those from before a change of mode. An envelope's mode chooses
	// among them. The cipher opens the modes that are not here.
	Decrypters sse.ByMode

	// Policy says what may be written.
	Policy Policy

	// AllowPlain lets reads return objects that are not encrypted, for buckets that
	// were in use before their encryption. An attacker with write access to the
	// store can then pass off a plain object of their own. Reads of plain objects
	// take a look at their metadata, which tells a plain object from an encrypted
	// one whose envelope was damaged.
	AllowPlain bool

	// WritePlain writes new objects unencrypted, and reads both kinds. It is for
	// the first step of a migration, in which every process learns to read
	// encrypted objects before any process writes one; see MIGRATING.md. It needs
	// AllowPlain. NewBucket and each such write log a warning. A request that
	// brings a key or a context is encrypted nevertheless, and so is the copy of
	// an encrypted object.
	WritePlain bool

	// LookWhenListing reads the head of every listed object to know its size.
	// AllowPlain implies it. Without it, a list looks only at objects whose stored
	// size no encrypted object has, unless it was uploaded in parts.
	LookWhenListing bool

	// SkipLengthCheck saves reads of a part the request that proves how long the
	// object is. What they return is authentic nevertheless.
	SkipLengthCheck bool

	// Signer makes signed URLs. Without a Signer, SignedURL fails with the code
	// Unimplemented: the inner bucket's own URL would serve ciphertext.
	Signer URLSigner

	// IfUnchanged, if set, adds the store's own condition, such as If-Match, to
	// writes that replace the object with these attributes, as rewraps do. It is
	// called as the BeforeWrite hook of such a write. [IfMatch] makes one. Without
	// it, a job can undo what another process writes between the job's last look
	// at an object and its own write, except in a fileblob bucket that no driver
	// wraps: there the processes that use this package take turns.
	IfUnchanged func(as func(any) bool, attrs *gcblob.Attributes) error

	// ReplaceEnd, if set, has the store itself copy what a rewrap keeps of an object
	// that was uploaded in parts: the bytes before off, of the version with an ETag,
	// and behind them tail. as is that of the BeforeWrite hook of the new object. The
	// new object becomes visible when publish is called, in place of that version
	// only. Otherwise, publish or ReplaceEnd returns [ErrChanged]. Without a call of
	// publish, abort is called. [errors.ErrUnsupported] means that the store cannot
	// copy this object, which then passes through the process, as all do without
	// ReplaceEnd. Package awss3 has a ReplaceEnd for S3.
	ReplaceEnd func(ctx context.Context, as func(any) bool, etag string, off int64, tail []byte) (publish, abort func() error, err error)
}

// IfMatch returns an [Options].IfUnchanged for a store whose uploads take an entity
// tag. set puts the tag into the upload, whose type is that of the store's driver. For
// S3:
//
//	opts.IfUnchanged = blob.IfMatch(func(in *transfermanager.UploadObjectInput, etag string) {
//		in.IfMatch = &etag
//	})
//
// A write fails if the store's uploads have another type.
func IfMatch[Upload any](set func(upload *Upload, etag string)) func(as func(any) bool, attrs *gcblob.Attributes) error {
	return func(as func(any) bool, attrs *gcblob.Attributes) error {
		var upload *Upload
		if !as(&upload) {
			return fmt.Errorf("%w: IfMatch: the store's uploads are no %T", sse.ErrInvalid, upload)
		}
		set(upload, attrs.ETag)
		return nil
	}
}

// Bucket is a bucket that encrypts. The embedded bucket is the one that a service
// uses. It is safe for concurrent use.
type Bucket struct {
	*gcblob.Bucket

	store *store.Store
	opts  Options // with its defaults
	req   Request // see With
}

// NewBucket returns a bucket that keeps its objects encrypted in inner.
//
// Envelopes are bound to name and to the object's key. name must not be empty and
// must never change, whatever inner is called. cipher encrypts new objects, and
// opens those of its mode. Closing the bucket leaves inner open.
//
// To give each tenant a prefix, call gocloud's PrefixedBucket on the result: the
// envelopes are then bound to whole keys. Over a prefixed inner bucket they are not,
// and an attacker with write access to the store could move an object from one
// tenant to another, unless each tenant has its own name.
//
// NewBucket returns [ErrPolicy] if the policy refuses cipher. It returns
// [sse.ErrInvalid] if inner encrypts already, and for options that no write could
// honour.
func NewBucket(inner *gcblob.Bucket, name string, cipher sse.Cipher, opts *Options) (*Bucket, error) {
	switch {
	case inner == nil || isNil(cipher):
		return nil, fmt.Errorf("%w: NewBucket needs a bucket and a cipher", sse.ErrInvalid)
	case name == "":
		return nil, fmt.Errorf("%w: NewBucket needs a name (objects of nameless buckets could be swapped)", sse.ErrInvalid)
	}
	var nested *Bucket
	if inner.As(&nested) { // which refuses our metadata
		return nil, fmt.Errorf("%w: inner bucket %q encrypts already", sse.ErrInvalid, nested.Name())
	}
	if opts != nil && opts.WritePlain {
		if !opts.AllowPlain {
			return nil, fmt.Errorf("%w: WritePlain needs AllowPlain, or the bucket could not read what it writes", sse.ErrInvalid)
		}
		slog.Warn("blob: bucket writes objects unencrypted (Options.WritePlain)", "bucket", name)
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
	if err := stored.CheckEnvelopeSize(b.opts.EnvelopeSize, nil); err != nil {
		return nil, fmt.Errorf("%w: EnvelopeSize %d: %w", sse.ErrInvalid, b.opts.EnvelopeSize, err)
	}
	if err := b.opts.Policy.validate(); err != nil {
		return nil, err
	}
	if err := b.precheck(cipher); err != nil {
		return nil, err
	}
	b.store = store.New(store.Store{
		Inner: inner, Name: name, EnvelopeSize: b.opts.EnvelopeSize, Cipher: cipher, Decrypter: decrypter{b},
		Locks: stored.LocksOf(inner), AllowPlain: b.opts.AllowPlain, Precheck: b.precheck, Admit: b.admit, IfUnchanged: b.opts.IfUnchanged, ReplaceEnd: b.opts.ReplaceEnd,
	})
	b.Bucket = gcblob.NewBucket(&bucketDriver{b: b})
	return b, nil
}

// isNil reports whether cipher is nil, or holds a nil pointer.
func isNil(cipher sse.Cipher) bool {
	v := reflect.ValueOf(cipher)
	return !v.IsValid() || v.Kind() == reflect.Pointer && v.IsNil()
}

// precheck checks a cipher against the policy, without touching a key.
func (b *Bucket) precheck(enc sse.Encrypter) error {
	_, err := b.opts.Policy.precheck(enc)
	return err
}

// admit checks a new envelope against the policy.
func (b *Bucket) admit(env *sse.Envelope) error {
	_, err := b.opts.Policy.check(env.Mode(), env.KeyID())
	return err
}

// Inner returns the bucket that holds the stored objects.
func (b *Bucket) Inner() *gcblob.Bucket { return b.store.Inner }

// Name returns the name that the bucket's envelopes are bound to.
func (b *Bucket) Name() string { return b.store.Name }
