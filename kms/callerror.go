package kms

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/blobseal/blobseal/internal/chunked"
)

// CallError returns err, with which a key operation failed, as a [*KeyError]. Nil
// stays nil, and a KeyError stays as it is. Implementations of [Client] call it.
//
// kind is the kind of err, or nil if err has one already or none is known. If ctx
// has ended, the error is ctx's, whatever a service's SDK made of that. Otherwise
// an end of some other context, such as the SDK's own time limit, is in the text
// only: errors.Is must not take it for the end of ctx.
func CallError(ctx context.Context, op Operation, keyID string, kind, err error) error {
	if _, ok := errors.AsType[*KeyError](err); ok || err == nil {
		return err
	}
	ended := contextError(ctx)
	foreign := errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
	switch {
	case ended != nil && !errors.Is(err, ended):
		err = fmt.Errorf("%w: %v", ended, err)
	case ended != nil:
	case foreign && kind == nil:
		err = fmt.Errorf("%w: %v", ErrUnavailable, err)
	case foreign:
		err = fmt.Errorf("%w: %v", kind, err)
	case kind != nil:
		err = fmt.Errorf("%w: %w", kind, err)
	}
	return &KeyError{Op: op, KeyID: keyID, Err: err}
}

// contextError returns ctx's error if it has one, or is to have one at this moment: a
// network, or a server that was told of ctx's deadline, can meet it a little
// earlier than ctx itself does.
func contextError(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if deadline, ok := ctx.Deadline(); ok && !time.Now().Before(deadline) {
		return context.DeadlineExceeded
	}
	return nil
}

// CallWithContext returns what call returns, or ctx's error if ctx ends first. Clients
// call it if an SDK may go on waiting after ctx ended. An abandoned call ends in a
// goroutine of its own; drop gets its result, to clear it.
func CallWithContext[T any](ctx context.Context, call func() T, drop func(T)) (T, error) {
	if ctx.Done() == nil {
		return call(), nil
	}
	results := make(chan T)
	go func() {
		result := call()
		select {
		case results <- result:
		case <-ctx.Done():
			drop(result)
		}
	}()
	select {
	case result := <-results:
		return result, nil
	case <-ctx.Done():
		var none T
		return none, ctx.Err()
	}
}

// CheckDataKey returns plaintext, which a service decrypted. If plaintext is not as long
// as a data key, CheckDataKey clears it and fails with [ErrCiphertext].
func CheckDataKey(plaintext []byte) ([]byte, error) {
	if len(plaintext) != DataKeySize {
		clear(plaintext)
		return nil, fmt.Errorf("%w: it holds %d bytes, a data key has %d", ErrCiphertext, len(plaintext), DataKeySize)
	}
	return plaintext, nil
}

// SealDataKey encrypts a data key under a random key of [DataKeySize] bytes that
// is used once, and binds ec. Clients call it if their service encrypts keys and
// binds no context: the service then encrypts the random key. The result is a
// Cobblestone-256 message, 72 bytes longer than the data key.
func SealDataKey(wrappingKey, plaintext []byte, ec Context) ([]byte, error) {
	sealed, err := chunked.Seal(wrappingKey, ec.AssociatedData(), plaintext)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return sealed, nil
}

// OpenDataKey decrypts what [SealDataKey] returned. A wrong key or context, and a
// damaged message, are [ErrCiphertext].
func OpenDataKey(wrappingKey, sealed []byte, ec Context) ([]byte, error) {
	plaintext, err := chunked.OpenMessage(wrappingKey, ec.AssociatedData(), sealed)
	if err != nil { // also if the wrapping key has another length
		return nil, ErrCiphertext
	}
	return plaintext, nil
}
