package document

import (
	"context"
	"errors"
	"fmt"
)

// Package keyring exports these errors, so they carry its name.
var (
	ErrNotExist = errors.New("keyring: ring does not exist")
	ErrExist    = errors.New("keyring: ring exists already")
	ErrConflict = errors.New("keyring: document was changed by another writer")
	ErrStore    = errors.New("keyring: store failed")

	ErrDamaged         = errors.New("keyring: document is damaged")
	ErrVersion         = errors.New("keyring: document has an unknown format version")
	ErrRoot            = errors.New("keyring: root does not open the document")
	ErrRootUnavailable = errors.New("keyring: root is unavailable")
	ErrRollback        = errors.New("keyring: store went back to an older document")
	ErrOtherRing       = errors.New("keyring: document belongs to another ring")
	ErrReadOnly        = errors.New("keyring: ring is read-only here")
)

// StoreError makes err, which a store returned from op, an [ErrStore]. Errors
// that the contract of Store names stay as they are. The end of ctx always shows.
func StoreError(ctx context.Context, op string, err error) error {
	if errors.Is(err, ErrNotExist) || errors.Is(err, ErrConflict) || errors.Is(err, ErrDamaged) {
		return err
	}
	return fmt.Errorf("%w: %s: %w", ErrStore, op, WithContext(ctx, err))
}

// WithContext adds the end of ctx to an error that hides it.
func WithContext(ctx context.Context, err error) error {
	if cause := ctx.Err(); cause != nil && !errors.Is(err, cause) {
		return fmt.Errorf("%w: %w", cause, err)
	}
	return err
}

// RootError classifies an error of a root. A root that could not be asked is
// [ErrRootUnavailable]: the end of ctx, any network error, a status of 429 or at
// least 500. Everything else is a refusal, which is [ErrRoot] when decrypting.
// Errors that say so themselves stay as they are.
func RootError(ctx context.Context, refused, err error) error {
	var network interface { // net.Error, without its package
		error
		Timeout() bool
		Temporary() bool
	}
	var status interface{ HTTPStatusCode() int }
	switch {
	case errors.Is(err, ErrRoot), errors.Is(err, ErrRootUnavailable), errors.Is(err, ErrDamaged):
		return err
	case ctx.Err() != nil, errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded),
		errors.As(err, &network),
		errors.As(err, &status) && (status.HTTPStatusCode() >= 500 || status.HTTPStatusCode() == 429):
		return fmt.Errorf("%w: %w", ErrRootUnavailable, WithContext(ctx, err))
	default:
		return fmt.Errorf("%w: %w", refused, err)
	}
}
