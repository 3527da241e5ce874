package bloburl_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"log"
	"net/url"
	"os"
	"path/filepath"

	gcblob "gocloud.dev/blob"
	_ "gocloud.dev/blob/fileblob"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/blob/bloburl"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/sse"
)

// createRing makes what an administrator makes once: a root key, and a ring under it.
func createRing(dir string) {
	rootKey := make([]byte, 32)
	rand.Read(rootKey)
	if err := os.WriteFile(filepath.Join(dir, "root.key"), rootKey, 0o600); err != nil {
		log.Fatal(err)
	}
	root, err := keyring.NewKeyRoot(rootKey)
	if err != nil {
		log.Fatal(err)
	}
	store, err := keyring.NewFileStore(filepath.Join(dir, "photos.ring"))
	if err != nil {
		log.Fatal(err)
	}
	if _, err := keyring.Create(context.Background(), store, root, nil); err != nil {
		log.Fatal(err)
	}
}

// A service opens the bucket that its configuration names, as it did before the bucket
// was encrypted.
func Example() {
	keys, err := os.MkdirTemp("", "keys")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(keys)
	createRing(keys)
	objects, err := os.MkdirTemp("", "objects")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(objects)
	// The service's configuration, such as
	// blobseal+s3://photos?region=eu-west-1&ring=/etc/photos.ring&root_key_file=/etc/root.key
	config := "blobseal+file://" + filepath.ToSlash(objects) + "?" + url.Values{
		"name":          {"photos"},
		"ring":          {filepath.Join(keys, "photos.ring")},
		"root_key_file": {filepath.Join(keys, "root.key")},
	}.Encode()

	ctx := context.Background()
	bucket, err := gcblob.OpenBucket(ctx, config)
	if err != nil {
		log.Fatal(err)
	}
	defer bucket.Close()
	if err := bucket.WriteAll(ctx, "cat.txt", []byte("a picture of a cat"), nil); err != nil {
		log.Fatal(err)
	}
	picture, err := bucket.ReadAll(ctx, "cat.txt")
	if err != nil {
		log.Fatal(err)
	}
	var encrypted *blob.Bucket // for jobs, and for requests with keys of their own
	fmt.Printf("%s, %v\n", picture, bucket.As(&encrypted))
	// Output: a picture of a cat, true
}

// A service has a cipher of its own, and URLs that say only where the objects are.
func ExampleURLOpener() {
	ctx := context.Background()
	root, err := keyring.NewKeyRoot(bytes.Repeat([]byte{1}, 32)) // from your secret store
	if err != nil {
		log.Fatal(err)
	}
	ring, err := keyring.Create(ctx, keyring.NewMemStore(), root, nil) // elsewhere: keyring.Open
	if err != nil {
		log.Fatal(err)
	}
	var mux gcblob.URLMux
	mux.RegisterBucket("blobseal+mem", &bloburl.URLOpener{Cipher: sse.NewManaged(ring)})

	bucket, err := mux.OpenBucket(ctx, "blobseal+mem://?name=photos")
	if err != nil {
		log.Fatal(err)
	}
	defer bucket.Close()
	if err := bucket.WriteAll(ctx, "cat.txt", []byte("a picture of a cat"), nil); err != nil {
		log.Fatal(err)
	}
	attrs, err := bucket.Attributes(ctx, "cat.txt")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(attrs.Size, "bytes")
	// Output: 18 bytes
}
