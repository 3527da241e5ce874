package kmstest

import (
	"context"
	"errors"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/kms"
)

func testKeyError(ctx context.Context, t *testing.T, s Subject) {
	requireNamed := func(op kms.Operation, keyID string, err error) {
		t.Helper()
		failed, ok := errors.AsType[*kms.KeyError](err)
		require.True(t, ok, "not a *kms.KeyError: %v (call kms.CallError)", err)
		require.Equal(t, op, failed.Op)
		require.Equal(t, keyID, failed.KeyID)
	}
	_, err := s.Client.Decrypt(ctx, s.KeyID, []byte("garbage"), nil)
	requireNamed(kms.OpDecrypt, s.KeyID, err)
	canceled, cancel := context.WithCancel(ctx)
	cancel()
	_, err = s.Client.GenerateDataKey(canceled, s.KeyID, nil)
	requireNamed(kms.OpGenerateDataKey, s.KeyID, err)
	if s.UnknownKeyID != "" {
		_, err = s.Client.GenerateDataKey(ctx, s.UnknownKeyID, nil)
		requireNamed(kms.OpGenerateDataKey, s.UnknownKeyID, err)
	}
}

// requireBothFail fails the test unless both operations with keyID return an error of
// this kind.
func requireBothFail(ctx context.Context, t *testing.T, s Subject, keyID string, ciphertext []byte, kind error) {
	t.Helper()
	for range 2 {
		k, err := s.Client.GenerateDataKey(ctx, keyID, nil)
		RequireKind(t, err, kind, "GenerateDataKey")
		require.Nil(t, k, "data key beside an error")
		plaintext, err := s.Client.Decrypt(ctx, keyID, ciphertext, nil)
		RequireKind(t, err, kind, "Decrypt")
		require.Nil(t, plaintext, "plaintext beside an error")
	}
}

func testUnknownKey(ctx context.Context, t *testing.T, s Subject) {
	if s.UnknownKeyID == "" {
		t.Skip("no unknown key id")
	}
	requireBothFail(ctx, t, s, s.UnknownKeyID, generate(ctx, t, s, nil).Ciphertext, kms.ErrNotFound)
}

func testEmptyKeyID(ctx context.Context, t *testing.T, s Subject) {
	k := generate(ctx, t, s, nil)
	for _, call := range []func() error{
		func() error { _, err := s.Client.GenerateDataKey(ctx, "", nil); return err },
		func() error { _, err := s.Client.Decrypt(ctx, "", k.Ciphertext, nil); return err },
	} {
		err := call()
		require.True(t, errors.Is(err, kms.ErrInvalid) || errors.Is(err, kms.ErrNotFound), "empty key id: %v", err)
	}
}

func testDisabled(ctx context.Context, t *testing.T, s Subject) {
	if s.Disable == nil {
		t.Skip("keys cannot be disabled")
	}
	k := generate(ctx, t, s, nil)
	requireOpens(ctx, t, s, k, nil)
	s.Disable(t)
	requireBothFail(ctx, t, s, s.KeyID, k.Ciphertext, kms.ErrDisabled)
	if s.Enable == nil {
		return
	}
	s.Enable(t)
	requireOpens(ctx, t, s, k, nil)
	requireOpens(ctx, t, s, generate(ctx, t, s, nil), nil)
}

func testPendingDeletion(ctx context.Context, t *testing.T, s Subject) {
	if s.ScheduleDeletion == nil {
		t.Skip("keys cannot be scheduled for deletion")
	}
	k := generate(ctx, t, s, nil)
	requireOpens(ctx, t, s, k, nil)
	s.ScheduleDeletion(t)
	requireBothFail(ctx, t, s, s.KeyID, k.Ciphertext, kms.ErrPendingDeletion)
}

func testDenied(ctx context.Context, t *testing.T, s Subject) {
	if s.Deny == nil {
		t.Skip("principals cannot be denied")
	}
	k := generate(ctx, t, s, nil)
	requireOpens(ctx, t, s, k, nil)
	generates := func() error { _, err := s.Client.GenerateDataKey(ctx, s.KeyID, nil); return err }
	decrypts := func() error { _, err := s.Client.Decrypt(ctx, s.KeyID, k.Ciphertext, nil); return err }
	s.Deny(t, principal, kms.OpDecrypt)
	for range 2 {
		RequireKind(t, decrypts(), kms.ErrDenied, "Decrypt")
		require.NoError(t, generates(), "GenerateDataKey, which was not denied")
	}
	s.Deny(t, principal, kms.OpGenerateDataKey)
	requireBothFail(ctx, t, s, s.KeyID, k.Ciphertext, kms.ErrDenied)
	ctx = kms.WithPrincipal(ctx, kms.Principal{})
	requireOpens(ctx, t, s, k, nil)
	generate(ctx, t, s, nil)
}

func testUnavailable(ctx context.Context, t *testing.T, s Subject) {
	if s.Break == nil || s.Repair == nil {
		t.Skip("the service cannot be broken")
	}
	k := generate(ctx, t, s, kms.Context{"before": "the break"})
	for range 2 {
		s.Break(t)
		requireBothFail(ctx, t, s, s.KeyID, k.Ciphertext, kms.ErrUnavailable)
		s.Repair(t)
		requireOpens(ctx, t, s, k, kms.Context{"before": "the break"})
		generate(ctx, t, s, nil)
		s.Break(t)
		_, err := s.Client.GenerateDataKey(ctx, s.KeyID, kms.Context{"in": "the break"})
		RequireKind(t, err, kms.ErrUnavailable, "GenerateDataKey")
		s.Repair(t)
		if s.ReusesDataKeys {
			return // the cache would answer the second round
		}
	}
}

func testCanceled(ctx context.Context, t *testing.T, s Subject) {
	k := generate(ctx, t, s, nil)
	ended, cancel := context.WithCancel(ctx)
	cancel()
	expired, cancel := context.WithDeadline(ctx, time.Unix(1, 0))
	defer cancel()
	for _, end := range []struct {
		ctx context.Context
		err error
	}{{ended, context.Canceled}, {expired, context.DeadlineExceeded}} {
		for _, ec := range []kms.Context{nil, {"kmstest": "new"}} {
			key, err := s.Client.GenerateDataKey(end.ctx, s.KeyID, ec)
			require.ErrorIs(t, err, end.err, "GenerateDataKey")
			require.Nil(t, key)
			plaintext, err := s.Client.Decrypt(end.ctx, s.KeyID, k.Ciphertext, ec)
			require.ErrorIs(t, err, end.err, "Decrypt")
			require.Nil(t, plaintext)
		}
	}
	requireOpens(ctx, t, s, k, nil)
}

func testStalled(ctx context.Context, t *testing.T, s Subject) {
	if s.Stall == nil {
		t.Skip("the service cannot be stalled")
	}
	k := generate(ctx, t, s, kms.Context{"before": "the stall"})
	s.Stall(t)
	for _, call := range []func(ctx context.Context) error{
		func(ctx context.Context) error { _, err := s.Client.GenerateDataKey(ctx, s.KeyID, nil); return err },
		func(ctx context.Context) error {
			_, err := s.Client.Decrypt(ctx, s.KeyID, k.Ciphertext, kms.Context{"before": "the stall"})
			return err
		},
	} {
		late := time.Duration(math.MaxInt64)
		for range 5 { // a busy machine is late now and then, a client that waits is late each time
			short, cancel := context.WithTimeout(ctx, prompt)
			start := time.Now()
			err := call(short)
			late = min(late, time.Since(start)-prompt)
			cancel()
			require.ErrorIs(t, err, context.DeadlineExceeded)
			if late < prompt+grace {
				break
			}
		}
		require.Less(t, late, prompt+grace, "time from the end of a call's ctx until it returned")
	}
}

func testReport(ctx context.Context, t *testing.T, s Subject) {
	for range 2 {
		var r kms.Report
		k := generate(kms.WithReport(ctx, &r), t, s, nil)
		if r.KeyID != "" {
			require.Equal(t, s.KeyID, r.KeyID, "Report.KeyID of GenerateDataKey")
		}
		require.False(t, r.Cached && !s.ReusesDataKeys, "Report.Cached of a client that is no cache")
		r = kms.Report{}
		_, err := s.Client.Decrypt(kms.WithReport(ctx, &r), s.KeyID, k.Ciphertext, nil)
		require.NoError(t, err)
		if r.KeyID != "" {
			require.Equal(t, s.KeyID, r.KeyID, "Report.KeyID of Decrypt")
		}
	}
}

func testAuthorizer(ctx context.Context, t *testing.T, s Subject) {
	a, ok := s.Client.(kms.Authorizer)
	if !ok {
		t.Skip("no Authorizer")
	}
	ops := []kms.Operation{kms.OpGenerateDataKey, kms.OpDecrypt}
	for _, op := range ops {
		require.NoError(t, a.Authorize(ctx, op, s.KeyID, nil), "%s", op)
		if s.Alias != "" {
			require.NoError(t, a.Authorize(ctx, op, s.Alias, nil), "%s by alias", op)
		}
		if s.UnknownKeyID != "" {
			RequireKind(t, a.Authorize(ctx, op, s.UnknownKeyID, nil), kms.ErrNotFound, "%s with an unknown key", op)
		}
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if err := a.Authorize(ended, kms.OpDecrypt, s.KeyID, nil); err != nil { // answering is allowed, too
		require.ErrorIs(t, err, context.Canceled)
	}
	if s.Deny != nil {
		s.Deny(t, principal, kms.OpDecrypt)
		RequireKind(t, a.Authorize(ctx, kms.OpDecrypt, s.KeyID, nil), kms.ErrDenied, "Decrypt")
		require.NoError(t, a.Authorize(ctx, kms.OpGenerateDataKey, s.KeyID, nil), "GenerateDataKey, which was not denied")
	}
	if s.Disable != nil {
		s.Disable(t)
		RequireKind(t, a.Authorize(ctx, kms.OpGenerateDataKey, s.KeyID, nil), kms.ErrDisabled, "GenerateDataKey")
	}
	if s.Enable != nil {
		s.Enable(t)
		require.NoError(t, a.Authorize(ctx, kms.OpGenerateDataKey, s.KeyID, nil))
	}
}
