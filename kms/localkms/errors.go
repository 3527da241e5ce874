package localkms

import (
	"context"
	"errors"
	"fmt"

	"github.com/blobseal/blobseal/internal/document"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms"
)

// Errors that a caller can act on. All of them are also [kms.ErrInvalid].
var (
	// ErrAlreadyExists: another alias or grant has that name.
	ErrAlreadyExists error = &refusal{"localkms: already exists"}

	// ErrPolicy: a policy does not parse, or names something that this service does
	// not have. The text says where, as LINE:COLUMN.
	ErrPolicy error = &refusal{"localkms: policy does not parse"}

	// ErrLockout: the key policy would forbid the caller to replace it.
	ErrLockout error = &refusal{"localkms: policy locks its author out"}

	// ErrLimit: one more key, version, tag, grant or policy would exceed a limit in
	// the package documentation or the account's quota in Options.Quota.
	ErrLimit error = &refusal{"localkms: limit exceeded"}

	// ErrFull: the change would make the document larger than the store takes.
	// Do not retry: delete keys, grants or policies first. DisableKey,
	// ScheduleKeyDeletion, RevokeGrant, RetireGrant and DeleteKeyPolicy have space
	// of their own and go on working.
	ErrFull error = &refusal{"localkms: document is full"}

	// ErrReserved: only the service itself may make or delete this key or alias.
	ErrReserved error = &refusal{"localkms: reserved for the service"}
)

// errSuperseded is why a change that was recorded did not happen.
var errSuperseded = fmt.Errorf("%w: another process changed the store first", keyring.ErrConflict)

// refusal is an error of the kind kms.ErrInvalid.
type refusal struct{ text string }

func (e *refusal) Error() string { return e.text }
func (e *refusal) Unwrap() error { return kms.ErrInvalid }

// invalid returns a kms.ErrInvalid.
func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %s", kms.ErrInvalid, fmt.Sprintf(format, args...))
}

// keyError returns err as a [*kms.KeyError].
func keyError(op kms.Operation, requested string, err error) error {
	if err == nil {
		return nil
	}
	return &kms.KeyError{Op: op, KeyID: cut(requested, maxName), Err: err}
}

// unavailable makes an error of the engine a kms.ErrUnavailable. The end of ctx
// always shows.
func unavailable(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", kms.ErrUnavailable, document.WithContext(ctx, err))
}

// openError makes an error of opening a document a kms.ErrUnavailable if the
// store or the root could not be asked.
func openError(ctx context.Context, err error) error {
	if errors.Is(err, keyring.ErrInvalid) { // the root is too easy to guess
		return fmt.Errorf("%w: %w", kms.ErrInvalid, err)
	}
	for _, kind := range []error{keyring.ErrNotExist, keyring.ErrExist, keyring.ErrDamaged, keyring.ErrVersion, keyring.ErrRoot} {
		if errors.Is(err, kind) {
			return err
		}
	}
	return unavailable(ctx, err)
}

// contextError returns an error if ctx has ended.
func contextError(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("localkms: %w", err)
	}
	return nil
}
