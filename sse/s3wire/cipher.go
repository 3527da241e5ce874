package s3wire

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync/atomic"

	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/sse"
)

// Opener opens the object of one request. It is an [sse.Decrypter] that is safe for
// concurrent use. [Keys.ForRead] makes one.
type Opener struct {
	keys   *Keys
	read   Read
	opened atomic.Pointer[sse.Envelope]
}

// Decrypt implements [sse.Decrypter]. An object of SSE-C needs the request's key, and
// no other object takes one. If obj has no Context, Decrypt uses the context that the
// object stores; an "aws:s3:arn" in it must name obj. Every error is an [*Error] that
// wraps its cause.
func (o *Opener) Decrypt(ctx context.Context, obj sse.Object, env *sse.Envelope) (*sse.Decryption, error) {
	if env == nil || env.Mode() == 0 {
		return nil, FromError(fmt.Errorf("%w: envelope is nil or zero", sse.ErrFormat))
	}
	inner, err := o.choose(env)
	if err != nil {
		return nil, err
	}
	if obj.Context == nil {
		obj.AnyContext = true
		if arn, ok := env.Context()[contextARN]; ok && arn != objectARN(obj.Bucket, obj.Key, env.BucketKeyEnabled()) {
			return nil, &Error{Code: codeInternalError, Err: errForeignARN}
		}
	}
	d, err := inner.Decrypt(ctx, obj, env)
	if err != nil {
		return nil, o.refusal(env.Mode(), err)
	}
	o.opened.Store(env)
	return d, nil
}

var errForeignARN = errors.New("s3wire: aws:s3:arn in the object's context names another object (rewrap it with a Cipher)")

// choose returns the decrypter for an envelope.
func (o *Opener) choose(env *sse.Envelope) (sse.Decrypter, error) {
	switch mode, customer := env.Mode(), o.read.Customer; {
	case (mode == sse.ModeCustomer) != (customer != nil):
		message := messageNeedsKey
		if customer != nil {
			message = messageNotApplicable
		}
		if o.read.part {
			message = messagePartEncryption
		}
		return nil, &Error{Code: codeInvalidRequest, Message: message}
	case customer != nil:
		return customer, nil
	case mode == sse.ModeManaged && o.keys.opts.Managed != nil:
		return o.keys.opts.Managed, nil
	case mode == sse.ModeKMS && o.keys.opener != nil:
		return o.keys.opener, nil
	default:
		return nil, notConfigured(mode)
	}
}

// refusal returns the error of a decrypter as S3's.
func (o *Opener) refusal(mode sse.Mode, err error) error {
	refused := FromError(err)
	if refused.Code != codeAccessDenied || !errors.Is(err, sse.ErrKey) {
		return refused
	}
	switch {
	case mode == sse.ModeManaged: // nobody brought a key: the store was edited
		return &Error{Code: codeInternalError, Err: err}
	case mode == sse.ModeCustomer && o.read.part:
		return &Error{Code: codeInvalidRequest, Message: "The provided encryption parameters did not match the ones used originally.", Err: err}
	case mode == sse.ModeCustomer && o.read.SelfCopy:
		return &Error{Code: codeInvalidArgument, Message: "The provided encryption key does not match the one used originally.", Err: err}
	}
	return refused
}

// SetHeaders passes the response headers about encryption to set, such as the
// method Set of an http.Header. They describe the envelope that was last opened or
// made. Before that, there are none.
func (o *Opener) SetHeaders(set func(name, value string)) {
	if env := o.opened.Load(); env != nil {
		SetHeaders(set, env, o.read.Customer)
	}
}

// Cipher encrypts the object of one request, and opens it as an [Opener] does. It
// is an [sse.Cipher] that is safe for concurrent use. [Keys.ForWrite] makes one.
type Cipher struct {
	Opener

	inner     sse.Cipher
	context   kms.Context
	bucketKey bool
	accept    func(string) bool // of the id that the key service answers with
	answered  atomic.Bool       // Encrypt or Rewrap has succeeded
}

// Mode implements [sse.Encrypter].
func (c *Cipher) Mode() sse.Mode { return c.inner.Mode() }

// RequestedKey returns the name by which the cipher asks the key service for its
// key, which may be an alias. It is empty in other modes.
func (c *Cipher) RequestedKey() string { return sse.RequestedKey(c.inner) }

// Encrypt implements [sse.Encrypter]. In SSE-KMS, it adds "aws:s3:arn" and the pairs
// of the request to obj's context. Every error is an [*Error].
func (c *Cipher) Encrypt(ctx context.Context, obj sse.Object) (*sse.Encryption, error) {
	obj.Context = c.contextOf(obj)
	e, err := c.inner.Encrypt(ctx, obj)
	if err != nil {
		return nil, c.writeError(err)
	}
	if err := c.remember(e.Envelope()); err != nil {
		return nil, err
	}
	return e, nil
}

// Rewrap implements [sse.Cipher]. If obj has neither Context nor AnyContext, the new
// envelope has the context that Encrypt would state, and the old one's is dropped,
// as in a copy. AnyContext keeps the old one's, "aws:s3:arn" included: set it only
// if the object keeps its name. Every error is an [*Error].
func (c *Cipher) Rewrap(ctx context.Context, obj sse.Object, d *sse.Decryption) (*sse.Envelope, error) {
	if !obj.AnyContext {
		obj.Context = c.contextOf(obj)
	}
	env, err := c.inner.Rewrap(ctx, obj, d)
	if err != nil {
		return nil, c.writeError(err)
	}
	if err := c.remember(env); err != nil {
		return nil, err
	}
	return env, nil
}

// contextOf returns the context of a new envelope. It is not nil.
func (c *Cipher) contextOf(obj sse.Object) kms.Context {
	ec := make(kms.Context, len(obj.Context)+len(c.context)+1)
	maps.Copy(ec, obj.Context)
	if c.inner.Mode() == sse.ModeKMS {
		maps.Copy(ec, c.context)
		ec[contextARN] = objectARN(obj.Bucket, obj.Key, c.bucketKey)
	}
	return ec
}

// remember keeps a new envelope for SetHeaders. It refuses keys that are not accepted.
func (c *Cipher) remember(env *sse.Envelope) error {
	if c.accept != nil && !c.accept(env.KeyID()) {
		return notAccepted()
	}
	c.answered.Store(true)
	c.opened.Store(env)
	return nil
}

// writeError returns the error of a cipher as S3's. Only a context or a name can be too
// large, since the cipher has not seen the object yet.
func (c *Cipher) writeError(err error) error {
	if errors.Is(err, sse.ErrTooLarge) {
		return &Error{Code: codeInvalidArgument, Message: "The encryption context or the object's name is too long.", Err: err}
	}
	return FromError(err)
}

// SetHeaders is [Opener.SetHeaders]. After a write, it also sets the context that
// the request sent.
func (c *Cipher) SetHeaders(set func(name, value string)) {
	c.Opener.SetHeaders(set)
	if c.context != nil && c.answered.Load() {
		set(HeaderContext, encodeContext(c.context))
	}
}

// SetHeaders passes the response headers about encryption to set. env must be an
// envelope that an [sse.Decrypter] has accepted or an [sse.Encrypter] has made, never
// one that was only parsed, nor a hint in metadata; the methods SetHeaders of
// [Opener] and [Cipher] see to that. customer is the key that opened an object of
// SSE-C; if it is nil, as when an upload is completed without it, such an object
// gets no headers.
func SetHeaders(set func(name, value string), env *sse.Envelope, customer *sse.Customer) {
	switch env.Mode() {
	case sse.ModeManaged:
		set(HeaderEncryption, string(AES256))
	case sse.ModeKMS:
		set(HeaderEncryption, string(AWSKMS))
		set(HeaderKeyID, env.KeyID())
		if env.BucketKeyEnabled() {
			set(HeaderBucketKey, "true")
		}
	case sse.ModeCustomer:
		if customer != nil {
			set(HeaderCustomerAlgorithm, string(AES256))
			set(HeaderCustomerKeyMD5, customer.KeyMD5())
		}
	}
}
