package kms

import (
	"context"
	"fmt"
	"log/slog"

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

	// Decrypt returns the plaintext of a data key's ciphertext. keyID and ec are
	// those of its generation; another key or context is [ErrCiphertext]. The
	// plaintext is the caller's, who may clear it.
	Decrypt(ctx context.Context, keyID string, ciphertext []byte, ec Context) ([]byte, error)
}

// DataKeySize is the length in bytes of a data key's plaintext.
const DataKeySize = secret.KeySize

// DataKey is a data key in both its forms. It does not print its plaintext.
type DataKey struct {
	// KeyID is the id of the key that encrypted it; never an alias.
	KeyID string
	// Ciphertext is what Decrypt turns back into the plaintext.
	Ciphertext []byte

	plaintext secret.Key
}

// NewDataKey returns a data key. plaintext must be [DataKeySize] bytes long, or it
// is [ErrInvalid], and is copied.
func NewDataKey(keyID string, plaintext, ciphertext []byte) (*DataKey, error) {
	p, err := secret.New(plaintext)
	if err != nil {
		return nil, fmt.Errorf("%w: data %v", ErrInvalid, err)
	}
	return &DataKey{KeyID: keyID, Ciphertext: ciphertext, plaintext: p}, nil
}

// Plaintext returns the key's own bytes, which the caller does not keep or
// change. It is nil for a DataKey that [NewDataKey] did not make.
func (k *DataKey) Plaintext() []byte {
	if k.plaintext.IsZero() {
		return nil
	}
	return k.plaintext.Bytes()
}

// IsZero reports whether the plaintext is missing or nothing but zeros, which no
// key service makes: such a key was cleared.
func (k *DataKey) IsZero() bool {
	return k.plaintext.IsZero() || k.plaintext.Equal(zero)
}

var zero, _ = secret.New(make([]byte, DataKeySize))

// Clear overwrites the plaintext with zeros. It is for whoever holds k alone.
func (k *DataKey) Clear() { clear(k.Plaintext()) }

// Format implements [fmt.Formatter]: every verb shows the key's id alone.
func (k *DataKey) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "data key under %q", k.KeyID) }

// LogValue implements [slog.LogValuer] with the key's id alone.
func (k *DataKey) LogValue() slog.Value { return slog.StringValue(k.KeyID) }

// Principal is who asks: for permissions and for the audit trail. A service sets
// it from its own authentication.
type Principal struct {
	// ID names the principal, such as "arn:example:iam::111122223333:role/writer".
	ID string `json:"id"`
	// Type says what ID is, such as "User", "Role" or "Service". It may be empty.
	Type string `json:"type,omitempty"`
}

type principalKey struct{}

// WithPrincipal returns a ctx in which p asks.
func WithPrincipal(ctx context.Context, p Principal) context.Context {
	return context.WithValue(ctx, principalKey{}, p)
}

// PrincipalFrom returns who asks in ctx; the zero Principal is nobody in particular.
func PrincipalFrom(ctx context.Context) Principal {
	p, _ := ctx.Value(principalKey{}).(Principal)
	return p
}

type resourceKey struct{}

// WithResource returns a ctx in which the key is used for resource, such as
// "bucket/key". It is for the audit trail alone and binds nothing.
func WithResource(ctx context.Context, resource string) context.Context {
	return context.WithValue(ctx, resourceKey{}, resource)
}

// ResourceFrom returns what the key is used for in ctx, or "".
func ResourceFrom(ctx context.Context) string {
	r, _ := ctx.Value(resourceKey{}).(string)
	return r
}

// Operation is what a principal does with a key, under the names that AWS KMS
// gives them. Policies, grants and audit records use them.
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

// Report is what a [Client] tells, beside its result, about one call: for the
// audit trail. A layer that wants to know puts one into ctx; the layers below it
// fill in what they know.
type Report struct {
	RequestID  string // the service's own
	KeyID      string // resolved, also when the call failed
	KeyVersion string // which generation of the key's material was used
	Cached     bool   // answered without a call
	Stale      bool   // Cached, and past its time limit: see [ServeReads]
}

type reportKey struct{}

// WithReport returns a ctx whose calls fill in r, one call at a time.
func WithReport(ctx context.Context, r *Report) context.Context {
	return context.WithValue(ctx, reportKey{}, r)
}

// reporting returns the report that ctx asks for, or nil.
func reporting(ctx context.Context) *Report {
	r, _ := ctx.Value(reportKey{}).(*Report)
	return r
}

// ReportFrom returns the report that ctx asks for. It is never nil, so that a
// Client fills it in without asking whether someone wants it.
func ReportFrom(ctx context.Context) *Report {
	if r := reporting(ctx); r != nil {
		return r
	}
	return new(Report)
}
