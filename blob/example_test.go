package blob_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"log"

	"gocloud.dev/blob/memblob"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/sse"
)

// openRing is the service's key ring.
func openRing(ctx context.Context) *keyring.Ring {
	root, err := keyring.NewKeyRoot(bytes.Repeat([]byte{1}, 32)) // from your secret store
	if err != nil {
		log.Fatal(err)
	}
	ring, err := keyring.Create(ctx, keyring.NewMemStore(), root, nil)
	if err != nil {
		log.Fatal(err)
	}
	return ring
}

// A service that keeps blobs need not know that they are encrypted.
func ExampleNewBucket() {
	ctx := context.Background()
	inner := memblob.OpenBucket(nil) // or any other: gcblob.OpenBucket(ctx, "s3://…")
	defer inner.Close()
	bucket, err := blob.NewBucket(inner, "photos", sse.NewManaged(openRing(ctx)), nil)
	if err != nil {
		log.Fatal(err)
	}
	defer bucket.Close()

	if err := bucket.WriteAll(ctx, "2026/cat.txt", []byte("a picture of a cat"), nil); err != nil {
		log.Fatal(err)
	}
	picture, err := fs.ReadFile(bucket, "2026/cat.txt")
	if err != nil {
		log.Fatal(err)
	}
	attrs, err := bucket.Attributes(ctx, "2026/cat.txt")
	if err != nil {
		log.Fatal(err)
	}
	stored, err := inner.ReadAll(ctx, "2026/cat.txt")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s, %d bytes of %s\n", picture, attrs.Size, attrs.ContentType)
	fmt.Println("stored in the clear:", bytes.Contains(stored, picture))
	// Output:
	// a picture of a cat, 18 bytes of text/plain; charset=utf-8
	// stored in the clear: false
}

// A customer brings the key with each request; the bucket must allow that.
func ExampleBucket_With() {
	ctx := context.Background()
	bucket, err := blob.NewBucket(memblob.OpenBucket(nil), "photos", sse.NewManaged(openRing(ctx)), &blob.Options{
		Policy: blob.Policy{AllowCustomerKeys: true},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer bucket.Close()
	customer, err := sse.NewCustomer(bytes.Repeat([]byte{7}, 32)) // what the request brought
	if err != nil {
		log.Fatal(err)
	}

	mine, err := bucket.With(blob.Request{Cipher: customer})
	if err != nil {
		log.Fatal(err)
	}
	if err := mine.WriteAll(ctx, "diary", []byte("dear diary"), nil); err != nil {
		log.Fatal(err)
	}
	_, err = bucket.ReadAll(ctx, "diary")
	fmt.Println("without the key:", err != nil)
	err = mine.Download(ctx, "diary", io.Discard, nil)
	fmt.Println("with the key:", err)
	// Output:
	// without the key: true
	// with the key: <nil>
}

// Why is a request refused? No key is touched to tell.
func ExampleBucket_ExplainWrite() {
	ctx := context.Background()
	bucket, err := blob.NewBucket(memblob.OpenBucket(nil), "photos", sse.NewManaged(openRing(ctx)), nil)
	if err != nil {
		log.Fatal(err)
	}
	defer bucket.Close()
	customer, err := sse.NewCustomer(bytes.Repeat([]byte{7}, 32))
	if err != nil {
		log.Fatal(err)
	}
	mine, err := bucket.With(blob.Request{Cipher: customer})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(bucket.ExplainWrite())
	fmt.Println(mine.ExplainWrite())
	// Output:
	// SSE-S3 with the bucket's cipher: allowed by Policy.Modes
	// SSE-C with the request's cipher: refused by Policy.AllowCustomerKeys: blob: refused by the bucket's policy: SSE-C is not allowed
}

// A copy seals the data key again, for its new name and under its new key. The body
// does not change.
func ExampleBucket_CopyFrom() {
	ctx := context.Background()
	bucket, err := blob.NewBucket(memblob.OpenBucket(nil), "photos", sse.NewManaged(openRing(ctx)), &blob.Options{
		Policy: blob.Policy{AllowCustomerKeys: true},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer bucket.Close()
	customer, err := sse.NewCustomer(bytes.Repeat([]byte{7}, 32))
	if err != nil {
		log.Fatal(err)
	}
	if err := bucket.WriteAll(ctx, "draft", []byte("a picture"), nil); err != nil {
		log.Fatal(err)
	}
	theirs, err := bucket.With(blob.Request{Cipher: customer})
	if err != nil {
		log.Fatal(err)
	}
	if err := theirs.CopyFrom(ctx, "handed over", bucket, "draft", nil); err != nil {
		log.Fatal(err)
	}
	for _, key := range []string{"draft", "handed over"} {
		e, err := bucket.ExplainRead(ctx, key)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(key, "is", e.Mode)
	}
	// Output:
	// draft is SSE-S3
	// handed over is SSE-C
}
