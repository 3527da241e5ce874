package sse_test

import (
	"bytes"
	"context"
	"io"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/cache"
	"github.com/blobseal/blobseal/kms/kmstest"
	"github.com/blobseal/blobseal/sse"
)

// BenchmarkWrite measures a self-contained object of 1 KiB in each mode. SSE-KMS
// goes through a warm cache with bucket keys: compare it with SSE-S3 in one run.
func BenchmarkWrite(b *testing.B) {
	root, err := keyring.NewKeyRoot(bytes.Repeat([]byte{1}, 32))
	require.NoError(b, err)
	ring, err := keyring.Create(b.Context(), keyring.NewMemStore(), root, nil)
	require.NoError(b, err)
	service := kmstest.NewFake("key")
	cached, err := sse.NewKMS(cache.New(service, nil), "key", &sse.KMSOptions{BucketKey: true})
	require.NoError(b, err)
	customer, err := sse.NewCustomer(bytes.Repeat([]byte{2}, 32))
	require.NoError(b, err)

	ctx := kms.WithPrincipal(context.Background(), kms.Principal{ID: "writer"})
	plaintext := make([]byte, 1024)
	for _, mode := range []struct {
		name   string
		cipher sse.Cipher
	}{{"managed", sse.NewManaged(ring)}, {"KMS", cached}, {"customer", customer}} {
		b.Run(mode.name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(plaintext)))
			for b.Loop() {
				w, err := sse.NewWriter(ctx, io.Discard, mode.cipher, sse.Object{Bucket: "photos", Key: "2026/cat.jpg"}, nil)
				if err != nil {
					b.Fatal(err)
				}
				w.Write(plaintext)
				if err := w.Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkComposite measures composite objects: opening one of 10,000 parts, a
// stream of four parts of 1 MiB, and reads of 4 KiB at random.
func BenchmarkComposite(b *testing.B) {
	c := newCustomer(b, customerKey)
	u := startUpload(b, c, object)
	part := sealPart(b, u.m, 1, []byte{1})
	for number := range 10_000 {
		part.number = number + 1
		part.receipt = sealPart(b, u.m, number+1, []byte{1}).receipt
		u.parts = append(u.parts, part)
	}
	many := u.complete(b, nil)
	_, large := compositeOf(b, c, object, 1<<20, 1<<20, 1<<20, 1<<20)
	composite, err := openComposite(b, c, object, large)
	require.NoError(b, err)

	b.Run("open", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, err := openComposite(b, c, object, many)
			require.NoError(b, err)
		}
	})
	b.Run("stream", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(composite.Size())
		for b.Loop() {
			_, err := io.Copy(io.Discard, composite.Reader(bytes.NewReader(large)))
			require.NoError(b, err)
		}
	})
	b.Run("random", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(4096)
		at, p := composite.ReaderAt(bytes.NewReader(large)), make([]byte, 4096)
		for i := int64(0); b.Loop(); i++ {
			_, err := at.ReadAt(p, i*7919*4096%(composite.Size()-4096))
			require.NoError(b, err)
		}
	})
}
