package sseotel_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/audit"
	"github.com/blobseal/blobseal/kms/cache"
	"github.com/blobseal/blobseal/kms/localkms"
	"github.com/blobseal/blobseal/sse"
)

// layers wrap a client.
var layers = map[string]func(b *bed, c kms.Client) kms.Client{
	"telemetry": func(b *bed, c kms.Client) kms.Client { return b.Client(c) },
	"audit":     func(_ *bed, c kms.Client) kms.Client { return audit.NewClient(c, new(trail)) },
	"cache":     func(_ *bed, c kms.Client) kms.Client { return cache.New(c, nil) },
}

// orders returns all sequences of distinct names, from the empty one on.
func orders(names []string) [][]string {
	all := [][]string{nil}
	for i, first := range names {
		rest := append(append([]string(nil), names[:i]...), names[i+1:]...)
		for _, tail := range orders(rest) {
			all = append(all, append([]string{first}, tail...))
		}
	}
	return all
}

// TestWrappersKeepRefusals: whatever the order of telemetry, audit and cache around a
// key service, a key that is disabled, and a principal whose permission is revoked, are
// refused at once, although the data keys are in the cache.
func TestWrappersKeepRefusals(t *testing.T) {
	sequences := orders([]string{"telemetry", "audit", "cache"})
	require.Len(t, sequences, 16)
	sequences = append(sequences, []string{"telemetry", "cache", "telemetry"}, []string{"cache", "telemetry", "audit", "telemetry"})
	for _, sequence := range sequences {
		t.Run(fmt.Sprint(sequence), func(t *testing.T) {
			b, service := newBed(t), newKeyService(t)
			client := kms.Client(service.Client)
			for _, name := range sequence { // from the inside out
				client = layers[name](b, client)
			}
			_, authorizes := kms.Find[kms.Authorizer](client)
			require.True(t, authorizes)
			mode, err := sse.NewKMS(client, service.key, nil)
			require.NoError(t, err)
			cipher := b.Cipher(mode)

			object := seal(t, cipher, []byte("meow"))
			for range 3 {
				plain, err := open(t.Context(), cipher, object)
				require.NoError(t, err)
				require.Equal(t, "meow", string(plain))
			}

			require.NoError(t, service.DisableKey(t.Context(), service.key))
			_, err = open(t.Context(), cipher, object)
			require.ErrorIs(t, err, kms.ErrDisabled)
			_, err = cipher.Encrypt(t.Context(), cat)
			require.ErrorIs(t, err, kms.ErrDisabled)

			require.NoError(t, service.EnableKey(t.Context(), service.key))
			_, err = open(t.Context(), cipher, object)
			require.NoError(t, err)

			require.NoError(t, service.PutKeyPolicy(t.Context(), service.key,
				`permit (principal, action in [Action::"View", Action::"Administer"], resource);`, nil))
			_, err = open(t.Context(), cipher, object)
			require.ErrorIs(t, err, kms.ErrDenied)
			_, err = cipher.Encrypt(t.Context(), cat)
			require.ErrorIs(t, err, kms.ErrDenied)
		})
	}
}

// embedding is how wrappers are often written.
type embedding struct{ kms.Client }

// TestEmbeddingLosesRefusals shows what the wrappers of this package avoid.
func TestEmbeddingLosesRefusals(t *testing.T) {
	service := newKeyService(t)
	info, err := service.DescribeKey(t.Context(), service.key)
	require.NoError(t, err)
	mode, err := sse.NewKMS(cache.New(embedding{service.Client}, nil), info.ARN, nil) // SameKey is lost, too
	require.NoError(t, err)
	object := seal(t, mode, []byte("meow"))
	_, err = open(t.Context(), mode, object)
	require.NoError(t, err)
	require.NoError(t, service.DisableKey(t.Context(), service.key))
	_, err = open(t.Context(), mode, object)
	require.NoError(t, err, "the cache cannot ask")
}

// TestWrappersKeepCapabilities: what sse, kms and blob ask a client or a cipher for is
// found through the wrappers, and what is not there does not appear.
func TestWrappersKeepCapabilities(t *testing.T) {
	b, service := newBed(t), newKeyService(t)
	cached := cache.New(service.Client, nil)
	wrapped := b.Client(cached)

	found, ok := kms.Find[*cache.Client](wrapped)
	require.True(t, ok, "bucket keys depend on it")
	require.Same(t, cached, found)
	info, err := service.DescribeKey(t.Context(), service.key)
	require.NoError(t, err)
	same, known := kms.SameKey(wrapped, service.key, info.ARN)
	require.True(t, same && known, "an id and its ARN are one key")
	_, known = kms.SameKey(wrapped, localkms.DefaultAlias, info.ARN)
	require.False(t, known, "nobody but the service knows what an alias means")

	mode, err := sse.NewKMS(wrapped, service.key, nil)
	require.NoError(t, err)
	cipher := b.Cipher(mode)
	require.Equal(t, sse.ModeKMS, cipher.Mode())
	require.Equal(t, service.key, sse.RequestedKey(cipher))

	require.Implements(t, (*sse.Cipher)(nil), b.Decrypter(mode))
	require.Implements(t, (*sse.Cipher)(nil), b.Encrypter(mode))
	_, isEncrypter := b.Decrypter(sse.ByMode{sse.ModeKMS: mode}).(sse.Encrypter)
	require.False(t, isEncrypter)
	type onlyEncrypter struct{ sse.Encrypter }
	_, isDecrypter := b.Encrypter(onlyEncrypter{mode}).(sse.Decrypter)
	require.False(t, isDecrypter)
	type noRewrap struct {
		sse.Encrypter
		sse.Decrypter
	}
	_, isCipher := b.Decrypter(noRewrap{mode, mode}).(sse.Cipher)
	require.False(t, isCipher)

	_, authorizes := b.Client(embedding{service.Client}).(kms.Authorizer)
	require.False(t, authorizes, "nobody could answer")

	require.Nil(t, b.Cipher(nil))
	require.Nil(t, b.Cipher((*sse.KMS)(nil)))
	require.Nil(t, b.Encrypter(nil))
	require.Nil(t, b.Decrypter(nil))
	require.Nil(t, b.Client(nil))
	require.Nil(t, b.Sink(nil))
}

// TestWrappersKeepReports: who asks through telemetry for a report of the call gets it.
func TestWrappersKeepReports(t *testing.T) {
	b, service := newBed(t), newKeyService(t)
	client := b.Client(cache.New(b.Client(service.Client), nil))
	var report kms.Report
	ctx := kms.WithReport(t.Context(), &report)
	key, err := client.GenerateDataKey(ctx, service.key, nil)
	require.NoError(t, err)
	require.Equal(t, key.KeyID, report.KeyID)
	require.Equal(t, "1", report.KeyVersion)
	require.False(t, report.Cached)
	_, err = client.GenerateDataKey(ctx, service.key, nil)
	require.NoError(t, err)
	require.True(t, report.Cached)
}
