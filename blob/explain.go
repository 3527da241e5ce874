package blob

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"github.com/blobseal/blobseal/blob/internal/store"
	"github.com/blobseal/blobseal/blob/stored"
	"github.com/blobseal/blobseal/sse"
)

// Rule names a setting that decides about a request.
type Rule string

// The rules that decide about a request.
const (
	RuleModes        Rule = "Policy.Modes"
	RuleKMSKeys      Rule = "Policy.KMSKeys"
	RuleCustomerKeys Rule = "Policy.AllowCustomerKeys"
	RulePlain        Rule = "Options.AllowPlain"
	RuleDecrypters   Rule = "Options.Decrypters"
	RuleCipher       Rule = "the bucket's cipher"
	RuleRequest      Rule = "the request's cipher"
	RuleStored       Rule = "the stored object"
)

// Explanation says what a request would do. The key service may still refuse: only the
// use of a key shows whether it is the right one, and permitted.
type Explanation struct {
	// Rule decided. Err says why it refuses the request, or is nil.
	Rule Rule
	Err  error

	// Cipher says whose cipher the request would use: RuleRequest, RuleDecrypters
	// or RuleCipher. It is empty if the request would use none.
	Cipher Rule

	// Kind is the kind of the stored object, for a read.
	Kind stored.Kind

	// Mode and KeyID are those of the stored object, for a read, or of the object
	// that would be written. They are zero if only the use of the key shows them.
	// The policy then decides again before anything is written.
	Mode  sse.Mode
	KeyID string

	// RequestedKey is, for a write in SSE-KMS, the name by which the cipher asks the
	// key service for its key: an id, an ARN or an alias. The policy decides by the
	// id with which the service answers.
	RequestedKey string
}

// String returns the explanation as a sentence.
func (e Explanation) String() string {
	what := "no encryption"
	switch {
	case e.Mode != 0 && e.KeyID != "":
		what = fmt.Sprintf("%v under key %q", e.Mode, e.KeyID)
	case e.RequestedKey != "":
		what = fmt.Sprintf("%v under what the key service has for %q", e.Mode, e.RequestedKey)
	case e.Mode != 0:
		what = e.Mode.String()
	case e.Kind != 0 && e.Kind != stored.KindPlain:
		what = e.Kind.String()
	case e.Kind == 0:
		what = "unknown mode"
	}
	if e.Cipher != "" {
		what += " with " + string(e.Cipher)
	}
	if e.Err != nil {
		return fmt.Sprintf("%s: refused by %s: %v", what, e.Rule, e.Err)
	}
	if e.Kind == 0 && e.Mode == 0 || e.Rule == RuleKMSKeys && e.KeyID == "" { // nothing to decide by yet
		return fmt.Sprintf("%s: left to %s, when the key is used", what, e.Rule)
	}
	return fmt.Sprintf("%s: allowed by %s", what, e.Rule)
}

// ExplainWrite says what a write would do, without touching a key.
func (b *Bucket) ExplainWrite() Explanation {
	e := Explanation{Cipher: RuleCipher, Mode: b.store.Cipher.Mode(), RequestedKey: sse.RequestedKey(b.store.Cipher)}
	if b.req.Cipher != nil {
		e.Cipher = RuleRequest
	}
	e.Rule, e.Err = b.opts.Policy.precheck(b.store.Cipher)
	return e
}

// ExplainRead says what a read of key would do. It reads the object's envelope and
// touches no key. Its error is that of the inner bucket.
func (b *Bucket) ExplainRead(ctx context.Context, key string) (Explanation, error) {
	o := b.store.Inspect(ctx, store.Listed{Key: key, Size: int64(b.store.EnvelopeSize)})
	if o.Kind == 0 {
		return Explanation{}, o.Err
	}
	e := Explanation{Kind: o.Kind, Err: o.Err}
	switch o.Kind {
	case stored.KindPlain:
		e.Rule, e.Err = RulePlain, b.admitPlain()
		if errors.Is(e.Err, errNotEncrypted) {
			e.Rule, e.Cipher = RuleRequest, RuleRequest
		}
		return e, nil
	case stored.KindEncrypted:
	default:
		e.Rule = RuleStored
		return e, nil
	}
	env := o.Envelope
	e.Mode, e.KeyID = env.Mode(), env.KeyID()
	var dec sse.Decrypter
	dec, e.Cipher = b.decrypter(env.Mode())
	e.Rule = e.Cipher
	if c, ok := dec.(sse.Encrypter); ok && c.Mode() != 0 && c.Mode() != env.Mode() {
		e.Err = fmt.Errorf("%w: the object is %v, and %s is for %v", sse.ErrMode, env.Mode(), e.Cipher, c.Mode())
	}
	if !b.req.AnyContext && !maps.Equal(b.req.Context, env.Context()) {
		e.Rule, e.Err = RuleStored, fmt.Errorf("%w: encryption context differs (state it in Request.Context)", sse.ErrKey)
	}
	return e, nil
}
