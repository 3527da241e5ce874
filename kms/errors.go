package kms

import (
	"errors"
	"fmt"
	"strings"
)

// The kinds of errors that a [Client] returns, for [errors.Is]. The service's
// own error is wrapped beside the kind.
var (
	// ErrNotFound means that no key or alias has this name.
	ErrNotFound = errors.New("kms: key not found")
	// ErrDisabled means that the key is disabled.
	ErrDisabled = errors.New("kms: key is disabled")
	// ErrPendingDeletion means that the key is scheduled for deletion, or in
	// another state in which it cannot be used.
	ErrPendingDeletion = errors.New("kms: key is pending deletion")
	// ErrDenied means that the principal lacks permission for this operation.
	ErrDenied = errors.New("kms: access denied")
	// ErrCiphertext means that the ciphertext is damaged, or was made with another
	// key or encryption context.
	ErrCiphertext = errors.New("kms: ciphertext is damaged, or of another key or encryption context")
	// ErrInvalid means that the request itself is wrong.
	ErrInvalid = errors.New("kms: invalid request")
	// ErrUnavailable means that the service did not answer, gave a nonsensical
	// answer, or asked to slow down. Only this kind is worth a retry.
	ErrUnavailable = errors.New("kms: key service is unavailable")
)

// KeyError is the error of a key operation. Every [Client] of this project
// returns one; find it with [errors.As], and the kind of Err with [errors.Is].
type KeyError struct {
	Op    Operation
	KeyID string // as the caller named the key; empty for an operation without one
	Err   error
}

func (e *KeyError) Error() string {
	reason := strings.TrimPrefix(e.Err.Error(), "kms: ")
	if e.KeyID == "" {
		return fmt.Sprintf("kms: %s: %s", e.Op, reason)
	}
	return fmt.Sprintf("kms: %s with key %q: %s", e.Op, e.KeyID, reason)
}

func (e *KeyError) Unwrap() error { return e.Err }
