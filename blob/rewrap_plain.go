package blob

import (
	"context"
	"io"

	"github.com/blobseal/blobseal/sse"
)

// EncryptOptions are for [Bucket.EncryptExisting]. The zero value encrypts all
// that is plain, as the bucket encrypts new objects.
type EncryptOptions struct {
	Job

	// Prefix is that of the keys.
	Prefix string

	// To encrypts; nil means the bucket's own cipher. The bucket's policy decides
	// whether it may.
	To sse.Encrypter
}

// EncryptExisting encrypts, in place, what is in the bucket and is not encrypted:
// for buckets that were there before, see [Options].AllowPlain. Objects that are
// encrypted are [OutcomeUnmatched]; those that should be and are not, by their metadata or
// their first bytes, fail. Otherwise it is as [Bucket.Rewrap].
//
// A store that keeps older versions keeps the plaintext in them, and so do
// backups.
func (b *Bucket) EncryptExisting(ctx context.Context, opts *EncryptOptions) (*Report, error) {
	o := valueOr(opts)
	if o.To == nil {
		o.To = b.cipher
	}
	e := &encryptPlain{b: b, to: o.To, prefix: o.Prefix}
	return b.run(ctx, o.Job, e, jobSpec{Operation: "encrypt-existing", Filter: Filter{Prefix: o.Prefix}})
}

// encryptPlain is the operation of [Bucket.EncryptExisting].
type encryptPlain struct {
	b      *Bucket
	to     sse.Encrypter
	prefix string
}

func (e *encryptPlain) probe(ctx context.Context) (*sse.Envelope, error) {
	probe, err := e.to.Encrypt(ctx, e.b.object(e.prefix))
	if err != nil {
		return nil, err
	}
	return probe.Envelope(), nil
}

// follows is false: another job moves what is encrypted to newer keys.
func (e *encryptPlain) follows() bool { return false }

// same is true: what is encrypted is out of the job's sight, whatever the key.
func (e *encryptPlain) same(context.Context, *sse.Envelope) bool { return true }

func (e *encryptPlain) look(_ context.Context, entry Entry, _ *sse.Envelope) (Outcome, error) {
	switch {
	case entry.Kind == KindPlain && isUnderWay(e.b.inner, entry.Key):
		return OutcomeFailed, errUnderWay
	case entry.Kind == KindPlain:
		return OutcomeDone, nil
	case entry.Kind == KindEncrypted:
		return OutcomeUnmatched, nil
	}
	return OutcomeFailed, entry.Err
}

func (e *encryptPlain) convert(ctx context.Context, key string, _ *sse.Envelope, body io.Reader) (*sse.Envelope, io.Reader, error) {
	enc, err := e.to.Encrypt(ctx, e.b.object(key))
	if err != nil {
		return nil, nil, err
	}
	return enc.Envelope(), enc.Reader(body), nil
}
