package s3test

import (
	"bytes"
	"context"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
	gcblob "gocloud.dev/blob"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/internal/testbed/ssetest"
	"github.com/blobseal/blobseal/keyring/keyringtest"
	"github.com/blobseal/blobseal/sse"
)

// bucketName is the name that objects are bound to. S3's bucket has another name.
const bucketName = "photos"

// mode is a mode under test.
type mode struct {
	name   string
	cipher func(t testing.TB) sse.Cipher
	policy blob.Policy
}

var modes = []mode{
	{"managed", func(t testing.TB) sse.Cipher { return sse.NewManaged(keyringtest.NewRing(t, nil)) }, blob.Policy{}},
	{"kms", func(t testing.TB) sse.Cipher { return ssetest.NewKMS(t, "arn:photos-key") }, blob.Policy{}},
	{"customer", func(t testing.TB) sse.Cipher { return ssetest.NewCustomer(t, 7) }, blob.Policy{AllowCustomerKeys: true}},
}

// encrypted returns an encrypted bucket over inner. A nil cipher means SSE-S3.
func encrypted(t testing.TB, inner *gcblob.Bucket, cipher sse.Cipher, opts *blob.Options) *blob.Bucket {
	if cipher == nil {
		cipher = sse.NewManaged(keyringtest.NewRing(t, nil))
	}
	b, err := blob.NewBucket(inner, bucketName, cipher, opts)
	require.NoError(t, err)
	t.Cleanup(func() { b.Close() })
	return b
}

// requireObject checks the content of an object.
func requireObject(t testing.TB, in interface {
	ReadAll(ctx context.Context, key string) ([]byte, error)
}, key string, want []byte) {
	t.Helper()
	got, err := in.ReadAll(context.Background(), key)
	require.NoError(t, err, key)
	require.True(t, bytes.Equal(want, got), "%s has %d bytes, want %d", key, len(got), len(want))
}

// content returns n bytes without repetitions, the same at each call.
func content(n int) []byte {
	p := make([]byte, n)
	rand.NewChaCha8([32]byte{}).Read(p)
	return p
}
