package cache_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/cache"
	"github.com/blobseal/blobseal/kms/kmstest"
)

// TestOneCall: concurrent callers share a call or its failure.
func TestOneCall(t *testing.T) {
	for name, fault := range map[string]error{"success": nil, "failure": kms.ErrDenied} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fake := kmstest.NewFake("key")
				fake.SetLatency(time.Second)
				if fault != nil {
					fake.Fail(fault, 1)
				}
				cached := cache.New(fake, nil)
				keys, errs, shared := make([]*kms.DataKey, 20), make([]error, 20), atomic.Int32{}
				ask := func() {
					var wg sync.WaitGroup
					for i := range keys {
						wg.Go(func() {
							var r kms.Report
							keys[i], errs[i] = cached.GenerateDataKey(kms.WithReport(as(t, alice), &r), "key", photo)
							if r.Cached {
								shared.Add(1)
							}
						})
					}
					wg.Wait()
				}
				ask()
				require.Equal(t, 1, fake.Count())
				for i := range keys {
					require.ErrorIs(t, errs[i], fault)
					if fault == nil {
						require.Equal(t, keys[0].Plaintext(), keys[i].Plaintext())
					}
				}
				if fault == nil {
					require.EqualValues(t, 19, shared.Load())
					return
				}
				require.Zero(t, shared.Load())
				ask() // the cache keeps no failure
				require.Equal(t, 2, fake.Count())
				require.NoError(t, errors.Join(errs...))
			})
		})
	}
}

// TestLeaderGivesUp: the end of one caller's ctx ends no other call.
func TestLeaderGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := kmstest.NewFake("key")
		fake.SetLatency(time.Second)
		cached := cache.New(fake, nil)
		start := time.Now()
		var wg sync.WaitGroup
		ask := func(timeout time.Duration, want error, took time.Duration) {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(as(t, alice), timeout)
				defer cancel()
				k, err := cached.GenerateDataKey(ctx, "key", photo)
				if !errors.Is(err, want) || (err == nil) != (k != nil) || time.Since(start) != took {
					t.Errorf("caller with %v: %v after %v, want %v after %v", timeout, err, time.Since(start), want, took)
				}
			})
			synctest.Wait()
		}
		ask(300*time.Millisecond, context.DeadlineExceeded, 300*time.Millisecond) // calls
		ask(100*time.Millisecond, context.DeadlineExceeded, 100*time.Millisecond) // waits, and gives up first
		ask(time.Minute, nil, 1300*time.Millisecond)                              // waits, then calls
		ask(time.Minute, nil, 1300*time.Millisecond)                              // or this one
		ask(time.Minute, nil, 1300*time.Millisecond)
		wg.Wait()
		require.Equal(t, 2, fake.Count())
	})
}

// TestClientPanics: a panic reaches the caller who made the call. Nobody hangs.
func TestClientPanics(t *testing.T) {
	fake := kmstest.NewFake("key")
	cached := cache.New(fake, nil)
	fake.Hook(func(context.Context, kmstest.Call) error { panic("client") })
	require.Panics(t, func() { _, _ = cached.GenerateDataKey(as(t, alice), "key", photo) })
	fake.Recover()
	_, err := cached.GenerateDataKey(as(t, alice), "key", photo)
	require.NoError(t, err)
}

// TestGarbage: a malformed answer is an error, and the cache does not keep it.
func TestGarbage(t *testing.T) {
	fake := kmstest.NewFake("key", "other")
	cached := cache.New(fake, nil)
	ctx := as(t, alice)
	good, err := fake.GenerateDataKey(ctx, "key", photo)
	require.NoError(t, err)
	cleared := kmstest.NewDataKey("key")
	cleared.Clear()
	nameless := kmstest.NewDataKey("")
	empty, err := kms.NewDataKey("key", good.Plaintext(), nil)
	require.NoError(t, err)
	for _, answer := range []*kms.DataKey{nil, {}, {KeyID: "key", Ciphertext: []byte("x")}, cleared, nameless, empty} {
		fake.AnswerKey(func(*kms.DataKey) *kms.DataKey { return answer })
		k, err := cached.GenerateDataKey(ctx, "key", photo)
		require.ErrorIs(t, err, kms.ErrUnavailable)
		require.Nil(t, k)
	}
	for _, answer := range [][]byte{nil, {}, make([]byte, 31), bytes.Repeat([]byte{7}, 33), make([]byte, 32), bytes.Repeat([]byte{7}, 64)} {
		fake.AnswerPlaintext(func([]byte) []byte { return answer })
		p, err := cached.Decrypt(ctx, "key", good.Ciphertext, photo)
		require.ErrorIs(t, err, kms.ErrCiphertext)
		require.Nil(t, p)
		require.Equal(t, string(make([]byte, len(answer))), string(answer), "what was refused is cleared")
	}
	require.Empty(t, cached.Plaintexts())
	_, err = kms.NewDataKey("key", make([]byte, 31), nil)
	require.ErrorIs(t, err, kms.ErrInvalid)

	// Another key's data key has that key's id, and opens under no other.
	fake.Recover()
	other, err := fake.GenerateDataKey(ctx, "other", photo)
	require.NoError(t, err)
	wrong, err := kms.NewDataKey("key", other.Plaintext(), other.Ciphertext)
	require.NoError(t, err)
	fake.AnswerKey(func(*kms.DataKey) *kms.DataKey { return other })
	k, err := cached.GenerateDataKey(ctx, "key", photo)
	require.NoError(t, err)
	require.Equal(t, kmstest.ARN("other"), k.KeyID)
	cached.Invalidate("other")
	require.Empty(t, cached.Plaintexts())
	fake.AnswerKey(func(*kms.DataKey) *kms.DataKey { return wrong })
	k, err = cached.GenerateDataKey(ctx, "key", photo)
	require.NoError(t, err) // only decryption can notice
	_, err = cached.Decrypt(ctx, k.KeyID, k.Ciphertext, photo)
	require.ErrorIs(t, err, kms.ErrCiphertext)
}

// silent is a client that reports nothing.
type silent struct{ fake *kmstest.Fake }

func (s silent) GenerateDataKey(ctx context.Context, keyID string, ec kms.Context) (*kms.DataKey, error) {
	return s.fake.GenerateDataKey(kms.WithReport(ctx, new(kms.Report)), keyID, ec)
}

func (s silent) Decrypt(ctx context.Context, keyID string, ciphertext []byte, ec kms.Context) ([]byte, error) {
	return s.fake.Decrypt(kms.WithReport(ctx, new(kms.Report)), keyID, ciphertext, ec)
}

func (s silent) Authorize(_ context.Context, _ kms.Operation, keyID string, _ kms.Context) error {
	if keyID != "key" {
		return kms.ErrNotFound
	}
	return nil
}

// TestCacheOfASilentClient: if the client does not report the key, a result counts as
// one of the key that was asked for.
func TestCacheOfASilentClient(t *testing.T) {
	fake := kmstest.NewFake("key")
	cached := cache.New(silent{fake}, nil)
	k, err := cached.GenerateDataKey(as(t, alice), "key", photo)
	require.NoError(t, err)
	for i := range 2 {
		var r kms.Report
		_, err = cached.Decrypt(kms.WithReport(as(t, alice), &r), "key", k.Ciphertext, photo)
		require.NoError(t, err)
		require.Equal(t, kms.Report{KeyID: "key", Cached: i == 1}, r)
	}
	require.Equal(t, 1, fake.Count(kms.OpDecrypt))
}

// TestManyGoroutines is for the race detector.
func TestManyGoroutines(t *testing.T) {
	fake := kmstest.NewFake("a", "b")
	fake.SetAlias("alias", "a")
	cached := cache.New(kmstest.Authorizing{Fake: fake}, &cache.Options{MaxUses: 20, MaxEntries: 4, MaxAge: 3 * time.Millisecond, StaleReads: time.Second})
	var wg sync.WaitGroup
	stop := time.Now().Add(300 * time.Millisecond)
	for g := range 8 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(g)))
			ctx := as(t, []kms.Principal{alice, bob}[g%2])
			for time.Now().Before(stop) {
				ec := kms.Context{"bucket": fmt.Sprint(r.IntN(3))}
				k, err := cached.GenerateDataKey(ctx, []string{"a", "b", "alias"}[r.IntN(3)], ec)
				if err != nil {
					if !errors.Is(err, kms.ErrUnavailable) && !errors.Is(err, kms.ErrDenied) {
						t.Error(err)
					}
					continue
				}
				p, err := cached.Decrypt(ctx, k.KeyID, k.Ciphertext, ec)
				if err == nil && (!bytes.Equal(p, k.Plaintext()) || k.Plaintext() == nil) {
					t.Error("another plaintext, or zeros")
				}
				clear(p)
				k.Clear()
				switch r.IntN(100) {
				case 0:
					cached.Invalidate("a")
				case 1:
					cached.Invalidate()
				case 2:
					fake.Fail(kms.ErrUnavailable, 2)
				case 3:
					fake.Deny(bob, kms.OpDecrypt)
				case 4:
					fake.Allow(bob, kms.OpDecrypt)
				case 5:
					short, cancel := context.WithTimeout(ctx, time.Microsecond)
					_, _ = cached.GenerateDataKey(short, "b", ec)
					cancel()
				}
			}
		})
	}
	wg.Wait()
	cached.Invalidate()
	require.Empty(t, cached.Plaintexts())
}
