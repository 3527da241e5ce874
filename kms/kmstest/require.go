package kmstest

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/kms"
)

// kinds are what an error of a client can be.
var kinds = []error{
	kms.ErrNotFound, kms.ErrDisabled, kms.ErrPendingDeletion, kms.ErrDenied, kms.ErrCiphertext, kms.ErrInvalid,
	kms.ErrUnavailable, context.Canceled, context.DeadlineExceeded,
}

// RequireKind fails the test unless err is an error of this kind, and of no other.
// The kinds are those of package kms and the two errors of a ctx. A nil kind means
// an error without a kind. The test's failure shows what, a format and its values.
func RequireKind(t testing.TB, err, kind error, what ...any) {
	t.Helper()
	require.Error(t, err, what...)
	if kind != nil {
		require.ErrorIs(t, err, kind, what...)
	}
	for _, other := range kinds {
		if other != kind {
			require.NotErrorIs(t, err, other, what...)
		}
	}
}

// NoKind stands for an error without a kind in [RequireFault].
var NoKind error = noKind{}

type noKind struct{}

func (noKind) Error() string { return "kmstest: error without a kind" }

// RequireFault fails the test unless both operations with a key succeed before fault
// breaks the service, and then end with errors of these kinds: nil is success, [NoKind]
// an error without a kind. It passes each error to check.
func RequireFault(t testing.TB, c kms.Client, keyID string, fault func(), generate, decrypt error, check func(error)) {
	t.Helper()
	operations := Operations(t, c, keyID, nil)
	fault()
	for _, want := range []struct {
		op   kms.Operation
		kind error
	}{{kms.OpGenerateDataKey, generate}, {kms.OpDecrypt, decrypt}} {
		err := operations[want.op](t.Context())
		if want.kind == nil {
			require.NoError(t, err)
			continue
		}
		if want.kind == NoKind {
			want.kind = nil
		}
		RequireKind(t, err, want.kind)
		require.NotContains(t, err.Error(), "%!", "its text")
		check(err)
	}
}

const (
	moment = 50 * time.Millisecond // until a ctx ends
	soon   = 20 * time.Second      // within which a call then returns: less than any fault lasts
)

// RequireEnds fails the test unless call, which would take very long, returns soon
// after its ctx ends, with ctx's error: both after a deadline and a cancellation.
func RequireEnds(t testing.TB, call func(ctx context.Context) error) {
	t.Helper()
	for _, end := range []error{context.DeadlineExceeded, context.Canceled} {
		ctx, cancel := context.WithTimeout(t.Context(), moment)
		if end == context.Canceled {
			ctx, cancel = context.WithCancel(t.Context())
			time.AfterFunc(moment, cancel)
		}
		start := time.Now()
		err := call(ctx)
		took := time.Since(start)
		cancel()
		RequireKind(t, err, end)
		require.Less(t, took, soon, "the call returned long after its ctx ended")
	}
}

// Operations returns both operations with a key. Each fails the test if a result
// comes beside an error, or no result without one.
func Operations(t testing.TB, c kms.Client, keyID string, ec kms.Context) map[kms.Operation]func(ctx context.Context) error {
	t.Helper()
	made, err := c.GenerateDataKey(t.Context(), keyID, ec)
	require.NoError(t, err)
	return map[kms.Operation]func(ctx context.Context) error{
		kms.OpGenerateDataKey: func(ctx context.Context) error {
			k, err := c.GenerateDataKey(ctx, keyID, ec)
			require.Equal(t, err != nil, k == nil, "data key %v with error %v", k, err)
			return err
		},
		kms.OpDecrypt: func(ctx context.Context) error {
			p, err := c.Decrypt(ctx, made.KeyID, made.Ciphertext, ec)
			require.Equal(t, err != nil, p == nil, "plaintext with error %v", err)
			return err
		},
	}
}

// Late returns a ctx whose deadline has passed, and which has not ended yet, as
// happens for a moment before a timer fires.
func Late(ctx context.Context) context.Context { return late{ctx} }

type late struct{ context.Context }

func (late) Deadline() (time.Time, bool) { return time.Unix(1, 0), true }
