// Quickstart encrypts a file under each mode, reads parts of it, rotates the
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
	"github.com/blobseal/blobseal/kms/localkms"
	"github.com/blobseal/blobseal/sse"
)

func main() {
	log.SetFlags(0)
	ctx := context.Background()
	dir := must(os.MkdirTemp("", "blobseal-quickstart-"))
	defer os.RemoveAll(dir)

	// A root opens what holds the keys; a service keeps it somewhere else.
	root := must(keyring.NewKeyRoot(randomKey()))

	// SSE-S3: a ring, in one encrypted file, holds the versions of a master key.
	store := must(keyring.NewFileStore(filepath.Join(dir, "ring")))
	ring := must(keyring.Create(ctx, store, root, nil))
	managed := sse.NewManaged(ring)

	// SSE-KMS: a key service has the keys. This one is embedded and in one file;
	// its default key is made on first use.
	keys := must(keyring.NewFileStore(filepath.Join(dir, "kms")))
	service := must(localkms.Create(ctx, keys, root, nil))
	kms := must(sse.NewKMS(must(service.Client("", "")), localkms.DefaultAlias, nil))

	// SSE-C: the caller brings the key with every request.
	customer := must(sse.NewCustomer(randomKey()))

	show(ctx, "SSE-S3", managed, filepath.Join(dir, "SSE-S3"))
	show(ctx, "SSE-KMS", kms, filepath.Join(dir, "SSE-KMS"))
	show(ctx, "SSE-C", customer, filepath.Join(dir, "SSE-C"))

	// Rotation makes a new version for new objects. Old objects open as before,
	// and a rewrap brings one to the new version: the envelope, not the body.
	must(ring.Rotate(ctx))
	path, obj := filepath.Join(dir, "SSE-S3"), object("SSE-S3")
	stored := must(os.OpenFile(path, os.O_RDWR, 0))
	defer stored.Close()
	env := must(sse.ReadEnvelope(stored))
	newer := must(managed.Rewrap(ctx, obj, must(managed.Decrypt(ctx, obj, env))))
	must(stored.WriteAt(must(newer.MarshalBinary()), 0)) // the same size, so in place
	same := bytes.Equal(must(read(ctx, managed, obj, path)), plaintext)
	fmt.Printf("rotated from key %s to %s: %d bytes rewritten, reads as before: %s\n",
		env.KeyID(), newer.KeyID(), newer.Size(), proved(same))

	// Another mode is one rewrap away, too.
	moved := must(kms.Rewrap(ctx, obj, must(managed.Decrypt(ctx, obj, newer))))
	fmt.Printf("rewrapped to %v\n", moved)
}

// show writes the plaintext to path under one mode, reads it back in whole and
// in part, and proves what is refused.
func show(ctx context.Context, name string, cipher sse.Cipher, path string) {
	obj := object(name)
	dst := must(os.Create(path))
	w := must(sse.NewWriter(ctx, dst, cipher, obj, &sse.WriterOptions{EnvelopeSize: 1024}))
	n := must(io.Copy(w, bytes.NewReader(plaintext)))
	check(w.Close()) // seals the last chunk; without it the object is truncated
	check(dst.Close())
	stored := must(os.ReadFile(path))
	fmt.Printf("%-7s  encrypted %d bytes to %d\n", name, n, len(stored))

	got := must(read(ctx, cipher, obj, path))
	r := must(sse.NewReaderAt(ctx, bytes.NewReader(stored), int64(len(stored)), cipher, obj))
	part := make([]byte, 20)
	must(r.ReadAt(part, 3_000_000))
	fmt.Printf("%-7s  reads back: %s; bytes 3000000-3000019 alone: %s\n", name,
		proved(bytes.Equal(got, plaintext)), proved(bytes.Equal(part, plaintext[3_000_000:3_000_020])))

	stored[len(stored)/2] ^= 1
	check(os.WriteFile(path+".tampered", stored, 0o600))
	_, err := read(ctx, cipher, obj, path+".tampered")
	fmt.Printf("%-7s  one flipped bit: %v\n", name, refused(err, sse.ErrCorrupt))
	_, err = read(ctx, cipher, object("another name"), path)
	fmt.Printf("%-7s  another name: %v\n", name, refused(err, sse.ErrKey))
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
var plaintext = bytes.Repeat([]byte("A well-kept secret, written many times over...\n"), 8<<20/47)

func randomKey() []byte {
	key := make([]byte, 32)
	rand.Read(key)
	return key
}

func proved(ok bool) string {
	if !ok {
		log.Fatal("not as it should be")
	}
	return "yes"
}

func refused(err, want error) error {
	if !errors.Is(err, want) {
		log.Fatalf("not refused as %q: %v", want, err)
	}
	return err
}

func must[T any](v T, err error) T {
	check(err)
	return v
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
