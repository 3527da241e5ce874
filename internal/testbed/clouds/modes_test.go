package clouds

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
	gcblob "gocloud.dev/blob"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/internal/testbed/ssetest"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/keyring/keyringtest"
	"github.com/blobseal/blobseal/sse"
)

// bucketName is the name that objects are bound to. The store's bucket has another.
const bucketName = "photos"

// kmsKey is the key of the fake key service.
const kmsKey = "arn:example:kms:eu-1:111122223333:key/photos"

// keys are one cipher of each mode.
type keys struct {
	ring     *keyring.Ring
	managed  sse.Cipher
	kms      *sse.KMS
	customer *sse.Customer
}

func newKeys(t testing.TB) *keys {
	ring := keyringtest.NewRing(t, nil)
	return &keys{ring, sse.NewManaged(ring), ssetest.NewKMS(t, kmsKey), ssetest.NewCustomer(t, 7)}
}

// byMode opens objects of every mode.
func (k *keys) byMode() sse.ByMode {
	return sse.ByMode{sse.ModeManaged: k.managed, sse.ModeKMS: k.kms, sse.ModeCustomer: k.customer}
}

// bucket encrypts in inner with cipher and opens objects of every mode.
func (k *keys) bucket(t testing.TB, inner *gcblob.Bucket, cipher sse.Cipher, opts blob.Options) *blob.Bucket {
	opts.Policy.AllowCustomerKeys = true
	opts.Decrypters = k.byMode()
	b, err := blob.NewBucket(inner, bucketName, cipher, &opts)
	require.NoError(t, err)
	t.Cleanup(func() { b.Close() })
	return b
}

// modes are the ways a bucket can be encrypted.
var modes = []struct {
	name   string
	bucket func(t testing.TB, inner *gcblob.Bucket) *blob.Bucket
}{
	{"managed", func(t testing.TB, inner *gcblob.Bucket) *blob.Bucket {
		k := newKeys(t)
		return k.bucket(t, inner, k.managed, blob.Options{})
	}},
	{"kms", func(t testing.TB, inner *gcblob.Bucket) *blob.Bucket {
		k := newKeys(t)
		return k.bucket(t, inner, k.kms, blob.Options{})
	}},
	{"customer", func(t testing.TB, inner *gcblob.Bucket) *blob.Bucket {
		k := newKeys(t)
		return k.bucket(t, inner, k.customer, blob.Options{})
	}},
	{"mixed", func(t testing.TB, inner *gcblob.Bucket) *blob.Bucket {
		k := newKeys(t)
		return k.bucket(t, inner, k.managed, blob.Options{AllowPlain: true})
	}},
}

// content returns n bytes without repetitions, the same at each call.
func content(n int) []byte {
	p := make([]byte, n)
	rand.NewChaCha8([32]byte{1}).Read(p)
	return p
}

func equal(t testing.TB, want, got []byte, key string) {
	t.Helper()
	require.True(t, bytes.Equal(want, got), "%s: %d bytes, want %d", key, len(got), len(want))
}
