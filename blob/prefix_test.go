package blob_test

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
	"gocloud.dev/blob/memblob"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/blob/jobs"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms/kmstest"
	"github.com/blobseal/blobseal/sse"
)

func tenantRing(t *testing.T) *keyring.Ring {
	root, err := keyring.NewKeyRoot(bytes.Repeat([]byte{1}, 32))
	require.NoError(t, err)
	ring, err := keyring.Create(t.Context(), keyring.NewMemStore(), root, nil)
	require.NoError(t, err)
	return ring
}

// TestByPrefix: each tenant's objects are under the tenant's ring. Destroying its
// versions shreds that tenant alone.
func TestByPrefix(t *testing.T) {
	ctx := t.Context()
	red, blue := tenantRing(t), tenantRing(t)
	cipher, err := blob.ByPrefix(map[string]sse.Cipher{"red/": sse.NewManaged(red), "blue/": sse.NewManaged(blue)})
	require.NoError(t, err)
	require.Equal(t, sse.ModeManaged, cipher.Mode())
	inner := memblob.OpenBucket(nil)
	defer inner.Close()
	bucket, err := blob.NewBucket(inner, "b", cipher, nil)
	require.NoError(t, err)
	ringOf := map[string]*keyring.Ring{"red/a": red, "red/b/c": red, "blue/a": blue, "blue/red/": blue}
	for key := range ringOf {
		require.NoError(t, bucket.WriteAll(ctx, key, []byte(key), nil))
	}
	for entry, err := range jobs.Inventory(ctx, bucket, nil) {
		require.NoError(t, err)
		versions := ringOf[entry.Key].Versions()
		require.Equal(t, versions[len(versions)-1].ID, entry.Seal.KeyID, entry.Key)
	}

	// A rotation of one tenant's ring, and the rewrap that follows.
	old := red.Versions()[0].ID
	_, err = red.Rotate(ctx)
	require.NoError(t, err)
	_, err = jobs.Rewrap(ctx, bucket, nil)
	require.ErrorIs(t, err, sse.ErrInvalid)
	report, err := jobs.Rewrap(ctx, bucket, &jobs.RewrapOptions{Filter: jobs.Filter{Prefix: "red/"}})
	require.NoError(t, err)
	require.EqualValues(t, 2, report.Done)
	_, err = jobs.CheckUnused(ctx, jobs.KeyRef{Mode: sse.ModeManaged, KeyID: old}, nil, bucket)
	require.NoError(t, err)

	// A copy between tenants is sealed for its new owner.
	require.NoError(t, bucket.Copy(ctx, "blue/copy", "red/a", nil))
	ringOf["blue/copy"] = blue

	// The tenant leaves.
	primary := red.Versions()[1].ID
	_, err = red.Rotate(ctx)
	require.NoError(t, err)
	_, err = red.SetState(ctx, primary, keyring.Disabled)
	require.NoError(t, err)
	for key, ring := range ringOf {
		p, err := bucket.ReadAll(ctx, key)
		if ring == red {
			require.ErrorIs(t, err, keyring.ErrDisabled, key)
			continue
		}
		require.NoError(t, err, key)
		require.NotEmpty(t, p)
	}
}

func TestByPrefixRefuses(t *testing.T) {
	managed := sse.NewManaged(tenantRing(t))
	onKMS, err := sse.NewKMS(kmstest.NewFake("photos"), "photos", nil)
	require.NoError(t, err)
	for name, ciphers := range map[string]map[string]sse.Cipher{
		"nothing":                    nil,
		"two modes":                  {"a": managed, "b": onKMS},
		"a nil cipher":               {"a": managed, "b": nil},
		"a nil pointer":              {"a": (*sse.Customer)(nil)},
		"a prefix of another":        {"a/": managed, "a/b": managed},
		"the empty prefix and other": {"": managed, "b": managed},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := blob.ByPrefix(ciphers)
			require.ErrorIs(t, err, sse.ErrInvalid)
		})
	}
	t.Run("a key without a cipher", func(t *testing.T) {
		cipher, err := blob.ByPrefix(map[string]sse.Cipher{"a/": managed})
		require.NoError(t, err)
		inner := memblob.OpenBucket(nil)
		defer inner.Close()
		bucket, err := blob.NewBucket(inner, "b", cipher, nil)
		require.NoError(t, err)
		require.ErrorIs(t, bucket.WriteAll(t.Context(), "b/k", nil, nil), sse.ErrInvalid)
		require.NoError(t, bucket.WriteAll(t.Context(), "a/k", nil, nil))
	})
}
