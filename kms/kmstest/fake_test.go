package kmstest_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/kmstest"
)

func generate(ctx context.Context, f kms.Client) error {
	_, err := f.GenerateDataKey(ctx, "key", kms.Context{"a": "1"})
	return err
}

func decrypt(ctx context.Context, f kms.Client) error {
	_, err := f.Decrypt(ctx, "key", []byte("x"), nil)
	return err
}

func TestFail(t *testing.T) {
	f := kmstest.NewFake("key")
	ctx := t.Context()
	other := errors.New("other")
	f.Fail(kms.ErrUnavailable, 2)
	f.Fail(other, 1, kms.OpGenerateDataKey)
	f.Fail(other, 0)
	require.ErrorIs(t, generate(ctx, f), kms.ErrUnavailable)
	require.ErrorIs(t, decrypt(ctx, f), kms.ErrUnavailable)
	require.ErrorIs(t, decrypt(ctx, f), kms.ErrCiphertext)
	require.ErrorIs(t, generate(ctx, f), other)
	require.NoError(t, generate(ctx, f))
	f.Fail(other, -1, kms.OpGenerateDataKey)
	for range 5 {
		require.ErrorIs(t, generate(ctx, f), other)
		require.ErrorIs(t, decrypt(ctx, f), kms.ErrCiphertext)
	}
	f.Recover()
	require.NoError(t, generate(ctx, f))
}

func TestCalls(t *testing.T) {
	f := kmstest.NewFake("key")
	p := kms.Principal{ID: "alice"}
	ctx := kms.WithResource(kms.WithPrincipal(t.Context(), p), "bucket/object")
	require.NoError(t, generate(ctx, f))
	require.Error(t, decrypt(ctx, f))
	calls := f.Calls()
	require.Equal(t, kmstest.Call{
		Operation: kms.OpGenerateDataKey, KeyID: "key", Principal: p, Context: kms.Context{"a": "1"}, Resource: "bucket/object",
	}, calls[0])
	require.ErrorIs(t, calls[1].Err, kms.ErrCiphertext)
	require.Equal(t, []int{2, 1, 1}, []int{f.Count(), f.Count(kms.OpDecrypt), f.Count(kms.OpGenerateDataKey)})
	f.Forget()
	require.Zero(t, f.Count())
	require.Len(t, calls, 2)
}

func TestLatency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := kmstest.NewFake("key")
		f.SetLatency(time.Second)
		start := time.Now()
		require.NoError(t, generate(t.Context(), f))
		require.Equal(t, time.Second, time.Since(start))
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		require.ErrorIs(t, generate(ctx, f), context.DeadlineExceeded)
		require.Equal(t, time.Second+time.Millisecond, time.Since(start))
	})
}

func TestHookAndKeys(t *testing.T) {
	f := kmstest.NewFake("key")
	a := kmstest.Authorizing{Fake: f}
	var seen []kmstest.Call
	f.Hook(func(_ context.Context, c kmstest.Call) error {
		seen = append(seen, c)
		f.Count() // a hook may use the fake
		if c.KeyID == "no" {
			return kms.ErrDenied
		}
		return nil
	})
	require.NoError(t, generate(t.Context(), a))
	require.NoError(t, a.Authorize(t.Context(), kms.OpDecrypt, "key", nil))
	require.ErrorIs(t, a.Authorize(t.Context(), kms.OpDecrypt, "no", nil), kms.ErrDenied)
	require.Len(t, seen, 3)
	require.Equal(t, 1, f.Count(), "Authorize is no call")

	f.AnswerKey(func(*kms.DataKey) *kms.DataKey { return kmstest.NewDataKey("other") })
	k, err := f.GenerateDataKey(t.Context(), "key", nil)
	require.NoError(t, err)
	require.Equal(t, kmstest.ARN("other"), k.KeyID)
	f.RemoveKey("key")
	require.ErrorIs(t, generate(t.Context(), f), kms.ErrNotFound)
	require.Panics(t, func() { f.Disable("key") })
}

// TestFaultsDuringCalls is for the race detector.
func TestFaultsDuringCalls(t *testing.T) {
	f := kmstest.NewFake("key")
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 200 {
				_ = generate(t.Context(), f) // fails sometimes
			}
		})
	}
	for range 50 {
		f.Fail(kms.ErrUnavailable, 1)
		f.Disable("key")
		f.Deny(kms.Principal{})
		f.SetLatency(time.Microsecond)
		_ = f.Calls()
		f.Enable("key")
		f.Allow(kms.Principal{})
		f.Recover()
	}
	wg.Wait()
	require.Equal(t, 800, f.Count())
}
