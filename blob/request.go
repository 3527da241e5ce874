package blob

import (
	"cmp"
	"context"
	"fmt"
	"maps"

	gcblob "gocloud.dev/blob"

	"github.com/blobseal/blobseal/blob/stored"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/sse"
)

// Request is what one request brings of its own, for [Bucket.With].
type Request struct {
	// Cipher, if set, is the request's key. It encrypts what the request writes,
	// if the bucket's policy allows that, and it alone opens what the request
	// reads.
	Cipher sse.Cipher

	// Decrypters, if set, open what the request reads; an envelope's mode chooses
	// among them. For modes that are not among them, Cipher counts.
	Decrypters sse.ByMode

	// Context is the encryption context, such as the tenant on whose behalf the
	// request runs. It is bound to what the request writes. What the request
	// reads must have been written with the same context: a nil Context reads
	// only objects without one.
	Context kms.Context

	// AnyContext reads objects whatever their context is, and lets copies keep
	// it. It is for tools that serve all tenants, and excludes Context.
	AnyContext bool
}

// With returns the bucket as one request sees it. It has the same store, policy and
// key locks; what r leaves out is as in b, except for the context. With is cheap:
//
//	mine, err := bucket.With(blob.Request{Cipher: customer})
//	if err != nil {
//		return err
//	}
//	p, err := mine.ReadAll(ctx, key)
//
// A key or a context that the request brings means that the object must be
// encrypted: an object that is not is [sse.ErrMode]. With returns [sse.ErrInvalid]
// for a context that no object can have. Closing the result is allowed and does not
// close b.
func (b *Bucket) With(r Request) (*Bucket, error) {
	if r.AnyContext && r.Context != nil {
		return nil, fmt.Errorf("%w: Request has both Context and AnyContext (choose one)", sse.ErrInvalid)
	}
	if len(r.Context) > 0 {
		if err := stored.CheckEnvelopeSize(b.store.EnvelopeSize, r.Context); err != nil {
			return nil, err
		}
	}
	r.Decrypters, r.Context = maps.Clone(r.Decrypters), maps.Clone(r.Context)
	view := &Bucket{opts: b.opts, req: r}
	shared := *b.store
	shared.Cipher, shared.Decrypter, shared.OnClose = cmp.Or(r.Cipher, b.store.Cipher), decrypter{view}, nil
	if !r.hasKey() {
		view.req.Cipher, view.req.Decrypters = b.req.Cipher, b.req.Decrypters
	}
	view.store = &shared
	view.Bucket = gcblob.NewBucket(&bucketDriver{b: view})
	return view, nil
}

// hasKey reports whether the request brings a key.
func (r *Request) hasKey() bool { return r.Cipher != nil || r.Decrypters != nil }

// needsEncryption reports whether the request has something that only encrypted
// objects have.
func (r *Request) needsEncryption() bool { return r.hasKey() || len(r.Context) > 0 }

var errNotEncrypted = fmt.Errorf("%w: the request has a key or a context, but the object is not encrypted", sse.ErrMode)

// decrypter returns what opens an object of mode, and whose it is.
func (b *Bucket) decrypter(mode sse.Mode) (sse.Decrypter, Rule) {
	if dec, ok := b.req.Decrypters[mode]; ok {
		return dec, RuleRequest
	}
	if b.req.Cipher != nil {
		return b.req.Cipher, RuleRequest
	}
	if b.req.Decrypters != nil {
		return b.req.Decrypters, RuleRequest // which says that it lacks the mode
	}
	if dec, ok := b.opts.Decrypters[mode]; ok {
		return dec, RuleDecrypters
	}
	return b.store.Cipher, RuleCipher
}

// decrypter opens envelopes as the bucket's reads do, for any identity.
type decrypter struct{ b *Bucket }

func (d decrypter) Decrypt(ctx context.Context, obj sse.Object, env *sse.Envelope) (*sse.Decryption, error) {
	dec, _ := d.b.decrypter(env.Mode())
	return dec.Decrypt(ctx, obj, env)
}

// newObject returns the identity of an object that the request writes.
func (b *Bucket) newObject(key string) sse.Object {
	return sse.Object{Bucket: b.store.Name, Key: key, Context: b.req.Context}
}

// object returns the identity of an object that the request reads.
func (b *Bucket) object(key string) sse.Object {
	obj := b.newObject(key)
	obj.AnyContext = b.req.AnyContext
	return obj
}
