package kms

import (
	"context"
	"fmt"

	"github.com/blobseal/blobseal/internal/secret"
)

// Client is what blobseal needs from a key service. Implementations are safe for
// concurrent use. They bind the encryption context to the ciphertext, unless their
// documentation says what they do instead.
//
// ctx bounds each call and carries the principal, see [WithPrincipal]. When ctx ends,
// a call returns soon, with ctx's error. Every error is a [*KeyError], see
// [CallError], and has one of the kinds of this package, unless the service said
// something that no kind fits. Retry on [ErrUnavailable] and on no other kind. An
// error comes without a data key and without plaintext, and its text holds no key.
//
// A Client does not keep what it was given, and callers may change what they
// got. Package kmstest tests each of these sentences.
type Client interface {
	// GenerateDataKey returns a new 256-bit data key, encrypted under the key
	// that keyID names: an id, or an alias where the service has them. The result
	// names the key by its id.
	GenerateDataKey(ctx context.Context, keyID string, ec Context) (*DataKey, error)

	// Decrypt returns the plaintext of a data key. keyID and ec must be those that
	// it was generated with, otherwise the error is [ErrCiphertext]. The caller
	// owns the plaintext and may clear it.
	Decrypt(ctx context.Context, keyID string, ciphertext []byte, ec Context) ([]byte, error)
}

// DataKeySize is the length in bytes of a data key's plaintext.
const DataKeySize = secret.KeySize

// DataKey is a data key, in the clear and encrypted. It does not print its
// plaintext.
type DataKey struct {
	KeyID      string // id, never an alias, of the key that encrypts it
	Ciphertext []byte // decrypts to the plaintext

	plaintext secret.Key
}

// NewDataKey returns a data key with a copy of plaintext, which must have
// [DataKeySize] bytes.
func NewDataKey(keyID string, plaintext, ciphertext []byte) (*DataKey, error) {
	p, err := secret.New(plaintext)
	if err != nil {
		return nil, fmt.Errorf("%w: data %v", ErrInvalid, err)
	}
	return &DataKey{KeyID: keyID, Ciphertext: ciphertext, plaintext: p}, nil
}

// Plaintext returns the key's own bytes. Do not keep or change them. It returns nil
// if there are none: they are all zeros, as after Clear, or [NewDataKey] did not
// make k.
func (k *DataKey) Plaintext() []byte {
	if k.plaintext.IsZero() || k.plaintext.Equal(zero) {
		return nil
	}
	return k.plaintext.Bytes()
}

var zero, _ = secret.New(make([]byte, DataKeySize))

// Clear overwrites the plaintext with zeros. Call it if nobody else holds k.
func (k *DataKey) Clear() { clear(k.Plaintext()) }

// Principal identifies the caller, for permissions and for the audit trail. Take
// it from your own authentication.
type Principal struct {
	// ID names the principal, such as "arn:example:iam::111122223333:role/writer".
	ID string `json:"id"`
	// Type says what ID is, such as "User", "Role" or "Service". It may be empty.
	Type string `json:"type,omitempty"`
}

type principalKey struct{}

// WithPrincipal returns a ctx for calls by p.
func WithPrincipal(ctx context.Context, p Principal) context.Context {
	return context.WithValue(ctx, principalKey{}, p)
}

// PrincipalFrom returns the principal of ctx, or the zero Principal.
func PrincipalFrom(ctx context.Context) Principal {
	p, _ := ctx.Value(principalKey{}).(Principal)
	return p
}

type resourceKey struct{}

// WithResource returns a ctx for calls about a resource, such as "bucket/key". It
// appears in the audit trail and is not authenticated.
func WithResource(ctx context.Context, resource string) context.Context {
	return context.WithValue(ctx, resourceKey{}, resource)
}

// ResourceFrom returns the resource of ctx, or "".
func ResourceFrom(ctx context.Context) string {
	r, _ := ctx.Value(resourceKey{}).(string)
	return r
}

// Operation names a key operation as AWS KMS does. Policies, grants, errors and
// audit records use the names.
type Operation string

// The operations of a [Client].
const (
	OpGenerateDataKey Operation = "GenerateDataKey"
	OpDecrypt         Operation = "Decrypt"
)

// Authorizer is a [Client] that can say, without a key operation, whether the
// principal in ctx may perform op now. A cache asks it before every answer, so
// that a disabled key or a revoked permission takes effect at once. Authorize
// returns the error that the operation would return, or nil if nothing is known
// to forbid it.
//
// A client that wraps another must implement Authorize or have a method
// Unwrap() Client. Otherwise caches in front of it cannot ask.
type Authorizer interface {
	Authorize(ctx context.Context, op Operation, keyID string, ec Context) error
}

// Report holds what a [Client] knows about a call besides its result, for the
// audit trail. A layer that wants one puts it into ctx; the layers below fill it
// in.
type Report struct {
	RequestID  string // the service's id of the call
	KeyID      string // id of the key, also if the call failed
	KeyVersion string // version of the key's material
	Cached     bool   // a cache answered without a call
	Stale      bool   // it did so past its limits; see cache.Options.StaleReads
}

type reportKey struct{}

// WithReport returns a ctx for one call at a time, which fills in r.
func WithReport(ctx context.Context, r *Report) context.Context {
	return context.WithValue(ctx, reportKey{}, r)
}

// ReportFrom returns the report of ctx, or a new one that nobody reads, so that
// clients can fill it in without asking.
func ReportFrom(ctx context.Context) *Report {
	if r, ok := ctx.Value(reportKey{}).(*Report); ok {
		return r
	}
	return new(Report)
}
