// Package blobtest holds what the tests of the blob module share.
package blobtest

import (
	"bytes"
	"context"
	"io"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	gcblob "gocloud.dev/blob"
	"gocloud.dev/blob/fileblob"
	"gocloud.dev/blob/memblob"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/keyring/keyringtest"
	"github.com/blobseal/blobseal/kms/kmstest"
	"github.com/blobseal/blobseal/sse"
)

// Mode is a mode under test, with its cipher and a policy that allows it.
type Mode struct {
	Name   string
	Cipher func(t testing.TB) sse.Cipher
	Policy blob.Policy
}

// Modes are all modes.
var Modes = []Mode{
	{"managed", func(t testing.TB) sse.Cipher { return sse.NewManaged(NewRing(t)) }, blob.Policy{}},
	{"kms", func(t testing.TB) sse.Cipher {
		cipher, err := sse.NewKMS(kmstest.NewFake("photos-key"), "photos-key", nil)
		require.NoError(t, err)
		return cipher
	}, blob.Policy{}},
	{"customer", func(t testing.TB) sse.Cipher {
		cipher, err := sse.NewCustomer(bytes.Repeat([]byte{7}, 32))
		require.NoError(t, err)
		return cipher
	}, blob.Policy{AllowCustomerKeys: true}},
}

// Stores are the stores under test.
var Stores = []struct {
	Name string
	Open func(t testing.TB) *gcblob.Bucket
}{
	{"mem", func(t testing.TB) *gcblob.Bucket { return NewMem(t) }},
	{"file", func(t testing.TB) *gcblob.Bucket { return NewFile(t) }},
}

func NewRing(t testing.TB) *keyring.Ring { return keyringtest.NewRing(t, nil) }

func NewMem(t testing.TB) *gcblob.Bucket {
	b := memblob.OpenBucket(nil)
	t.Cleanup(func() { b.Close() })
	return b
}

func NewFile(t testing.TB) *gcblob.Bucket {
	b, err := fileblob.OpenBucket(t.TempDir(), &fileblob.Options{NoTempDir: true})
	require.NoError(t, err)
	t.Cleanup(func() { b.Close() })
	return b
}

// NewBucket returns an encrypted bucket over inner, in mode managed.
func NewBucket(t testing.TB, inner *gcblob.Bucket, opts *blob.Options) *blob.Bucket {
	return NewBucketWith(t, inner, sse.NewManaged(NewRing(t)), opts)
}

func NewBucketWith(t testing.TB, inner *gcblob.Bucket, cipher sse.Cipher, opts *blob.Options) *blob.Bucket {
	b, err := blob.NewBucket(inner, "photos", cipher, opts)
	require.NoError(t, err)
	t.Cleanup(func() { b.Close() })
	return b
}

// Content returns n bytes that differ from chunk to chunk.
func Content(n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(i*7 + i/251 + i/16384)
	}
	return p
}

func ReadAll(t testing.TB, b *gcblob.Bucket, key string) []byte {
	p, err := b.ReadAll(context.Background(), key)
	require.NoError(t, err)
	return p
}

func ReadRange(b *gcblob.Bucket, key string, off, n int64) ([]byte, error) {
	r, err := b.NewRangeReader(context.Background(), key, off, n, nil)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

// NoneLeft waits until there are no more goroutines than before. A goroutine that has
// reported its result may take a moment to end.
func NoneLeft(t *testing.T, before int) {
	t.Helper()
	for wait := time.Now(); runtime.NumGoroutine() > before; runtime.Gosched() {
		require.Less(t, time.Since(wait), 10*time.Second, "goroutines are left")
	}
}

// With is [blob.Bucket.With] for a request that cannot fail.
func With(t testing.TB, b *blob.Bucket, r blob.Request) *blob.Bucket {
	view, err := b.With(r)
	require.NoError(t, err)
	return view
}
