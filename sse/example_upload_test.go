package sse_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/blobseal/blobseal/sse"
)

// uploader puts objects in a store that wants their size beforehand, as most stores do.
type uploader struct {
	cipher sse.Cipher
	store  string // URL
}

// put uploads src, of size bytes, as it is read. If src fails, the request fails with the
// same error and the store keeps nothing.
func (u *uploader) put(ctx context.Context, key string, src io.Reader, size int64) error {
	const envelopeSize = 1024
	body, err := sse.NewEncryptingReader(ctx, src, u.cipher, sse.Object{Bucket: "photos", Key: key},
		&sse.WriterOptions{EnvelopeSize: envelopeSize})
	if err != nil {
		return err
	}
	stored, err := sse.CiphertextSize(size)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, u.store+"/"+key, body)
	if err != nil {
		return err
	}
	req.ContentLength = envelopeSize + stored
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("upload %s: %s", key, resp.Status)
	}
	return nil
}

// A service uploads through a client that takes an io.Reader.
func ExampleNewEncryptingReader() {
	var stored bytes.Buffer
	store := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		io.Copy(&stored, req.Body)
		fmt.Println(req.Method, req.URL.Path, req.ContentLength, "bytes")
	}))
	defer store.Close()

	ctx := context.Background()
	u := &uploader{cipher: sse.NewManaged(exampleRing()), store: store.URL}
	picture := "a picture of a cat"
	if err := u.put(ctx, "cat.jpg", strings.NewReader(picture), int64(len(picture))); err != nil {
		log.Fatal(err)
	}

	r, err := sse.NewReader(ctx, &stored, u.cipher, sse.Object{Bucket: "photos", Key: "cat.jpg"})
	if err != nil {
		log.Fatal(err)
	}
	plaintext, err := io.ReadAll(r)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s\n", plaintext)
	// Output:
	// PUT /cat.jpg 1058 bytes
	// a picture of a cat
}
