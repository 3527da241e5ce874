package cache_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/cache"
	"github.com/blobseal/blobseal/kms/kmstest"
)

// TestCacheUseLimitOfMany: the limit also holds for concurrent callers, and for those
// who wait for one call.
func TestCacheUseLimitOfMany(t *testing.T) {
	for _, client := range []kms.Client{kmstest.NewFake("key"), kmstest.Authorizing{Fake: kmstest.NewFake("key")}} {
		cached := cache.New(client, &cache.Options{MaxUses: 3})
		var mu sync.Mutex
		uses := make(map[string]int)
		var wg sync.WaitGroup
		for range 32 {
			wg.Go(func() {
				for range 50 {
					k, err := cached.GenerateDataKey(as(t, alice), "key", photo)
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
	cached := cache.New(fake, &cache.Options{MaxUses: 10})
	ctx := as(t, alice)
	uses := make(map[string]int)
	var ciphertext []byte
	for range 100 {
		k, err := cached.GenerateDataKey(ctx, "key", photo)
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
		_, err := cached.Decrypt(ctx, "key", ciphertext, photo)
		require.NoError(t, err)
	}
	require.Equal(t, 10, fake.Count())

	// The limit holds for callers who waited for one call.
	uses, mu := make(map[string]int), sync.Mutex{}
	fake.SetLatency(time.Millisecond)
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			k, err := cached.GenerateDataKey(ctx, "key", nil)
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
	cached := cache.New(fake, &cache.Options{MaxEntries: 3})
	ctx := as(t, alice)
	ask := func(name string) {
		t.Helper()
		_, err := cached.GenerateDataKey(ctx, "key", kms.Context{"bucket": name})
		require.NoError(t, err)
	}
	ask("a")
	first := cached.Plaintexts()
	ask("b")
	ask("c")
	ask("a") // now b is the least recently used
	require.Equal(t, 3, fake.Count())
	ask("d")
	require.Len(t, cached.Plaintexts(), 3)
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
		_, err := cached.GenerateDataKey(ctx, "key", kms.Context{"long": string(make([]byte, 20<<10))})
		require.NoError(t, err)
	}
	require.Equal(t, 2, fake.Count(), "an entry too long to keep")
	require.Len(t, cached.Plaintexts(), 3)
}

// TestCacheZeroes: dropping an entry overwrites the cache's copy, and no caller's.
func TestCacheZeroes(t *testing.T) {
	zero := make([]byte, 32)
	for name, drop := range map[string]func(c *cache.Client, f *kmstest.Fake){
		"Invalidate":    func(c *cache.Client, _ *kmstest.Fake) { c.Invalidate("key") },
		"InvalidateAll": func(c *cache.Client, _ *kmstest.Fake) { c.Invalidate() },
		"time": func(c *cache.Client, _ *kmstest.Fake) {
			time.Sleep(defaultMaxAge)
			_, _ = c.GenerateDataKey(t.Context(), "key", kms.Context{"another": "question"})
		},
		"time, and the service is down": func(c *cache.Client, f *kmstest.Fake) {
			time.Sleep(defaultMaxAge)
			f.Fail(kms.ErrUnavailable, -1)
			_, _ = c.GenerateDataKey(as(t, alice), "alias", photo)
			_, _ = c.Decrypt(as(t, alice), "alias", nil, photo)
			c.Invalidate()
		},
		"refusal": func(c *cache.Client, f *kmstest.Fake) {
			f.Disable("key")
			_, err := c.GenerateDataKey(as(t, alice), "alias", photo)
			require.ErrorIs(t, err, kms.ErrDisabled)
			c.Invalidate()
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fake := kmstest.NewFake("key")
				fake.SetAlias("alias", "key")
				cached := cache.New(kmstest.Authorizing{Fake: fake}, nil)
				k, err := cached.GenerateDataKey(as(t, alice), "alias", photo)
				require.NoError(t, err)
				plaintext, err := cached.Decrypt(as(t, alice), "alias", k.Ciphertext, photo)
				require.NoError(t, err)
				own := cached.Plaintexts()
				require.Len(t, own, 2)
				for _, p := range own {
					require.NotEqual(t, zero, p)
				}
				drop(cached, fake)
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
	cached := cache.New(fake, nil)
	ctx := as(t, alice)
	k, err := fake.GenerateDataKey(ctx, "key", photo)
	require.NoError(t, err)
	calls := func() int {
		fake.Forget()
		for _, id := range []string{"key", "alias"} {
			_, err := cached.GenerateDataKey(ctx, id, photo)
			require.NoError(t, err)
			_, err = cached.Decrypt(ctx, id, k.Ciphertext, photo)
			require.NoError(t, err)
		}
		_, err := cached.GenerateDataKey(ctx, "other", photo)
		require.NoError(t, err)
		return fake.Count()
	}
	require.Equal(t, 5, calls())
	require.Equal(t, 0, calls())
	cached.Invalidate("key") // also results that were asked for by alias
	require.Equal(t, 4, calls())
	cached.Invalidate("alias")
	require.Equal(t, 2, calls())
	cached.Invalidate("nothing")
	require.Equal(t, 0, calls())
	cached.Invalidate()
	require.Equal(t, 5, calls())
	cached.Invalidate()
	require.Empty(t, cached.Plaintexts())
}

// TestInvalidateDuringCall: the cache does not keep the result of a call that began
// before an invalidation, and gives it to no caller who came later.
func TestInvalidateDuringCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := kmstest.NewFake("key")
		fake.SetLatency(time.Second)
		cached := cache.New(fake, nil)
		var wg sync.WaitGroup
		keys := make([]*kms.DataKey, 3)
		ask := func(i int) {
			wg.Go(func() {
				k, err := cached.GenerateDataKey(as(t, alice), "key", photo)
				if err != nil {
					t.Error(err)
				}
				keys[i] = k
			})
		}
		ask(0)
		synctest.Wait()
		ask(1) // waits for the first, and asks again after the invalidation
		synctest.Wait()
		cached.Invalidate("unrelated")
		ask(2)
		wg.Wait()
		require.Equal(t, 2, fake.Count())
		require.Equal(t, keys[1].Plaintext(), keys[2].Plaintext())
		require.NotEqual(t, keys[0].Plaintext(), keys[2].Plaintext())
		require.NotNil(t, keys[1].Plaintext())
		fake.Forget()
		ask(0)
		synctest.Wait()
		cached.Invalidate()
		wg.Wait()
		require.Zero(t, fake.Count(), "answered before")
		ask(0)
		synctest.Wait()
		cached.Invalidate() // during the call
		wg.Wait()
		require.Equal(t, 1, fake.Count())
		require.Empty(t, cached.Plaintexts())
		ask(2)
		wg.Wait()
		k, err := cached.GenerateDataKey(as(t, alice), "key", photo)
		require.NoError(t, err)
		require.Equal(t, keys[2].Plaintext(), k.Plaintext())
	})
}

// TestCacheZeroesWhatWasWaitedFor: callers who waited for a result, or gave up, leave
// no copy behind.
func TestCacheZeroesWhatWasWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := kmstest.NewFake("key")
		fake.SetLatency(time.Second)
		cached := cache.New(fake, nil)
		var wg sync.WaitGroup
		for i, timeout := range []time.Duration{time.Minute, time.Minute, 100 * time.Millisecond} {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(as(t, alice), timeout)
				defer cancel()
				if _, err := cached.GenerateDataKey(ctx, "key", photo); (err == nil) != (timeout == time.Minute) {
					t.Errorf("caller %d: %v", i, err)
				}
			})
			synctest.Wait()
		}
		wg.Wait()
		require.Equal(t, 1, fake.Count())
		own := cached.Plaintexts()
		require.Len(t, own, 1)
		require.NotEqual(t, make([]byte, 32), own[0])
		cached.Invalidate()
		require.Equal(t, make([]byte, 32), own[0])
	})
}

// TestCacheZeroesWhatIsReplaced: a result kept for an outage is overwritten when the
// client answers again.
func TestCacheZeroesWhatIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := kmstest.NewFake("key")
		cached := cache.New(fake, &cache.Options{StaleReads: time.Hour})
		k, err := fake.GenerateDataKey(as(t, alice), "key", photo)
		require.NoError(t, err)
		var own [][]byte
		for range 2 {
			_, err = cached.Decrypt(as(t, alice), "key", k.Ciphertext, photo)
			require.NoError(t, err)
			own = append(own, cached.Plaintexts()...)
			time.Sleep(defaultMaxAge)
		}
		require.Len(t, own, 2)
		require.Equal(t, make([]byte, 32), own[0])
		require.Equal(t, k.Plaintext(), own[1])
	})
}

// TestCacheKeepsWhatIsFresh: the cache drops expired results now and then, and keeps
// the others.
func TestCacheKeepsWhatIsFresh(t *testing.T) {
	for name, staleReads := range map[string]time.Duration{"closed": 0, "reads": 2 * defaultMaxAge} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fake := kmstest.NewFake("key")
				cached := cache.New(fake, &cache.Options{StaleReads: staleReads})
				ask := func(bucket string) {
					_, err := cached.GenerateDataKey(as(t, alice), "key", kms.Context{"bucket": bucket})
					require.NoError(t, err)
				}
				for i := range 20 {
					ask(fmt.Sprint(i))
					time.Sleep(defaultMaxAge / 4)
				}
				require.LessOrEqual(t, len(cached.Plaintexts()), 5, "of the last five minutes, and since they were looked at last")
				fake.Forget()
				for _, i := range []int{17, 18, 19} {
					ask(fmt.Sprint(i))
				}
				require.Zero(t, fake.Count())
			})
		})
	}
}

// TestCacheClears: the cache overwrites what the client returned, and expired results
// when the client fails.
func TestCacheClears(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := kmstest.NewFake("key")
		var key *kms.DataKey
		var plaintext []byte
		fake.AnswerKey(func(k *kms.DataKey) *kms.DataKey { key = k; return k })
		fake.AnswerPlaintext(func(p []byte) []byte { plaintext = p; return p })
		cached := cache.New(fake, nil)
		k, err := cached.GenerateDataKey(as(t, alice), "key", photo)
		require.NoError(t, err)
		require.Nil(t, key.Plaintext())
		_, err = cached.Decrypt(as(t, alice), "key", k.Ciphertext, photo)
		require.NoError(t, err)
		require.Equal(t, make([]byte, 32), plaintext)
		own := cached.Plaintexts()
		time.Sleep(defaultMaxAge)
		fake.Fail(kms.ErrUnavailable, -1)
		_, err = cached.GenerateDataKey(as(t, alice), "key", photo)
		require.ErrorIs(t, err, kms.ErrUnavailable)
		_, err = cached.Decrypt(as(t, alice), "key", k.Ciphertext, photo)
		require.ErrorIs(t, err, kms.ErrUnavailable)
		for _, p := range own {
			require.Equal(t, make([]byte, 32), p)
		}
	})
}
