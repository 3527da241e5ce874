package signedurl_test

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
	gcblob "gocloud.dev/blob"
	"gocloud.dev/blob/fileblob"
	"gocloud.dev/blob/memblob"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/sse"
)

func newRing(t testing.TB) *keyring.Ring {
	root, err := keyring.NewKeyRoot(bytes.Repeat([]byte{1, 0xfe}, 16))
	require.NoError(t, err)
	ring, err := keyring.Create(t.Context(), keyring.NewMemStore(), root, nil)
	require.NoError(t, err)
	return ring
}

func newMem(t testing.TB) *gcblob.Bucket {
	b := memblob.OpenBucket(nil)
	t.Cleanup(func() { b.Close() })
	return b
}

func newFile(t testing.TB) *gcblob.Bucket {
	b, err := fileblob.OpenBucket(t.TempDir(), &fileblob.Options{NoTempDir: true})
	require.NoError(t, err)
	t.Cleanup(func() { b.Close() })
	return b
}

// newBucket returns an encrypted bucket over inner, in mode SSE-S3.
func newBucket(t testing.TB, inner *gcblob.Bucket, opts *blob.Options) *blob.Bucket {
	return newBucketWith(t, inner, sse.NewManaged(newRing(t)), opts)
}

func newBucketWith(t testing.TB, inner *gcblob.Bucket, cipher sse.Cipher, opts *blob.Options) *blob.Bucket {
	b, err := blob.NewBucket(inner, "photos", cipher, opts)
	require.NoError(t, err)
	t.Cleanup(func() { b.Close() })
	return b
}

func newCustomer(t testing.TB, seed byte) *sse.Customer {
	cipher, err := sse.NewCustomer(bytes.Repeat([]byte{seed, 0xfe}, 16))
	require.NoError(t, err)
	return cipher
}
