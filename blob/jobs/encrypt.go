package jobs

import (
	"context"
	"io"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/blob/internal/store"
	"github.com/blobseal/blobseal/blob/stored"
	"github.com/blobseal/blobseal/sse"
)

// EncryptOptions are for [EncryptExisting]. The zero value encrypts all plain objects
// with the bucket's own cipher.
type EncryptOptions struct {
	Job

	// Prefix is the prefix of the keys of objects to encrypt.
	Prefix string

	// To encrypts; nil means the bucket's own cipher. The bucket's policy must permit
	// it.
	To sse.Encrypter
}

// EncryptExisting encrypts plain objects in place, for buckets that existed before their
// encryption: see [blob.Options].AllowPlain. Encrypted objects are [OutcomeUnmatched].
// Objects fail that should be encrypted, by their metadata or first bytes, and are not.
// Otherwise it works as [Rewrap] does.
//
// Older versions in the store and backups keep the plaintext: delete them.
func EncryptExisting(ctx context.Context, b *blob.Bucket, opts *EncryptOptions) (*Report, error) {
	s := storeOf(b)
	o := valueOr(opts)
	if o.To == nil {
		o.To = s.Cipher
	}
	e := &encryptPlain{s: s, to: o.To, prefix: o.Prefix}
	return run(ctx, s, o.Job, e, jobSpec{Operation: "encrypt-existing", Filter: Filter{Prefix: o.Prefix}})
}

// encryptPlain is the operation of [EncryptExisting].
type encryptPlain struct {
	s      *store.Store
	to     sse.Encrypter
	prefix string // of the objects' keys
}

func (e *encryptPlain) probe(ctx context.Context) (*sse.Envelope, error) {
	return sealProbe(ctx, e.s, e.to, e.prefix)
}

// followsKey is false: Rewrap moves encrypted objects to newer keys.
func (e *encryptPlain) followsKey() bool { return false }

// isTarget is true: the job ignores encrypted objects, whatever their key.
func (e *encryptPlain) isTarget(context.Context, *sse.Envelope) bool { return true }

func (e *encryptPlain) decide(_ context.Context, entry Entry, _ *sse.Envelope) (Outcome, error) {
	switch {
	case entry.Kind == stored.KindPlain && e.s.IsUnfinished(entry.Key):
		return OutcomeFailed, store.ErrUnfinished
	case entry.Kind == stored.KindPlain:
		return OutcomeDone, nil
	case entry.Kind == stored.KindEncrypted:
		return OutcomeUnmatched, nil
	}
	return OutcomeFailed, entry.Err
}

func (e *encryptPlain) convert(ctx context.Context, key string, _ *sse.Envelope, body io.Reader) (*sse.Envelope, io.Reader, error) {
	enc, err := e.to.Encrypt(ctx, e.s.Object(key))
	if err != nil {
		return nil, nil, err
	}
	return enc.Envelope(), enc.Reader(body), nil
}
