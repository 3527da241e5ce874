package cache_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/audit"
	"github.com/blobseal/blobseal/kms/cache"
	"github.com/blobseal/blobseal/kms/kmstest"
)

// Defaults of Options, which its documentation states.
const (
	defaultMaxAge     = 5 * time.Minute
	defaultMaxEntries = 1000
)

var (
	alice = kms.Principal{ID: "alice", Type: "User"}
	bob   = kms.Principal{ID: "bob", Type: "User"}
	photo = kms.Context{"blobseal:object": "photos"}
)

func as(t testing.TB, p kms.Principal) context.Context { return kms.WithPrincipal(t.Context(), p) }

// fakeSubject returns a fake behind wrap, for the suite.
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

// TestCacheIsAClient: a cache that asks an Authorizer keeps the whole contract. One that
// cannot ask keeps the rest.
func TestCacheIsAClient(t *testing.T) {
	t.Run("asking", func(t *testing.T) {
		kmstest.Run(t, func(t *testing.T) kmstest.Subject {
			s := fakeSubject(kmstest.NewFake(), func(c kms.Client) kms.Client { return cache.New(c, nil) }, true)
			s.ReusesDataKeys = true
			s.Break = nil // a cache keeps answering for a while
			return s
		})
	})
	t.Run("blind", func(t *testing.T) {
		kmstest.Run(t, func(t *testing.T) kmstest.Subject {
			s := fakeSubject(kmstest.NewFake(), func(c kms.Client) kms.Client { return cache.New(c, nil) }, false)
			s.ReusesDataKeys = true
			s.Break, s.Disable, s.ScheduleDeletion, s.Deny = nil, nil, nil, nil // the cache notices late
			return s
		})
	})
	t.Run("off", func(t *testing.T) {
		kmstest.Run(t, func(t *testing.T) kmstest.Subject {
			return fakeSubject(kmstest.NewFake(), func(c kms.Client) kms.Client {
				return cache.New(c, &cache.Options{MaxAge: -1})
			}, false)
		})
	})
}

// TestBucketKey: 100,000 writes by two principals make two calls per MaxAge.
func TestBucketKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := kmstest.NewFake("key")
		cached := cache.New(fake, nil)
		ctxs := []context.Context{as(t, alice), as(t, bob)}
		keys := make(map[string]bool)
		writes := func() {
			for i := range 100_000 {
				k, err := cached.GenerateDataKey(ctxs[i%2], "key", photo)
				require.NoError(t, err)
				require.NotNil(t, k.Plaintext(), "data key of zeros after %d writes", i)
				keys[string(k.Plaintext())] = true
				k.Clear() // the caller's own
			}
		}
		writes()
		require.Equal(t, 2, fake.Count())
		require.Len(t, keys, 2)
		require.Equal(t, alice, fake.Calls()[0].Principal)
		require.Equal(t, bob, fake.Calls()[1].Principal)
		time.Sleep(defaultMaxAge - time.Nanosecond)
		writes()
		require.Equal(t, 2, fake.Count())
		time.Sleep(time.Nanosecond)
		writes()
		require.Equal(t, 4, fake.Count())
		require.Len(t, keys, 4)
	})
}

// TestCacheSeparates: different questions never share a result.
func TestCacheSeparates(t *testing.T) {
	fake := kmstest.NewFake("key", "key2", "k", "")
	fake.SetAlias("alias", "key")
	cached := cache.New(fake, nil)
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
			k, err := cached.GenerateDataKey(as(t, q.p), q.keyID, q.ec)
			require.NoError(t, err)
			if other, ok := seen[string(k.Plaintext())]; ok {
				require.Equal(t, q, other, "one data key for both")
			}
			seen[string(k.Plaintext())] = q
		}
	}
	require.Len(t, seen, 15)
	require.Equal(t, 15, fake.Count())

	// Order does not matter, and nil equals empty.
	fake.Forget()
	for range 20 {
		ec := kms.Context{}
		for _, i := range rand.Perm(20) {
			ec[fmt.Sprint(i)] = "x"
		}
		_, err := cached.GenerateDataKey(as(t, alice), "key", ec)
		require.NoError(t, err)
		_, err = cached.GenerateDataKey(as(t, alice), "key", kms.Context{})
		require.NoError(t, err)
	}
	require.Equal(t, 1, fake.Count())
}

// TestCacheDecrypt: reads are cached as writes are, and permission to write does not
// permit reading.
func TestCacheDecrypt(t *testing.T) {
	fake := kmstest.NewFake("key")
	fake.Deny(alice, kms.OpDecrypt)
	cached := cache.New(fake, nil)
	k, err := cached.GenerateDataKey(as(t, alice), "key", photo)
	require.NoError(t, err)
	_, err = cached.Decrypt(as(t, alice), "key", k.Ciphertext, photo)
	require.ErrorIs(t, err, kms.ErrDenied)
	fake.Forget()
	for range 10 {
		plaintext, err := cached.Decrypt(as(t, bob), "key", k.Ciphertext, photo)
		require.NoError(t, err)
		require.Equal(t, k.Plaintext(), plaintext)
		clear(plaintext)
	}
	require.Equal(t, 1, fake.Count())
	_, err = cached.Decrypt(as(t, alice), "key", k.Ciphertext, photo)
	require.ErrorIs(t, err, kms.ErrDenied, "after another principal's read")
	_, err = cached.Decrypt(as(t, bob), "key", k.Ciphertext, kms.Context{"blobseal:object": "Photos"})
	require.ErrorIs(t, err, kms.ErrCiphertext, "of another context, though cached")
}

func TestCacheReports(t *testing.T) {
	for _, c := range []func(f *kmstest.Fake) kms.Client{
		func(f *kmstest.Fake) kms.Client { return f },
		func(f *kmstest.Fake) kms.Client { return kmstest.Authorizing{Fake: f} },
	} {
		fake := kmstest.NewFake("key")
		fake.SetAlias("alias", "key")
		cached := cache.New(c(fake), nil)
		var r kms.Report
		ctx := kms.WithReport(as(t, alice), &r)
		k, err := cached.GenerateDataKey(ctx, "alias", photo)
		require.NoError(t, err)
		require.Equal(t, kms.Report{RequestID: "fake-1", KeyID: kmstest.ARN("key"), KeyVersion: "1"}, r)
		_, err = cached.GenerateDataKey(ctx, "alias", photo)
		require.NoError(t, err)
		require.Equal(t, kms.Report{KeyID: kmstest.ARN("key"), KeyVersion: "1", Cached: true}, r)
		_, err = cached.Decrypt(ctx, "alias", k.Ciphertext, photo)
		require.NoError(t, err)
		require.Equal(t, kms.Report{RequestID: "fake-2", KeyID: kmstest.ARN("key"), KeyVersion: "1"}, r)
		_, err = cached.Decrypt(ctx, "alias", k.Ciphertext, photo)
		require.NoError(t, err)
		require.Equal(t, kms.Report{KeyID: kmstest.ARN("key"), KeyVersion: "1", Cached: true}, r)
		_, err = cached.Decrypt(ctx, "none", k.Ciphertext, photo)
		require.ErrorIs(t, err, kms.ErrNotFound)
		require.False(t, r.Cached)
	}
}

// TestCacheOff: any one limit below zero turns the cache off.
func TestCacheOff(t *testing.T) {
	for _, opts := range []cache.Options{{MaxAge: -1}, {MaxUses: -1}, {MaxEntries: -1}} {
		fake := kmstest.NewFake("key")
		cached := cache.New(fake, &opts)
		first, err := cached.GenerateDataKey(as(t, alice), "key", photo)
		require.NoError(t, err)
		second, err := cached.GenerateDataKey(as(t, alice), "key", photo)
		require.NoError(t, err)
		require.NotEqual(t, first.Plaintext(), second.Plaintext())
		for range 2 {
			_, err = cached.Decrypt(as(t, alice), "key", first.Ciphertext, photo)
			require.NoError(t, err)
		}
		require.Equal(t, 4, fake.Count(), "%+v", opts)
		require.Empty(t, cached.Plaintexts())
	}
}

// TestCachePrintsNoKey: no verb of fmt prints a key, although some follow pointers.
func TestCachePrintsNoKey(t *testing.T) {
	cached := cache.New(kmstest.NewFake("key"), nil)
	k, err := cached.GenerateDataKey(as(t, alice), "key", photo)
	require.NoError(t, err)
	_, err = cached.Decrypt(as(t, alice), "key", k.Ciphertext, photo)
	require.NoError(t, err)
	require.Len(t, cached.Plaintexts(), 2)
	audited := audit.NewClient(cached, discardSink{})
	numbers := strings.Trim(fmt.Sprint(k.Plaintext()), "[]")
	for name, v := range map[string]any{
		"cache": cached, "audited": audited, "data key": k, "its value": *k,
		"within": struct{ c *cache.Client }{cached}, "as a client": struct{ c kms.Client }{cached}, "key within": struct{ k *kms.DataKey }{k},
	} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t", "%c", "%U", "%e", "%b", "%o", "%p"} {
			text := fmt.Sprintf(verb, v)
			for _, form := range []string{numbers, string(k.Plaintext()), fmt.Sprintf("%x", k.Plaintext()), fmt.Sprintf("%X", k.Plaintext())} {
				require.NotContains(t, text, form, "%s as %s", name, verb)
			}
		}
	}
}

func TestCacheStats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := kmstest.NewFake("key")
		cached := cache.New(fake, &cache.Options{StaleReads: time.Hour})
		k, err := fake.GenerateDataKey(as(t, alice), "key", photo)
		require.NoError(t, err)
		read := func() error {
			_, err := cached.Decrypt(as(t, alice), "key", k.Ciphertext, photo)
			return err
		}
		require.Zero(t, cached.Stats())
		for range 3 {
			require.NoError(t, read())
		}
		require.Equal(t, cache.Stats{Hits: 2, Misses: 1, Entries: 1}, cached.Stats())
		time.Sleep(defaultMaxAge)
		fake.Fail(kms.ErrUnavailable, 1)
		require.NoError(t, read())
		require.Equal(t, cache.Stats{Hits: 3, Stale: 1, Misses: 2, Entries: 1}, cached.Stats())
		cached.Invalidate()
		fake.Fail(kms.ErrDenied, 1)
		require.ErrorIs(t, read(), kms.ErrDenied)
		require.Equal(t, cache.Stats{Hits: 3, Stale: 1, Misses: 3}, cached.Stats())
	})
}

// TestNilClient: with a nil Client, the first call fails and does not panic.
func TestNilClient(t *testing.T) {
	var typed *cache.Client
	for _, client := range []kms.Client{nil, typed} {
		cached := cache.New(client, nil)
		_, err := cached.GenerateDataKey(t.Context(), "key", nil)
		require.ErrorIs(t, err, kms.ErrInvalid)
		_, err = cached.Decrypt(t.Context(), "key", nil, nil)
		require.ErrorIs(t, err, kms.ErrInvalid)
		cached.Invalidate("key")
	}
}
