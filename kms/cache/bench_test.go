package cache_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/cache"
	"github.com/blobseal/blobseal/kms/kmstest"
)

// BenchmarkCache measures a cached use of a key.
func BenchmarkCache(b *testing.B) {
	for name, client := range map[string]func(*kmstest.Fake) kms.Client{
		"blind":  func(f *kmstest.Fake) kms.Client { return f },
		"asking": func(f *kmstest.Fake) kms.Client { return kmstest.Authorizing{Fake: f} },
	} {
		cached := cache.New(client(kmstest.NewFake("key")), &cache.Options{MaxAge: time.Hour, MaxUses: 1 << 60})
		ctx := as(b, alice)
		ec := kms.Context{"blobseal:object": "photos", "department": "x"}
		k, err := cached.GenerateDataKey(ctx, "key", ec)
		require.NoError(b, err)
		b.Run(name+"/GenerateDataKey", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := cached.GenerateDataKey(ctx, "key", ec); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+"/Decrypt", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := cached.Decrypt(ctx, "key", k.Ciphertext, ec); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkBucketKey counts the calls to the key service for 100,000 writes by two
// principals. calls/1000-writes should be at most 0.1.
func BenchmarkBucketKey(b *testing.B) {
	var calls, writes int
	for b.Loop() {
		fake := kmstest.NewFake("key")
		cached := cache.New(fake, nil)
		ctxs := []context.Context{as(b, alice), as(b, bob)}
		for i := range 100_000 {
			k, err := cached.GenerateDataKey(ctxs[i%2], "key", photo)
			if err != nil || k.Plaintext() == nil {
				b.Fatal(k, err)
			}
		}
		writes += 100_000
		calls += fake.Count()
	}
	b.ReportMetric(float64(calls)/float64(writes)*1000, "calls/1000-writes")
}
