package s3test

import (
	"bytes"
	"context"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
	gcblob "gocloud.dev/blob"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms/kmstest"
	"github.com/blobseal/blobseal/sse"
)

// bucketName is what objects are bound to, whatever S3 calls the bucket.
const bucketName = "photos"

// mode is a mode under test.
type mode struct {
	name   string
	cipher func(t testing.TB) sse.Cipher
	policy blob.Policy
}

var modes = []mode{
	{"managed", func(t testing.TB) sse.Cipher { return sse.NewManaged(newRing(t)) }, blob.Policy{}},
	{"kms", func(t testing.TB) sse.Cipher { return newKMS(t, "arn:photos-key") }, blob.Policy{}},
	{"customer", func(t testing.TB) sse.Cipher { return newCustomer(t, 7) }, blob.Policy{AllowCustomerKeys: true}},
}

func newRing(t testing.TB) *keyring.Ring {
	root, err := keyring.NewKeyRoot(bytes.Repeat([]byte{1}, 32))
	require.NoError(t, err)
	ring, err := keyring.Create(context.Background(), keyring.NewMemStore(), root, nil)
	require.NoError(t, err)
	return ring
}

func newKMS(t testing.TB, keyID string) *sse.KMS {
	cipher, err := sse.NewKMS(kmstest.NewFake(keyID), keyID, nil)
	require.NoError(t, err)
	return cipher
}

func newCustomer(t testing.TB, seed byte) *sse.Customer {
	cipher, err := sse.NewCustomer(bytes.Repeat([]byte{seed}, 32))
	require.NoError(t, err)
	return cipher
}

// encrypted is an encrypted bucket over inner; a nil cipher is one of SSE-S3.
func encrypted(t testing.TB, inner *gcblob.Bucket, cipher sse.Cipher, opts *blob.Options) *blob.Bucket {
	if cipher == nil {
		cipher = sse.NewManaged(newRing(t))
	}
	b, err := blob.NewBucket(inner, bucketName, cipher, opts)
	require.NoError(t, err)
	t.Cleanup(func() { b.Close() })
	return b
}

// content is n bytes that nothing repeats, always the same.
func content(n int) []byte {
	p := make([]byte, n)
	rand.NewChaCha8([32]byte{}).Read(p)
	return p
}
