package kms_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/audit"
	"github.com/blobseal/blobseal/kms/kmstest"
)

var (
	alice = kms.Principal{ID: "alice", Type: "User"}
	bob   = kms.Principal{ID: "bob", Type: "User"}
	photo = kms.Context{"blobseal:object": "photos"}
)

func as(t testing.TB, p kms.Principal) context.Context { return kms.WithPrincipal(t.Context(), p) }

// fakeSubject is a fake, behind wrap, as a subject of the suite.
func fakeSubject(f *kmstest.Fake, wrap func(kms.Client) kms.Client, authorizing bool) kmstest.Subject {
	f.AddKey("key-1")
	f.AddKey("key-2")
	f.SetAlias("alias/one", "key-1")
	s := kmstest.Subject{KeyID: kmstest.ARN("key-1"), Alias: "alias/one", OtherKeyID: kmstest.ARN("key-2"), UnknownKeyID: kmstest.ARN("key-3")}
	if authorizing {
		s.Client = wrap(kmstest.Authorizing{Fake: f})
	} else {
		s.Client = wrap(f)
	}
	s.Disable = func(*testing.T) { f.Disable("key-1") }
	s.ScheduleDeletion = func(*testing.T) { f.ScheduleDeletion("key-1") }
	s.Enable = func(*testing.T) { f.Enable("key-1") }
	s.Deny = func(_ *testing.T, p kms.Principal, op kms.Operation) { f.Deny(p, op) }
	s.Break = func(*testing.T) { f.Fail(kms.ErrUnavailable, -1) }
	s.Repair = func(*testing.T) { f.Recover() }
	s.Stall = func(*testing.T) { f.SetLatency(10 * time.Second) }
	return s
}

// TestCacheIsAClient: the whole contract holds through a cache that asks, and
// all of it that a cache can hold through one that cannot.
func TestCacheIsAClient(t *testing.T) {
	t.Run("asking", func(t *testing.T) {
		kmstest.Run(t, func(t *testing.T) kmstest.Subject {
			s := fakeSubject(kmstest.NewFake(), func(c kms.Client) kms.Client { return kms.NewCache(c, nil) }, true)
			s.ReusesDataKeys = true
			s.Break = nil // a cache goes on for a while
			return s
		})
	})
	t.Run("blind", func(t *testing.T) {
		kmstest.Run(t, func(t *testing.T) kmstest.Subject {
			s := fakeSubject(kmstest.NewFake(), func(c kms.Client) kms.Client { return kms.NewCache(c, nil) }, false)
			s.ReusesDataKeys = true
			s.Break, s.Disable, s.ScheduleDeletion, s.Deny = nil, nil, nil, nil // it learns of them late
			return s
		})
	})
	t.Run("off", func(t *testing.T) {
		kmstest.Run(t, func(t *testing.T) kmstest.Subject {
			return fakeSubject(kmstest.NewFake(), func(c kms.Client) kms.Client {
				return kms.NewCache(c, &kms.CacheOptions{MaxAge: -1})
			}, false)
		})
	})
}

// TestBucketKey: 100,000 writes of two principals are two calls per time limit.
func TestBucketKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := kmstest.NewFake("key")
		cache := kms.NewCache(fake, nil)
		ctxs := []context.Context{as(t, alice), as(t, bob)}
		keys := make(map[string]bool)
		writes := func() {
			for i := range 100_000 {
				k, err := cache.GenerateDataKey(ctxs[i%2], "key", photo)
				require.NoError(t, err)
				require.False(t, k.IsZero(), "data key of zeros after %d writes", i)
				keys[string(k.Plaintext())] = true
				k.Clear() // the caller's own
			}
		}
		writes()
		require.Equal(t, 2, fake.Count())
		require.Len(t, keys, 2)
		require.Equal(t, alice, fake.Calls()[0].Principal)
		require.Equal(t, bob, fake.Calls()[1].Principal)
		time.Sleep(kms.DefaultMaxAge - time.Nanosecond)
		writes()
		require.Equal(t, 2, fake.Count())
		time.Sleep(time.Nanosecond)
		writes()
		require.Equal(t, 4, fake.Count())
		require.Len(t, keys, 4)
	})
}

// TestCacheSeparates: each question is its own, however alike.
func TestCacheSeparates(t *testing.T) {
	fake := kmstest.NewFake("key", "key2", "k", "")
	fake.SetAlias("alias", "key")
	cache := kms.NewCache(fake, nil)
	type question struct {
		p     kms.Principal
		keyID string
		ec    kms.Context
	}
	seen := make(map[string]question)
	for _, q := range []question{
		{alice, "key", nil},
		{bob, "key", nil},
		{kms.Principal{}, "key", nil},
		{kms.Principal{ID: "alice"}, "key", nil},
		{kms.Principal{ID: "alice", Type: "Role"}, "key", nil},
		{kms.Principal{ID: "alic", Type: "eUser"}, "key", nil},
		{alice, "key2", nil},
		{alice, "alias", nil},
		{alice, "key", kms.Context{"": ""}},
		{alice, "key", kms.Context{"a": "bc"}},
		{alice, "key", kms.Context{"ab": "c"}},
		{alice, "key", kms.Context{"A": "bc"}},
		{alice, "key", kms.Context{"a": "b", "c": ""}},
		{alice, "key", kms.Context{"a": "", "b": "c"}},
		{alice, "k", kms.Context{"ey": ""}},
	} {
		for range 2 {
			k, err := cache.GenerateDataKey(as(t, q.p), q.keyID, q.ec)
			require.NoError(t, err)
			if other, ok := seen[string(k.Plaintext())]; ok {
				require.Equal(t, q, other, "one data key for both")
			}
			seen[string(k.Plaintext())] = q
		}
	}
	require.Len(t, seen, 15)
	require.Equal(t, 15, fake.Count())

	// Order does not count, and nil is empty.
	fake.Forget()
	for range 20 {
		ec := kms.Context{}
		for _, i := range rand.Perm(20) {
			ec[fmt.Sprint(i)] = "x"
		}
		_, err := cache.GenerateDataKey(as(t, alice), "key", ec)
		require.NoError(t, err)
		_, err = cache.GenerateDataKey(as(t, alice), "key", kms.Context{})
		require.NoError(t, err)
	}
	require.Equal(t, 1, fake.Count())
}

// TestCacheDecrypt: a read is cached as a write is, and permission to write is
// none to read.
func TestCacheDecrypt(t *testing.T) {
	fake := kmstest.NewFake("key")
	fake.Deny(alice, kms.OpDecrypt)
	cache := kms.NewCache(fake, nil)
	k, err := cache.GenerateDataKey(as(t, alice), "key", photo)
	require.NoError(t, err)
	_, err = cache.Decrypt(as(t, alice), "key", k.Ciphertext, photo)
	require.ErrorIs(t, err, kms.ErrDenied)
	fake.Forget()
	for range 10 {
		plaintext, err := cache.Decrypt(as(t, bob), "key", k.Ciphertext, photo)
		require.NoError(t, err)
		require.Equal(t, k.Plaintext(), plaintext)
		clear(plaintext)
	}
	require.Equal(t, 1, fake.Count())
	_, err = cache.Decrypt(as(t, alice), "key", k.Ciphertext, photo)
	require.ErrorIs(t, err, kms.ErrDenied, "after another principal's read")
	_, err = cache.Decrypt(as(t, bob), "key", k.Ciphertext, kms.Context{"blobseal:object": "Photos"})
	require.ErrorIs(t, err, kms.ErrCiphertext, "of another context, though cached")
}

func TestCacheReports(t *testing.T) {
	for _, c := range []func(f *kmstest.Fake) kms.Client{
		func(f *kmstest.Fake) kms.Client { return f },
		func(f *kmstest.Fake) kms.Client { return kmstest.Authorizing{Fake: f} },
	} {
		fake := kmstest.NewFake("key")
		fake.SetAlias("alias", "key")
		cache := kms.NewCache(c(fake), nil)
		var r kms.Report
		ctx := kms.WithReport(as(t, alice), &r)
		k, err := cache.GenerateDataKey(ctx, "alias", photo)
		require.NoError(t, err)
		require.Equal(t, kms.Report{RequestID: "fake-1", KeyID: kmstest.ARN("key"), KeyVersion: "1"}, r)
		_, err = cache.GenerateDataKey(ctx, "alias", photo)
		require.NoError(t, err)
		require.Equal(t, kms.Report{KeyID: kmstest.ARN("key"), KeyVersion: "1", Cached: true}, r)
		_, err = cache.Decrypt(ctx, "alias", k.Ciphertext, photo)
		require.NoError(t, err)
		require.Equal(t, kms.Report{RequestID: "fake-2", KeyID: kmstest.ARN("key"), KeyVersion: "1"}, r)
		_, err = cache.Decrypt(ctx, "alias", k.Ciphertext, photo)
		require.NoError(t, err)
		require.Equal(t, kms.Report{KeyID: kmstest.ARN("key"), KeyVersion: "1", Cached: true}, r)
		_, err = cache.Decrypt(ctx, "none", k.Ciphertext, photo)
		require.ErrorIs(t, err, kms.ErrNotFound)
		require.False(t, r.Cached)
	}
}

// TestCacheOff: a field below zero means that nothing is cached, each by itself.
func TestCacheOff(t *testing.T) {
	for _, opts := range []kms.CacheOptions{{MaxAge: -1}, {MaxUses: -1}, {MaxEntries: -1}} {
		fake := kmstest.NewFake("key")
		cache := kms.NewCache(fake, &opts)
		first, err := cache.GenerateDataKey(as(t, alice), "key", photo)
		require.NoError(t, err)
		second, err := cache.GenerateDataKey(as(t, alice), "key", photo)
		require.NoError(t, err)
		require.NotEqual(t, first.Plaintext(), second.Plaintext())
		for range 2 {
			_, err = cache.Decrypt(as(t, alice), "key", first.Ciphertext, photo)
			require.NoError(t, err)
		}
		require.Equal(t, 4, fake.Count(), "%+v", opts)
		require.Empty(t, cache.Plaintexts())
	}
}

// TestCacheUseLimitOfMany: nor do those who ask at once, or wait for one call, use
// a result more often.
func TestCacheUseLimitOfMany(t *testing.T) {
	for _, client := range []kms.Client{kmstest.NewFake("key"), kmstest.Authorizing{Fake: kmstest.NewFake("key")}} {
		cache := kms.NewCache(client, &kms.CacheOptions{MaxUses: 3})
		var mu sync.Mutex
		uses := make(map[string]int)
		var wg sync.WaitGroup
		for range 32 {
			wg.Go(func() {
				for range 50 {
					k, err := cache.GenerateDataKey(as(t, alice), "key", photo)
					if err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					uses[string(k.Plaintext())]++
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		for _, n := range uses {
			require.LessOrEqual(t, n, 3)
		}
		require.GreaterOrEqual(t, len(uses), 32*50/3)
	}
}

func TestCacheUseLimit(t *testing.T) {
	fake := kmstest.NewFake("key")
	cache := kms.NewCache(fake, &kms.CacheOptions{MaxUses: 10})
	ctx := as(t, alice)
	uses := make(map[string]int)
	var ciphertext []byte
	for range 100 {
		k, err := cache.GenerateDataKey(ctx, "key", photo)
		require.NoError(t, err)
		uses[string(k.Plaintext())]++
		ciphertext = k.Ciphertext
	}
	require.Equal(t, 10, fake.Count())
	for _, n := range uses {
		require.Equal(t, 10, n)
	}
	fake.Forget()
	for range 100 {
		_, err := cache.Decrypt(ctx, "key", ciphertext, photo)
		require.NoError(t, err)
	}
	require.Equal(t, 10, fake.Count())

	// Also among those who waited for one call.
	uses, mu := make(map[string]int), sync.Mutex{}
	fake.SetLatency(time.Millisecond)
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			k, err := cache.GenerateDataKey(ctx, "key", nil)
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			uses[string(k.Plaintext())]++
		})
	}
	wg.Wait()
	for _, n := range uses {
		require.LessOrEqual(t, n, 10)
	}
}

func TestCacheEntryLimit(t *testing.T) {
	fake := kmstest.NewFake("key")
	cache := kms.NewCache(fake, &kms.CacheOptions{MaxEntries: 3})
	ctx := as(t, alice)
	ask := func(name string) {
		t.Helper()
		_, err := cache.GenerateDataKey(ctx, "key", kms.Context{"bucket": name})
		require.NoError(t, err)
	}
	ask("a")
	first := cache.Plaintexts()
	ask("b")
	ask("c")
	ask("a") // now b is the least recently used
	require.Equal(t, 3, fake.Count())
	ask("d")
	require.Len(t, cache.Plaintexts(), 3)
	ask("a")
	require.Equal(t, 4, fake.Count())
	require.NotEqual(t, make([]byte, 32), first[0])
	ask("b")
	require.Equal(t, 5, fake.Count())
	ask("x")
	ask("y")
	ask("z")
	require.Equal(t, make([]byte, 32), first[0], "plaintext of an evicted entry")

	fake.Forget()
	for range 2 {
		_, err := cache.GenerateDataKey(ctx, "key", kms.Context{"long": string(make([]byte, 20<<10))})
		require.NoError(t, err)
	}
	require.Equal(t, 2, fake.Count(), "an entry too long to keep")
	require.Len(t, cache.Plaintexts(), 3)
}

// TestCacheZeroes: whatever drops an entry zeroes the cache's copy, and no one's else.
func TestCacheZeroes(t *testing.T) {
	zero := make([]byte, 32)
	for name, drop := range map[string]func(c *kms.Cache, f *kmstest.Fake){
		"Invalidate":    func(c *kms.Cache, _ *kmstest.Fake) { c.Invalidate("key") },
		"InvalidateAll": func(c *kms.Cache, _ *kmstest.Fake) { c.InvalidateAll() },
		"Close":         func(c *kms.Cache, _ *kmstest.Fake) { _ = c.Close() },
		"time": func(c *kms.Cache, _ *kmstest.Fake) {
			time.Sleep(kms.DefaultMaxAge)
			_, _ = c.GenerateDataKey(t.Context(), "key", kms.Context{"another": "question"})
		},
		"time, and the service is down": func(c *kms.Cache, f *kmstest.Fake) {
			time.Sleep(kms.DefaultMaxAge)
			f.Fail(kms.ErrUnavailable, -1)
			_, _ = c.GenerateDataKey(as(t, alice), "alias", photo)
			_, _ = c.Decrypt(as(t, alice), "alias", nil, photo)
			c.InvalidateAll()
		},
		"refusal": func(c *kms.Cache, f *kmstest.Fake) {
			f.Disable("key")
			_, err := c.GenerateDataKey(as(t, alice), "alias", photo)
			require.ErrorIs(t, err, kms.ErrDisabled)
			c.InvalidateAll()
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fake := kmstest.NewFake("key")
				fake.SetAlias("alias", "key")
				cache := kms.NewCache(kmstest.Authorizing{Fake: fake}, nil)
				k, err := cache.GenerateDataKey(as(t, alice), "alias", photo)
				require.NoError(t, err)
				plaintext, err := cache.Decrypt(as(t, alice), "alias", k.Ciphertext, photo)
				require.NoError(t, err)
				own := cache.Plaintexts()
				require.Len(t, own, 2)
				for _, p := range own {
					require.NotEqual(t, zero, p)
				}
				drop(cache, fake)
				for _, p := range own {
					require.Equal(t, zero, p)
				}
				require.NotEqual(t, zero, plaintext)
				require.Equal(t, plaintext, k.Plaintext())
			})
		})
	}
}

func TestCacheInvalidate(t *testing.T) {
	fake := kmstest.NewFake("key", "other")
	fake.SetAlias("alias", "key")
	cache := kms.NewCache(fake, nil)
	ctx := as(t, alice)
	k, err := fake.GenerateDataKey(ctx, "key", photo)
	require.NoError(t, err)
	calls := func() int {
		fake.Forget()
		for _, id := range []string{"key", "alias"} {
			_, err := cache.GenerateDataKey(ctx, id, photo)
			require.NoError(t, err)
			_, err = cache.Decrypt(ctx, id, k.Ciphertext, photo)
			require.NoError(t, err)
		}
		_, err := cache.GenerateDataKey(ctx, "other", photo)
		require.NoError(t, err)
		return fake.Count()
	}
	require.Equal(t, 5, calls())
	require.Equal(t, 0, calls())
	cache.Invalidate("key") // those by alias too
	require.Equal(t, 4, calls())
	cache.Invalidate("alias")
	require.Equal(t, 2, calls())
	cache.Invalidate("nothing")
	require.Equal(t, 0, calls())
	cache.InvalidateAll()
	require.Equal(t, 5, calls())
	require.NoError(t, cache.Close())
	require.Equal(t, 5, calls())
	require.Equal(t, 5, calls())
	require.Empty(t, cache.Plaintexts())
}

// TestInvalidateDuringCall: what was asked before an invalidation is not kept
// after it, and who asks after it does not get it.
func TestInvalidateDuringCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := kmstest.NewFake("key")
		fake.SetLatency(time.Second)
		cache := kms.NewCache(fake, nil)
		var wg sync.WaitGroup
		keys := make([]*kms.DataKey, 3)
		ask := func(i int) {
			wg.Go(func() {
				k, err := cache.GenerateDataKey(as(t, alice), "key", photo)
				if err != nil {
					t.Error(err)
				}
				keys[i] = k
			})
		}
		ask(0)
		synctest.Wait()
		ask(1) // waits for the first
		synctest.Wait()
		cache.Invalidate("unrelated")
		ask(2)
		wg.Wait()
		require.Equal(t, 2, fake.Count())
		require.Equal(t, keys[0].Plaintext(), keys[1].Plaintext())
		require.NotEqual(t, keys[0].Plaintext(), keys[2].Plaintext())
		require.False(t, keys[1].IsZero())
		fake.Forget()
		ask(0)
		synctest.Wait()
		cache.InvalidateAll()
		wg.Wait()
		require.Zero(t, fake.Count(), "answered before")
		ask(0)
		synctest.Wait()
		cache.InvalidateAll() // while it is called
		wg.Wait()
		require.Equal(t, 1, fake.Count())
		require.Empty(t, cache.Plaintexts())
		ask(2)
		wg.Wait()
		k, err := cache.GenerateDataKey(as(t, alice), "key", photo)
		require.NoError(t, err)
		require.Equal(t, keys[2].Plaintext(), k.Plaintext())
	})
}

// TestOneCall: those who ask at once share a call, or its failure.
func TestOneCall(t *testing.T) {
	for name, fault := range map[string]error{"success": nil, "failure": kms.ErrDenied} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fake := kmstest.NewFake("key")
				fake.SetLatency(time.Second)
				if fault != nil {
					fake.Fail(fault, 1)
				}
				cache := kms.NewCache(fake, nil)
				keys, errs, cached := make([]*kms.DataKey, 20), make([]error, 20), atomic.Int32{}
				ask := func() {
					var wg sync.WaitGroup
					for i := range keys {
						wg.Go(func() {
							var r kms.Report
							keys[i], errs[i] = cache.GenerateDataKey(kms.WithReport(as(t, alice), &r), "key", photo)
							if r.Cached {
								cached.Add(1)
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
					require.EqualValues(t, 19, cached.Load())
					return
				}
				require.Zero(t, cached.Load())
				ask() // a failure is not kept
				require.Equal(t, 2, fake.Count())
				require.NoError(t, errors.Join(errs...))
			})
		})
	}
}

// TestLeaderGivesUp: the end of one caller's ctx is no other's.
func TestLeaderGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := kmstest.NewFake("key")
		fake.SetLatency(time.Second)
		cache := kms.NewCache(fake, nil)
		start := time.Now()
		var wg sync.WaitGroup
		ask := func(timeout time.Duration, want error, took time.Duration) {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(as(t, alice), timeout)
				defer cancel()
				k, err := cache.GenerateDataKey(ctx, "key", photo)
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

// TestClientPanics: a panic is the caller's whose call it was; nobody hangs.
func TestClientPanics(t *testing.T) {
	fake := kmstest.NewFake("key")
	cache := kms.NewCache(fake, nil)
	fake.Hook(func(context.Context, kmstest.Call) error { panic("client") })
	require.Panics(t, func() { _, _ = cache.GenerateDataKey(as(t, alice), "key", photo) })
	fake.Recover()
	_, err := cache.GenerateDataKey(as(t, alice), "key", photo)
	require.NoError(t, err)
}

// TestWarmCacheRefuses: with an Authorizer, found through wrappers, a change of
// state or permission counts at once.
func TestWarmCacheRefuses(t *testing.T) {
	for name, wrap := range map[string]func(kms.Client) kms.Client{
		"direct":       func(c kms.Client) kms.Client { return c },
		"audited":      func(c kms.Client) kms.Client { return audit.NewClient(c, discardSink{}) },
		"cached twice": func(c kms.Client) kms.Client { return kms.NewCache(c, nil) },
		"wrapped":      func(c kms.Client) kms.Client { return wrapper{c} },
	} {
		t.Run(name, func(t *testing.T) {
			fake := kmstest.NewFake("key")
			fake.SetAlias("alias", "key")
			cache := kms.NewCache(wrap(kmstest.Authorizing{Fake: fake}), nil)
			ctx := as(t, alice)
			k, err := cache.GenerateDataKey(ctx, "key", photo)
			require.NoError(t, err)
			var ids = []string{"key", "alias"}
			use := func() (errs []error) {
				for _, id := range ids {
					_, err := cache.GenerateDataKey(ctx, id, photo)
					errs = append(errs, err)
					_, err = cache.Decrypt(ctx, id, k.Ciphertext, photo)
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
				require.Empty(t, cache.Plaintexts(), "entries after they were refused")
				change[1]()
				warm()
			}
		})
	}
}

type discardSink struct{}

func (discardSink) Write(context.Context, audit.Record) error { return nil }

// wrapper forwards no Authorize, but says what it wraps.
type wrapper struct{ kms.Client }

func (w wrapper) Unwrap() kms.Client { return w.Client }

// TestMovedAlias: a write by an alias whose old key was disabled goes to the new one.
func TestMovedAlias(t *testing.T) {
	fake := kmstest.NewFake("old", "new")
	fake.SetAlias("alias", "old")
	cache := kms.NewCache(kmstest.Authorizing{Fake: fake}, nil)
	_, err := cache.GenerateDataKey(as(t, alice), "alias", photo)
	require.NoError(t, err)
	fake.SetAlias("alias", "new")
	fake.Disable("old")
	k, err := cache.GenerateDataKey(as(t, alice), "alias", photo)
	require.NoError(t, err)
	require.Equal(t, kmstest.ARN("new"), k.KeyID)
}

// TestAuthorizerDuringChange: an entry that is dropped while the Authorizer
// thinks is not handed out.
func TestAuthorizerDuringChange(t *testing.T) {
	fake := kmstest.NewFake("key")
	cache := kms.NewCache(kmstest.Authorizing{Fake: fake}, nil)
	first, err := cache.GenerateDataKey(as(t, alice), "key", photo)
	require.NoError(t, err)
	once := true
	fake.Hook(func(context.Context, kmstest.Call) error {
		if once {
			once = false
			cache.InvalidateAll()
		}
		return nil
	})
	second, err := cache.GenerateDataKey(as(t, alice), "key", photo)
	require.NoError(t, err)
	require.NotEqual(t, first.Plaintext(), second.Plaintext())
	require.False(t, second.IsZero())

	// The end of ctx while it thinks is no refusal.
	ctx, cancel := context.WithCancel(as(t, alice))
	fake.Hook(func(ctx context.Context, _ kmstest.Call) error { cancel(); <-ctx.Done(); return ctx.Err() })
	_, err = cache.GenerateDataKey(ctx, "key", photo)
	require.ErrorIs(t, err, context.Canceled)
	require.Len(t, cache.Plaintexts(), 1)
	// Nor is its outage, which fails closed.
	fake.Hook(func(context.Context, kmstest.Call) error { return kms.ErrUnavailable })
	_, err = cache.GenerateDataKey(as(t, alice), "key", photo)
	require.ErrorIs(t, err, kms.ErrUnavailable)
	fake.Recover()
	fake.Forget()
	third, err := cache.GenerateDataKey(as(t, alice), "key", photo)
	require.NoError(t, err)
	require.Equal(t, second.Plaintext(), third.Plaintext())
	require.Zero(t, fake.Count())
}

// TestOutage: what is answered while the service is down, by policy.
func TestOutage(t *testing.T) {
	const maxAge = time.Hour
	for _, policy := range []kms.OutagePolicy{{}, kms.ServeReads(maxAge), kms.ServeReads(-1)} {
		serves := policy == kms.ServeReads(maxAge)
		for _, authorizing := range []bool{false, true} {
			t.Run(fmt.Sprintf("serves %v, asks %v", serves, authorizing), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					fake := kmstest.NewFake("key")
					var client kms.Client = fake
					if authorizing {
						client = kmstest.Authorizing{Fake: fake}
					}
					cache := kms.NewCache(client, &kms.CacheOptions{Outage: policy})
					var r kms.Report
					ctx := kms.WithReport(as(t, alice), &r)
					read := func(k *kms.DataKey) error {
						p, err := cache.Decrypt(ctx, "key", k.Ciphertext, photo)
						if err == nil && !bytes.Equal(p, k.Plaintext()) {
							t.Error("another plaintext")
						}
						return err
					}
					write := func() (*kms.DataKey, error) { return cache.GenerateDataKey(ctx, "key", photo) }
					k, err := write()
					require.NoError(t, err)
					require.NoError(t, read(k))
					unread, err := fake.GenerateDataKey(ctx, "key", photo)
					require.NoError(t, err)

					fake.Fail(kms.ErrUnavailable, -1)
					require.NoError(t, read(k), "within the limits")
					require.Equal(t, kms.Report{KeyID: kmstest.ARN("key"), KeyVersion: "1", Cached: true}, r)
					require.ErrorIs(t, read(unread), kms.ErrUnavailable)
					time.Sleep(kms.DefaultMaxAge)
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

					time.Sleep(maxAge - kms.DefaultMaxAge)
					require.NoError(t, read(k), "at the age that the policy allows")
					_, err = cache.Decrypt(as(t, bob), "key", k.Ciphertext, photo)
					require.ErrorIs(t, err, kms.ErrUnavailable, "another principal")
					// Flapping: each success is good for as long again.
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

// TestOutageAfterRefusal: what the client refused is not served later, and only
// unavailability is an outage.
// TestOutageShorterThanMaxAge: the policy's age bounds what is served without
// permission also when that is young enough to be served with it.
func TestOutageShorterThanMaxAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := kmstest.NewFake("key")
		cache := kms.NewCache(kmstest.Authorizing{Fake: fake}, &kms.CacheOptions{MaxAge: time.Hour, Outage: kms.ServeReads(time.Minute)})
		k, err := cache.GenerateDataKey(as(t, alice), "key", photo)
		require.NoError(t, err)
		read := func() error { _, err := cache.Decrypt(as(t, alice), "key", k.Ciphertext, photo); return err }
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

func TestOutageAfterRefusal(t *testing.T) {
	for _, kind := range []error{
		kms.ErrDenied, kms.ErrDisabled, kms.ErrPendingDeletion, kms.ErrNotFound, kms.ErrCiphertext, kms.ErrInvalid, errors.New("other"),
	} {
		synctest.Test(t, func(t *testing.T) {
			fake := kmstest.NewFake("key")
			cache := kms.NewCache(fake, &kms.CacheOptions{Outage: kms.ServeReads(time.Hour), MaxUses: 2})
			k, err := fake.GenerateDataKey(as(t, alice), "key", photo)
			require.NoError(t, err)
			read := func() error {
				_, err := cache.Decrypt(as(t, alice), "key", k.Ciphertext, photo)
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
			_, err = cache.Decrypt(ctx, "key", k.Ciphertext, photo)
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

// TestSlowService: the end of ctx ends a call at once, the first caller's and
// that of those who wait.
func TestSlowService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := kmstest.NewFake("key")
		cache := kms.NewCache(fake, nil)
		audited := audit.NewClient(cache, discardSink{})
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

// TestGarbage: an answer that is none is an error of its own, and not kept.
func TestGarbage(t *testing.T) {
	fake := kmstest.NewFake("key", "other")
	cache := kms.NewCache(fake, nil)
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
		k, err := cache.GenerateDataKey(ctx, "key", photo)
		require.ErrorIs(t, err, kms.ErrUnavailable)
		require.Nil(t, k)
	}
	for _, answer := range [][]byte{nil, {}, make([]byte, 31), bytes.Repeat([]byte{7}, 33), make([]byte, 32), bytes.Repeat([]byte{7}, 64)} {
		fake.AnswerPlaintext(func([]byte) []byte { return answer })
		p, err := cache.Decrypt(ctx, "key", good.Ciphertext, photo)
		require.ErrorIs(t, err, kms.ErrCiphertext)
		require.Nil(t, p)
		require.Equal(t, string(make([]byte, len(answer))), string(answer), "what was refused is cleared")
	}
	require.Empty(t, cache.Plaintexts())
	_, err = kms.NewDataKey("key", make([]byte, 31), nil)
	require.ErrorIs(t, err, kms.ErrInvalid)

	// Another key's data key goes by its own name, and opens by no other.
	fake.Recover()
	other, err := fake.GenerateDataKey(ctx, "other", photo)
	require.NoError(t, err)
	wrong, err := kms.NewDataKey("key", other.Plaintext(), other.Ciphertext)
	require.NoError(t, err)
	fake.AnswerKey(func(*kms.DataKey) *kms.DataKey { return other })
	k, err := cache.GenerateDataKey(ctx, "key", photo)
	require.NoError(t, err)
	require.Equal(t, kmstest.ARN("other"), k.KeyID)
	cache.Invalidate("other")
	require.Empty(t, cache.Plaintexts())
	fake.AnswerKey(func(*kms.DataKey) *kms.DataKey { return wrong })
	k, err = cache.GenerateDataKey(ctx, "key", photo)
	require.NoError(t, err) // a lie that only opening can tell
	_, err = cache.Decrypt(ctx, k.KeyID, k.Ciphertext, photo)
	require.ErrorIs(t, err, kms.ErrCiphertext)
}

// TestCachePrintsNoKey: fmt follows a pointer further than it says, for a verb that
// is none of pointers.
func TestCachePrintsNoKey(t *testing.T) {
	cache := kms.NewCache(kmstest.NewFake("key"), nil)
	k, err := cache.GenerateDataKey(as(t, alice), "key", photo)
	require.NoError(t, err)
	_, err = cache.Decrypt(as(t, alice), "key", k.Ciphertext, photo)
	require.NoError(t, err)
	require.Len(t, cache.Plaintexts(), 2)
	audited := audit.NewClient(cache, discardSink{})
	numbers := strings.Trim(fmt.Sprint(k.Plaintext()), "[]")
	for name, v := range map[string]any{
		"cache": cache, "audited": audited, "data key": k, "its value": *k,
		"within": struct{ c *kms.Cache }{cache}, "as a client": struct{ c kms.Client }{cache}, "key within": struct{ k *kms.DataKey }{k},
	} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t", "%c", "%U", "%e", "%b", "%o", "%p"} {
			text := fmt.Sprintf(verb, v)
			for _, form := range []string{numbers, string(k.Plaintext()), fmt.Sprintf("%x", k.Plaintext()), fmt.Sprintf("%X", k.Plaintext())} {
				require.NotContains(t, text, form, "%s as %s", name, verb)
			}
		}
	}
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

// TestCacheOfASilentClient: a result is of the key that was asked for if the client
// does not say which it is of.
func TestCacheOfASilentClient(t *testing.T) {
	fake := kmstest.NewFake("key")
	cache := kms.NewCache(silent{fake}, nil)
	k, err := cache.GenerateDataKey(as(t, alice), "key", photo)
	require.NoError(t, err)
	for i := range 2 {
		var r kms.Report
		_, err = cache.Decrypt(kms.WithReport(as(t, alice), &r), "key", k.Ciphertext, photo)
		require.NoError(t, err)
		require.Equal(t, kms.Report{KeyID: "key", Cached: i == 1}, r)
	}
	require.Equal(t, 1, fake.Count(kms.OpDecrypt))
}

// TestCacheZeroesWhatWasWaitedFor: those who wait for a result hold it no longer than
// they take it, whether they do or give up.
func TestCacheZeroesWhatWasWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := kmstest.NewFake("key")
		fake.SetLatency(time.Second)
		cache := kms.NewCache(fake, nil)
		var wg sync.WaitGroup
		for i, timeout := range []time.Duration{time.Minute, time.Minute, 100 * time.Millisecond} {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(as(t, alice), timeout)
				defer cancel()
				if _, err := cache.GenerateDataKey(ctx, "key", photo); (err == nil) != (timeout == time.Minute) {
					t.Errorf("caller %d: %v", i, err)
				}
			})
			synctest.Wait()
		}
		wg.Wait()
		require.Equal(t, 1, fake.Count())
		own := cache.Plaintexts()
		require.Len(t, own, 1)
		require.NotEqual(t, make([]byte, 32), own[0])
		cache.InvalidateAll()
		require.Equal(t, make([]byte, 32), own[0])
	})
}

// TestCacheZeroesWhatIsReplaced: a result that was kept for an outage goes when
// the client answers anew.
func TestCacheZeroesWhatIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := kmstest.NewFake("key")
		cache := kms.NewCache(fake, &kms.CacheOptions{Outage: kms.ServeReads(time.Hour)})
		k, err := fake.GenerateDataKey(as(t, alice), "key", photo)
		require.NoError(t, err)
		var own [][]byte
		for range 2 {
			_, err = cache.Decrypt(as(t, alice), "key", k.Ciphertext, photo)
			require.NoError(t, err)
			own = append(own, cache.Plaintexts()...)
			time.Sleep(kms.DefaultMaxAge)
		}
		require.Len(t, own, 2)
		require.Equal(t, make([]byte, 32), own[0])
		require.Equal(t, k.Plaintext(), own[1])
	})
}

// TestCacheKeepsWhatIsFresh: results past their limits go together, now and then,
// and the others stay.
func TestCacheKeepsWhatIsFresh(t *testing.T) {
	for name, outage := range map[string]kms.OutagePolicy{"closed": {}, "reads": kms.ServeReads(2 * kms.DefaultMaxAge)} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fake := kmstest.NewFake("key")
				cache := kms.NewCache(fake, &kms.CacheOptions{Outage: outage})
				ask := func(bucket string) {
					_, err := cache.GenerateDataKey(as(t, alice), "key", kms.Context{"bucket": bucket})
					require.NoError(t, err)
				}
				for i := range 20 {
					ask(fmt.Sprint(i))
					time.Sleep(kms.DefaultMaxAge / 4)
				}
				require.LessOrEqual(t, len(cache.Plaintexts()), 5, "of the last five minutes, and since they were looked at last")
				fake.Forget()
				for _, i := range []int{17, 18, 19} {
					ask(fmt.Sprint(i))
				}
				require.Zero(t, fake.Count())
			})
		})
	}
}

// keeping keeps what a client returned, to see whether it is cleared.
type keeping struct {
	kms.Client
	key       *kms.DataKey
	plaintext []byte
}

func (c *keeping) GenerateDataKey(ctx context.Context, keyID string, ec kms.Context) (k *kms.DataKey, err error) {
	k, err = c.Client.GenerateDataKey(ctx, keyID, ec)
	c.key = k
	return k, err
}

func (c *keeping) Decrypt(ctx context.Context, keyID string, ciphertext []byte, ec kms.Context) (p []byte, err error) {
	p, err = c.Client.Decrypt(ctx, keyID, ciphertext, ec)
	c.plaintext = p
	return p, err
}

// TestCacheClears: what the client returned is cleared once it is copied, and what
// is past its limits once the client was asked in vain.
func TestCacheClears(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := kmstest.NewFake("key")
		inner := &keeping{Client: fake}
		cache := kms.NewCache(inner, nil)
		k, err := cache.GenerateDataKey(as(t, alice), "key", photo)
		require.NoError(t, err)
		require.True(t, inner.key.IsZero())
		_, err = cache.Decrypt(as(t, alice), "key", k.Ciphertext, photo)
		require.NoError(t, err)
		require.Equal(t, make([]byte, 32), inner.plaintext)
		own := cache.Plaintexts()
		time.Sleep(kms.DefaultMaxAge)
		fake.Fail(kms.ErrUnavailable, -1)
		_, err = cache.GenerateDataKey(as(t, alice), "key", photo)
		require.ErrorIs(t, err, kms.ErrUnavailable)
		_, err = cache.Decrypt(as(t, alice), "key", k.Ciphertext, photo)
		require.ErrorIs(t, err, kms.ErrUnavailable)
		for _, p := range own {
			require.Equal(t, make([]byte, 32), p)
		}
	})
}

// TestFlapping: every second call fails; nobody gets a key that does not open.
func TestFlapping(t *testing.T) {
	fake := kmstest.NewFake("key")
	var n atomic.Int64
	fake.Hook(func(context.Context, kmstest.Call) error {
		if n.Add(1)%2 == 0 {
			return fmt.Errorf("%w: flapping", kms.ErrUnavailable)
		}
		return nil
	})
	cache := kms.NewCache(fake, &kms.CacheOptions{MaxUses: 3})
	succeeded := 0
	for range 300 {
		k, err := cache.GenerateDataKey(as(t, alice), "key", photo)
		if err != nil {
			require.ErrorIs(t, err, kms.ErrUnavailable)
			continue
		}
		succeeded++
		require.False(t, k.IsZero())
	}
	require.Greater(t, succeeded, 200)
}

// TestClocks: an entry does not outlive its limit when a clock is moved, or when
// the machine slept.
func TestClocks(t *testing.T) {
	fake := kmstest.NewFake("key")
	cache := kms.NewCache(fake, nil)
	start := time.Now()
	now := start
	cache.SetNow(func() time.Time { return now })
	calls := func() int {
		fake.Forget()
		_, err := cache.GenerateDataKey(as(t, alice), "key", photo)
		require.NoError(t, err)
		return fake.Count()
	}
	require.Equal(t, 1, calls())
	require.Equal(t, 0, calls())
	// The wall clock forward, as after sleep: Round strips the monotonic reading.
	now = start.Round(0).Add(kms.DefaultMaxAge)
	require.Equal(t, 1, calls())
	// All clocks backward: no age that means anything.
	now = start.Round(0).Add(-time.Hour)
	require.Equal(t, 1, calls())
	require.Equal(t, 0, calls())
	now = now.Add(kms.DefaultMaxAge)
	require.Equal(t, 1, calls())
}

// TestManyGoroutines is for the race detector.
func TestManyGoroutines(t *testing.T) {
	fake := kmstest.NewFake("a", "b")
	fake.SetAlias("alias", "a")
	cache := kms.NewCache(kmstest.Authorizing{Fake: fake}, &kms.CacheOptions{MaxUses: 20, MaxEntries: 4, MaxAge: 3 * time.Millisecond, Outage: kms.ServeReads(time.Second)})
	var wg sync.WaitGroup
	stop := time.Now().Add(300 * time.Millisecond)
	for g := range 8 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(g)))
			ctx := as(t, []kms.Principal{alice, bob}[g%2])
			for time.Now().Before(stop) {
				ec := kms.Context{"bucket": fmt.Sprint(r.IntN(3))}
				k, err := cache.GenerateDataKey(ctx, []string{"a", "b", "alias"}[r.IntN(3)], ec)
				if err != nil {
					if !errors.Is(err, kms.ErrUnavailable) && !errors.Is(err, kms.ErrDenied) {
						t.Error(err)
					}
					continue
				}
				p, err := cache.Decrypt(ctx, k.KeyID, k.Ciphertext, ec)
				if err == nil && (!bytes.Equal(p, k.Plaintext()) || k.IsZero()) {
					t.Error("another plaintext, or zeros")
				}
				clear(p)
				k.Clear()
				switch r.IntN(100) {
				case 0:
					cache.Invalidate("a")
				case 1:
					cache.InvalidateAll()
				case 2:
					fake.Fail(kms.ErrUnavailable, 2)
				case 3:
					fake.Deny(bob, kms.OpDecrypt)
				case 4:
					fake.Allow(bob, kms.OpDecrypt)
				case 5:
					short, cancel := context.WithTimeout(ctx, time.Microsecond)
					_, _ = cache.GenerateDataKey(short, "b", ec)
					cancel()
				}
			}
		})
	}
	wg.Wait()
	require.NoError(t, cache.Close())
	require.Empty(t, cache.Plaintexts())
}
