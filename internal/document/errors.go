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
	ErrReadOnly        = errors.New("keyring: ring is read-only in this process")
)

// StoreError wraps an error of the store's operation op in [ErrStore]. It does not wrap
// errors that the contract of Store names. If ctx has ended, the result also is ctx's error.
func StoreError(ctx context.Context, op string, err error) error {
	if errors.Is(err, ErrNotExist) || errors.Is(err, ErrConflict) || errors.Is(err, ErrDamaged) {
		return err
	}
	return fmt.Errorf("%w: %s: %w", ErrStore, op, WithContext(ctx, err))
}

// WithContext adds the error of an ended ctx to an err that hides it.
func WithContext(ctx context.Context, err error) error {
	if cause := ctx.Err(); cause != nil && !errors.Is(err, cause) {
		return fmt.Errorf("%w: %w", cause, err)
	}
	return err
}

// RootError classifies an error of a root. The end of ctx, network errors, and statuses
// of 429 or at least 500 mean that the root could not be asked, which is
// [ErrRootUnavailable]. Every other error is wrapped in refused, which is [ErrRoot] when
// decrypting. An error that already is of one of these kinds is returned as it is.
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
