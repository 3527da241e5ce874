package cache_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/audit"
	"github.com/blobseal/blobseal/kms/cache"
	"github.com/blobseal/blobseal/kms/kmstest"
)

// TestWarmCacheRefuses: with an Authorizer, also behind wrappers, a change of state or
// permission takes effect at once.
func TestWarmCacheRefuses(t *testing.T) {
	for name, wrap := range map[string]func(kms.Client) kms.Client{
		"direct":       func(c kms.Client) kms.Client { return c },
		"audited":      func(c kms.Client) kms.Client { return audit.NewClient(c, discardSink{}) },
		"cached twice": func(c kms.Client) kms.Client { return cache.New(c, nil) },
		"wrapped":      func(c kms.Client) kms.Client { return wrapper{c} },
	} {
		t.Run(name, func(t *testing.T) {
			fake := kmstest.NewFake("key")
			fake.SetAlias("alias", "key")
			cached := cache.New(wrap(kmstest.Authorizing{Fake: fake}), nil)
			ctx := as(t, alice)
			k, err := cached.GenerateDataKey(ctx, "key", photo)
			require.NoError(t, err)
			var ids = []string{"key", "alias"}
			use := func() (errs []error) {
				for _, id := range ids {
					_, err := cached.GenerateDataKey(ctx, id, photo)
					errs = append(errs, err)
					_, err = cached.Decrypt(ctx, id, k.Ciphertext, photo)
					errs = append(errs, err)
				}
				return errs
			}
			warm := func() {
				t.Helper()
				require.NoError(t, errors.Join(use()...))
				fake.Forget()
				require.NoError(t, errors.Join(use()...))
				require.Zero(t, fake.Count())
			}
			warm()
			for kind, change := range map[error][2]func(){
				kms.ErrDisabled:        {func() { fake.Disable("key") }, func() { fake.Enable("key") }},
				kms.ErrPendingDeletion: {func() { fake.ScheduleDeletion("key") }, func() { fake.Enable("key") }},
				kms.ErrDenied:          {func() { fake.Deny(alice) }, func() { fake.Allow(alice) }},
			} {
				change[0]()
				for range 2 {
					for _, err := range use() {
						require.ErrorIs(t, err, kind)
					}
				}
				require.Empty(t, cached.Plaintexts(), "entries after they were refused")
				change[1]()
				warm()
			}
		})
	}
}

type discardSink struct{}

func (discardSink) Write(context.Context, audit.Record) error { return nil }

// wrapper has Unwrap, and does not forward Authorize.
type wrapper struct{ kms.Client }

func (w wrapper) Unwrap() kms.Client { return w.Client }

// TestMovedAlias: when the old key is disabled, a write by alias uses the new key.
func TestMovedAlias(t *testing.T) {
	fake := kmstest.NewFake("old", "new")
	fake.SetAlias("alias", "old")
	cached := cache.New(kmstest.Authorizing{Fake: fake}, nil)
	_, err := cached.GenerateDataKey(as(t, alice), "alias", photo)
	require.NoError(t, err)
	fake.SetAlias("alias", "new")
	fake.Disable("old")
	k, err := cached.GenerateDataKey(as(t, alice), "alias", photo)
	require.NoError(t, err)
	require.Equal(t, kmstest.ARN("new"), k.KeyID)
}

// TestAuthorizerDuringChange: an entry that is dropped while the Authorizer is asked
// is not used.
func TestAuthorizerDuringChange(t *testing.T) {
	fake := kmstest.NewFake("key")
	cached := cache.New(kmstest.Authorizing{Fake: fake}, nil)
	first, err := cached.GenerateDataKey(as(t, alice), "key", photo)
	require.NoError(t, err)
	once := true
	fake.Hook(func(context.Context, kmstest.Call) error {
		if once {
			once = false
			cached.Invalidate()
		}
		return nil
	})
	second, err := cached.GenerateDataKey(as(t, alice), "key", photo)
	require.NoError(t, err)
	require.NotEqual(t, first.Plaintext(), second.Plaintext())
	require.NotNil(t, second.Plaintext())

	// The end of ctx meanwhile is not a refusal.
	ctx, cancel := context.WithCancel(as(t, alice))
	fake.Hook(func(ctx context.Context, _ kmstest.Call) error { cancel(); <-ctx.Done(); return ctx.Err() })
	_, err = cached.GenerateDataKey(ctx, "key", photo)
	require.ErrorIs(t, err, context.Canceled)
	require.Len(t, cached.Plaintexts(), 1)
	// An outage of the Authorizer is not a refusal either, but fails.
	fake.Hook(func(context.Context, kmstest.Call) error { return kms.ErrUnavailable })
	_, err = cached.GenerateDataKey(as(t, alice), "key", photo)
	require.ErrorIs(t, err, kms.ErrUnavailable)
	fake.Recover()
	fake.Forget()
	third, err := cached.GenerateDataKey(as(t, alice), "key", photo)
	require.NoError(t, err)
	require.Equal(t, second.Plaintext(), third.Plaintext())
	require.Zero(t, fake.Count())
}

// TestOutage tests StaleReads while the service is down. It is long because it is one
// history of one cache.
func TestOutage(t *testing.T) {
	const maxAge = time.Hour
	for _, staleReads := range []time.Duration{0, maxAge, -1} {
		serves := staleReads == maxAge
		for _, authorizing := range []bool{false, true} {
			t.Run(fmt.Sprintf("serves %v, asks %v", serves, authorizing), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					fake := kmstest.NewFake("key")
					var client kms.Client = fake
					if authorizing {
						client = kmstest.Authorizing{Fake: fake}
					}
					cached := cache.New(client, &cache.Options{StaleReads: staleReads})
					var r kms.Report
					ctx := kms.WithReport(as(t, alice), &r)
					read := func(k *kms.DataKey) error {
						p, err := cached.Decrypt(ctx, "key", k.Ciphertext, photo)
						if err == nil && !bytes.Equal(p, k.Plaintext()) {
							t.Error("another plaintext")
						}
						return err
					}
					write := func() (*kms.DataKey, error) { return cached.GenerateDataKey(ctx, "key", photo) }
					k, err := write()
					require.NoError(t, err)
					require.NoError(t, read(k))
					unread, err := fake.GenerateDataKey(ctx, "key", photo)
					require.NoError(t, err)

					fake.Fail(kms.ErrUnavailable, -1)
					require.NoError(t, read(k), "within the limits")
					require.Equal(t, kms.Report{KeyID: kmstest.ARN("key"), KeyVersion: "1", Cached: true}, r)
					require.ErrorIs(t, read(unread), kms.ErrUnavailable)
					time.Sleep(defaultMaxAge)
					_, err = write()
					require.ErrorIs(t, err, kms.ErrUnavailable, "a write never falls back")
					require.ErrorIs(t, read(unread), kms.ErrUnavailable)
					if !serves {
						require.ErrorIs(t, read(k), kms.ErrUnavailable)
						return
					}
					for range 3 {
						require.NoError(t, read(k))
						require.Equal(t, kms.Report{KeyID: kmstest.ARN("key"), KeyVersion: "1", Cached: true, Stale: true}, r)
					}
					calls := fake.Count(kms.OpDecrypt)
					require.NoError(t, read(k))
					require.Equal(t, calls+1, fake.Count(kms.OpDecrypt), "the client is asked each time")

					time.Sleep(maxAge - defaultMaxAge)
					require.NoError(t, read(k), "at the age that the policy allows")
					_, err = cached.Decrypt(as(t, bob), "key", k.Ciphertext, photo)
					require.ErrorIs(t, err, kms.ErrUnavailable, "another principal")
					// Each success counts for the full time again.
					fake.Recover()
					require.NoError(t, read(k))
					require.False(t, r.Cached)
					fake.Fail(kms.ErrUnavailable, -1)
					time.Sleep(maxAge)
					require.NoError(t, read(k))
					if authorizing {
						fake.Disable("key")
						require.ErrorIs(t, read(k), kms.ErrDisabled)
						fake.Enable("key")
						require.ErrorIs(t, read(k), kms.ErrUnavailable, "after it was refused once")
						return
					}
					time.Sleep(time.Nanosecond)
					require.ErrorIs(t, read(k), kms.ErrUnavailable, "past the age that the policy allows")
					fake.Recover()
					require.NoError(t, read(k))
					_, err = write()
					require.NoError(t, err)
				})
			})
		}
	}
}

// TestOutageShorterThanMaxAge: StaleReads bounds what is used without permission, also
// if the result is younger than MaxAge.
func TestOutageShorterThanMaxAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := kmstest.NewFake("key")
		cached := cache.New(kmstest.Authorizing{Fake: fake}, &cache.Options{MaxAge: time.Hour, StaleReads: time.Minute})
		k, err := cached.GenerateDataKey(as(t, alice), "key", photo)
		require.NoError(t, err)
		read := func() error { _, err := cached.Decrypt(as(t, alice), "key", k.Ciphertext, photo); return err }
		require.NoError(t, read())
		fake.Hook(func(context.Context, kmstest.Call) error { return kms.ErrUnavailable })
		time.Sleep(time.Minute)
		require.NoError(t, read())
		time.Sleep(time.Nanosecond)
		require.ErrorIs(t, read(), kms.ErrUnavailable)
		fake.Recover()
		fake.Forget()
		require.NoError(t, read())
		require.Zero(t, fake.Count(), "it was kept")
	})
}

// TestOutageAfterRefusal: a result that the client refused is not used later, and only
// ErrUnavailable is an outage.
func TestOutageAfterRefusal(t *testing.T) {
	for _, kind := range []error{
		kms.ErrDenied, kms.ErrDisabled, kms.ErrPendingDeletion, kms.ErrNotFound, kms.ErrCiphertext, kms.ErrInvalid, errors.New("other"),
	} {
		synctest.Test(t, func(t *testing.T) {
			fake := kmstest.NewFake("key")
			cached := cache.New(fake, &cache.Options{StaleReads: time.Hour, MaxUses: 2})
			k, err := fake.GenerateDataKey(as(t, alice), "key", photo)
			require.NoError(t, err)
			read := func() error {
				_, err := cached.Decrypt(as(t, alice), "key", k.Ciphertext, photo)
				return err
			}
			for range 2 {
				require.NoError(t, read())
			}
			fake.Fail(kms.ErrUnavailable, 1)
			require.NoError(t, read(), "past its number of uses, in an outage")
			ctx, cancel := context.WithTimeout(as(t, alice), 50*time.Millisecond)
			defer cancel()
			fake.SetLatency(time.Second)
			_, err = cached.Decrypt(ctx, "key", k.Ciphertext, photo)
			require.ErrorIs(t, err, context.DeadlineExceeded, "no outage yet")
			fake.SetLatency(0)
			fake.Fail(kind, 1)
			fake.Fail(kms.ErrUnavailable, 1)
			require.ErrorIs(t, read(), kind)
			require.ErrorIs(t, read(), kms.ErrUnavailable)
			require.NoError(t, read())
		})
	}
}

// TestSlowService: a call ends as soon as its ctx does, for the caller who makes it and
// for those who wait.
func TestSlowService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := kmstest.NewFake("key")
		cached := cache.New(fake, nil)
		audited := audit.NewClient(cached, discardSink{})
		fake.SetLatency(time.Minute)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(as(t, alice), 20*time.Millisecond)
				defer cancel()
				start := time.Now()
				_, err := audited.GenerateDataKey(ctx, "key", photo)
				if took := time.Since(start); !errors.Is(err, context.DeadlineExceeded) || took != 20*time.Millisecond {
					t.Errorf("%v, after %v", err, took)
				}
			})
		}
		wg.Wait()
	})
}

// TestFlapping: when every second call fails, every data key still opens.
func TestFlapping(t *testing.T) {
	fake := kmstest.NewFake("key")
	var n atomic.Int64
	fake.Hook(func(context.Context, kmstest.Call) error {
		if n.Add(1)%2 == 0 {
			return fmt.Errorf("%w: flapping", kms.ErrUnavailable)
		}
		return nil
	})
	cached := cache.New(fake, &cache.Options{MaxUses: 3})
	succeeded := 0
	for range 300 {
		k, err := cached.GenerateDataKey(as(t, alice), "key", photo)
		if err != nil {
			require.ErrorIs(t, err, kms.ErrUnavailable)
			continue
		}
		succeeded++
		require.NotNil(t, k.Plaintext())
	}
	require.Greater(t, succeeded, 200)
}

// TestClocks: an entry does not outlive its limit when a clock is set or the machine
// sleeps.
func TestClocks(t *testing.T) {
	fake := kmstest.NewFake("key")
	cached := cache.New(fake, nil)
	start := time.Now()
	now := start
	cached.SetNow(func() time.Time { return now })
	calls := func() int {
		fake.Forget()
		_, err := cached.GenerateDataKey(as(t, alice), "key", photo)
		require.NoError(t, err)
		return fake.Count()
	}
	require.Equal(t, 1, calls())
	require.Equal(t, 0, calls())
	// The wall clock forward, as after sleep: Round strips the monotonic reading.
	now = start.Round(0).Add(defaultMaxAge)
	require.Equal(t, 1, calls())
	// When all clocks go back, ages mean nothing.
	now = start.Round(0).Add(-time.Hour)
	require.Equal(t, 1, calls())
	require.Equal(t, 0, calls())
	now = now.Add(defaultMaxAge)
	require.Equal(t, 1, calls())
}
