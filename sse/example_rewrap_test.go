package sse_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"strings"

	"github.com/blobseal/blobseal/sse"
)

// After a rotation, a rewrap moves an object to the new version. Only its
// envelope changes.
func ExampleNewManaged_rewrap() {
	ctx := context.Background()
	ring := exampleRing()
	cipher := sse.NewManaged(ring)
	obj := sse.Object{Bucket: "photos", Key: "cat.jpg"}
	e, _ := cipher.Encrypt(ctx, obj)
	body, _ := io.ReadAll(e.Reader(strings.NewReader("a picture of a cat")))

	if _, err := ring.Rotate(ctx); err != nil {
		log.Fatal(err)
	}
	d, err := cipher.Decrypt(ctx, obj, e.Envelope()) // the old version still opens it
	if err != nil {
		log.Fatal(err)
	}
	newer, err := cipher.Rewrap(ctx, obj, d)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("new key:", newer.KeyID() != e.Envelope().KeyID())

	d, err = cipher.Decrypt(ctx, obj, newer)
	if err != nil {
		log.Fatal(err)
	}
	io.Copy(os.Stdout, d.Reader(bytes.NewReader(body)))
	// Output:
	// new key: true
	// a picture of a cat
}

// A customer changes the key of an object. The same call gives an object a new mode or
// name.
func ExampleCustomer_Rewrap() {
	ctx := context.Background()
	old, _ := sse.NewCustomer(bytes.Repeat([]byte{1}, 32))
	new, _ := sse.NewCustomer(bytes.Repeat([]byte{2}, 32))
	e, _ := old.Encrypt(ctx, sse.Object{Key: "draft"})

	d, err := old.Decrypt(ctx, sse.Object{Key: "draft"}, e.Envelope())
	if err != nil {
		log.Fatal(err)
	}
	env, err := new.Rewrap(ctx, sse.Object{Key: "final"}, d)
	if err != nil {
		log.Fatal(err)
	}
	_, err = old.Decrypt(ctx, sse.Object{Key: "final"}, env)
	fmt.Println("old key:", errors.Is(err, sse.ErrKey))
	_, err = new.Decrypt(ctx, sse.Object{Key: "final"}, env)
	fmt.Println("new key:", err)
	// Output:
	// old key: true
	// new key: <nil>
}
