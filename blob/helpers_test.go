package blob_test

import (
	"bytes"
	"context"
	"io"
	"testing"

	"github.com/stretchr/testify/require"
	gcblob "gocloud.dev/blob"
	"gocloud.dev/blob/fileblob"
	"gocloud.dev/blob/memblob"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms/kmstest"
	"github.com/blobseal/blobseal/sse"
)

// A mode under test: its cipher, the policy that allows it.
type mode struct {
	name   string
	cipher func(t testing.TB) sse.Cipher
	policy blob.Policy
}

var modes = []mode{
	{"managed", func(t testing.TB) sse.Cipher { return sse.NewManaged(newRing(t)) }, blob.Policy{}},
	{"kms", func(t testing.TB) sse.Cipher { return newKMS(t, "photos-key") }, blob.Policy{}},
	{"customer", func(t testing.TB) sse.Cipher { return newCustomer(t, 7) }, blob.Policy{AllowCustomerKeys: true}},
}

// A store under test.
var stores = []struct {
	name string
	open func(t testing.TB) *gcblob.Bucket
}{
	{"mem", func(t testing.TB) *gcblob.Bucket { return newMem(t) }},
	{"file", func(t testing.TB) *gcblob.Bucket { return newFile(t) }},
}

func newRing(t testing.TB) *keyring.Ring {
	root, err := keyring.NewKeyRoot(bytes.Repeat([]byte{1}, 32))
	require.NoError(t, err)
	ring, err := keyring.Open(context.Background(), keyring.NewMemStore(), root, &keyring.Options{Create: true})
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

// newBucket is an encrypted bucket over inner, in mode managed unless opts change
// that.
func newBucket(t testing.TB, inner *gcblob.Bucket, opts *blob.Options) *blob.Bucket {
	return newBucketWith(t, inner, sse.NewManaged(newRing(t)), opts)
}

func newBucketWith(t testing.TB, inner *gcblob.Bucket, cipher sse.Cipher, opts *blob.Options) *blob.Bucket {
	b, err := blob.NewBucket(inner, "photos", cipher, opts)
	require.NoError(t, err)
	t.Cleanup(func() { b.Close() })
	return b
}

// content is n bytes that differ from chunk to chunk.
func content(n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(i*7 + i/251 + i/16384)
	}
	return p
}

func readAll(t testing.TB, b *gcblob.Bucket, key string) []byte {
	p, err := b.ReadAll(context.Background(), key)
	require.NoError(t, err)
	return p
}

func readRange(b *gcblob.Bucket, key string, off, n int64) ([]byte, error) {
	r, err := b.NewRangeReader(context.Background(), key, off, n, nil)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}
