package sse_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/internal/testbed/fakeclock"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/cache"
	"github.com/blobseal/blobseal/kms/kmstest"
	"github.com/blobseal/blobseal/sse"
)

// TestBucketKeyDataKeys: 100,000 objects of two principals under a bucket key are
// two calls of the key service, and have 100,000 data keys, none of zeros. The
// data keys are those of the envelopes, opened by what SPEC.md says alone.
func TestBucketKeyDataKeys(t *testing.T) {
	fakeclock.Test(t, testBucketKeyDataKeys) // where no data key gets old meanwhile
}

func testBucketKeyDataKeys(t *testing.T) {
	writes := 100_000
	if testing.Short() {
		writes = 5_000
	}
	fake := kmstest.NewFake(kmsKey)
	k := newKMS(t, cache.New(fake, nil), kmsKey, &sse.KMSOptions{BucketKey: true})
	var ctxs []context.Context
	for _, who := range []string{"alice", "bob"} {
		ctxs = append(ctxs, kms.WithPrincipal(t.Context(), kms.Principal{ID: who}))
	}
	keks := map[string][]byte{} // by what wraps them
	deks := make(map[string]bool, writes)
	for i := range writes {
		name := fmt.Sprint(i)
		e, err := k.Encrypt(ctxs[i%2], sse.Object{Bucket: "b", Key: name})
		require.NoError(t, err)
		raw := marshal(t, e.Envelope())
		f := strangerFields{data: raw[14 : len(raw)-56]}
		keyID, wrapped, sealed, pairs := f.str16(), f.str16(), f.take(104), f.str16()
		if keks[wrapped] == nil {
			keks[wrapped], err = fake.Decrypt(t.Context(), keyID, []byte(wrapped), kms.Context{sse.ContextObject: "b"})
			require.NoError(t, err)
		}
		dek, result := strangerOpen(keks[wrapped], sealed, strangerBinding(2, keyID, wrapped, "b", name, pairs, raw[len(raw)-56:]))
		require.Equal(t, "valid", result)
		require.Len(t, dek, 32)
		require.NotEqual(t, make([]byte, 32), dek)
		deks[string(dek)] = true
	}
	require.Equal(t, 2, fake.Count(kms.OpGenerateDataKey))
	require.Len(t, keks, 2)
	require.Len(t, deks, writes)
}
