package sse_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"strings"
	"sync"

	"github.com/blobseal/blobseal/sse"
)

// album keeps envelopes in a database and bodies in a blob store.
type album struct {
	cipher sse.Cipher
	rows   sync.Map // key to envelope, in text
	bodies sync.Map // body id to body
}

// put stores a picture. If several callers write one key at once, the last one to reach
// the database wins, and its picture is whole.
func (a *album) put(ctx context.Context, key string, picture io.Reader) error {
	e, err := a.cipher.Encrypt(ctx, sse.Object{Bucket: "photos", Key: key})
	if err != nil {
		return err
	}
	envelope, err := e.Envelope().MarshalText()
	if err != nil {
		return err
	}
	body, err := io.ReadAll(e.Reader(picture))
	if err != nil {
		return err
	}
	// The body comes first, under a name of its own.
	a.bodies.Store(e.Envelope().BodyID(), body)
	// The envelope commits the write: UPDATE photos SET envelope = ...
	a.rows.Store(key, envelope)
	return nil
}

// get returns a reader of a picture.
func (a *album) get(ctx context.Context, key string) (io.Reader, error) {
	row, ok := a.rows.Load(key)
	if !ok {
		return nil, fmt.Errorf("no picture %q", key)
	}
	env := new(sse.Envelope)
	if err := env.UnmarshalText(row.([]byte)); err != nil {
		return nil, err
	}
	d, err := a.cipher.Decrypt(ctx, sse.Object{Bucket: "photos", Key: key}, env)
	if err != nil {
		return nil, err
	}
	body, ok := a.bodies.Load(env.BodyID())
	if !ok {
		return nil, fmt.Errorf("no body of picture %q", key)
	}
	return d.Reader(bytes.NewReader(body.([]byte))), nil
}

// A service keeps envelopes in its database and bodies in a blob store.
func ExampleEncryption() {
	ctx := context.Background()
	a := &album{cipher: sse.NewManaged(exampleRing())}
	if err := a.put(ctx, "cat.jpg", strings.NewReader("a picture of a cat")); err != nil {
		log.Fatal(err)
	}
	r, err := a.get(ctx, "cat.jpg")
	if err != nil {
		log.Fatal(err)
	}
	picture, err := io.ReadAll(r)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s\n", picture)
	// Output: a picture of a cat
}
