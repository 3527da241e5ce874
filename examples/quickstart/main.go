// Quickstart encrypts a file under two modes, reads a part of it, rotates the
// master key under it, and shows what is refused. It needs nothing but Go:
//
//	go run ./examples/quickstart
package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"

	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/sse"
)

func main() {
	log.SetFlags(0)
	dir, err := os.MkdirTemp("", "blobseal-quickstart-")
	check(err)
	defer os.RemoveAll(dir)
	ctx := context.Background()

	// A ring holds the versions of a master key, in one encrypted file. Its root
	// opens that file: here a random key, which a service would keep elsewhere.
	rootKey := make([]byte, 32)
	rand.Read(rootKey)
	root, err := keyring.NewKeyRoot(rootKey)
	check(err)
	store, err := keyring.NewFileStore(filepath.Join(dir, "ring"))
	check(err)
	ring, err := keyring.Open(ctx, store, root, &keyring.Options{Create: true})
	check(err)
	fmt.Printf("created a key ring, %s, with one version of its master key\n", ring.ID())

	// Two ways to manage keys, one interface. SSE-S3: the ring's master key seals
	// each object's own data key. SSE-C: a key that the caller brings does.
	customerKey := make([]byte, 32)
	rand.Read(customerKey)
	customer, err := sse.NewCustomer(customerKey)
	check(err)
	managed := sse.NewManaged(ring)
	for _, mode := range []struct {
		name   string
		cipher sse.Cipher
	}{{"SSE-S3", managed}, {"SSE-C", customer}} {
		show(ctx, mode.name, mode.cipher, filepath.Join(dir, mode.name))
	}

	// Rotation makes a new version for new objects. Old objects open as before,
	// and a rewrap brings one to the new version: 104 bytes, not the whole file.
	path, obj := filepath.Join(dir, "SSE-S3"), object("SSE-S3")
	_, err = ring.Rotate(ctx)
	check(err)
	stored, err := os.OpenFile(path, os.O_RDWR, 0)
	check(err)
	defer stored.Close()
	env, err := sse.ReadEnvelope(stored)
	check(err)
	opened, err := managed.Decrypt(ctx, obj, env)
	check(err)
	newer, err := managed.Rewrap(ctx, obj, opened)
	check(err)
	head, err := newer.MarshalBinary()
	check(err)
	_, err = stored.WriteAt(head, 0) // same size, so in place
	check(err)
	sum, err := read(ctx, managed, obj, path)
	check(err)
	fmt.Printf("rotated:   %s -> %s, %d bytes rewritten, the file still reads as before: %t\n",
		env.KeyID(), newer.KeyID(), len(head), bytes.Equal(sum, plaintext()))

	// Another mode is one rewrap away, too.
	opened, err = managed.Decrypt(ctx, obj, newer)
	check(err)
	moved, err := customer.Rewrap(ctx, obj, opened)
	check(err)
	fmt.Printf("rewrapped: now %v\n", moved)
}

// show writes the plaintext to path under one mode, reads it back in whole and
// in part, and proves what is refused.
func show(ctx context.Context, name string, cipher sse.Cipher, path string) {
	obj := object(name)
	dst, err := os.Create(path)
	check(err)
	w, err := sse.NewWriter(ctx, dst, cipher, obj, &sse.WriterOptions{EnvelopeSize: 1024})
	check(err)
	n, err := io.Copy(w, bytes.NewReader(plaintext()))
	check(err)
	check(w.Close()) // seals the last chunk; without it the object is truncated
	check(dst.Close())
	stored, err := os.ReadFile(path)
	check(err)
	fmt.Printf("%-7s encrypted %d bytes to %d\n", name, n, len(stored))

	got, err := read(ctx, cipher, obj, path)
	check(err)
	r, err := sse.NewReaderAt(ctx, bytes.NewReader(stored), int64(len(stored)), cipher, obj)
	check(err)
	part := make([]byte, 20)
	_, err = r.ReadAt(part, 3_000_000)
	check(err)
	fmt.Printf("%-7s reads back: %t; bytes 3000000-3000019 alone: %t\n", name,
		bytes.Equal(got, plaintext()), bytes.Equal(part, plaintext()[3_000_000:3_000_020]))

	stored[len(stored)/2] ^= 1
	check(os.WriteFile(path+".tampered", stored, 0o600))
	_, err = read(ctx, cipher, obj, path+".tampered")
	fmt.Printf("%-7s one flipped bit: %v\n", name, refused(err, sse.ErrCorrupt))
	_, err = read(ctx, cipher, object("another name"), path)
	fmt.Printf("%-7s another name: %v\n", name, refused(err, sse.ErrKey))
}

// read opens the object at path as a stream and reads all of it.
func read(ctx context.Context, dec sse.Decrypter, obj sse.Object, path string) ([]byte, error) {
	src, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer src.Close()
	r, err := sse.NewReader(ctx, src, dec, obj)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

// object is what is encrypted. Its name is bound to it, not stored in it.
func object(key string) sse.Object { return sse.Object{Bucket: "quickstart", Key: key} }

// plaintext is a file of 8 MiB.
func plaintext() []byte {
	return bytes.Repeat([]byte("A well-kept secret, written many times over.\n..."), 8<<20/48)
}

func refused(err, want error) error {
	if !errors.Is(err, want) {
		log.Fatalf("not refused as %q: %v", want, err)
	}
	return err
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
