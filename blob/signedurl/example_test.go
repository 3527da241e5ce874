package signedurl_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"time"

	gcblob "gocloud.dev/blob"
	"gocloud.dev/blob/driver"
	"gocloud.dev/blob/memblob"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/blob/signedurl"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/sse"
)

// A shared link to an encrypted photo. Whoever has it needs no key and no account.
func ExampleNewHandler() {
	ctx := context.Background()
	root, err := keyring.NewKeyRoot(make([]byte, 32)) // from your secret store
	if err != nil {
		log.Fatal(err)
	}
	ring, err := keyring.Open(ctx, keyring.NewMemStore(), root, &keyring.Options{Create: true})
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	server := httptest.NewServer(mux)
	defer server.Close()

	base, err := url.Parse(server.URL + "/shared")
	if err != nil {
		log.Fatal(err)
	}
	signer, err := signedurl.NewSigner(base, make([]byte, 32), nil) // from your secret store
	if err != nil {
		log.Fatal(err)
	}
	bucket, err := blob.NewBucket(memblob.OpenBucket(nil), "photos", sse.NewManaged(ring), &blob.Options{Signer: signer})
	if err != nil {
		log.Fatal(err)
	}
	defer bucket.Close()
	mux.Handle("/shared", signedurl.NewHandler(bucket.Bucket, signer, nil))

	if err := bucket.WriteAll(ctx, "2026/cat.txt", []byte("a picture of a cat"), nil); err != nil {
		log.Fatal(err)
	}
	link, err := bucket.SignedURL(ctx, "2026/cat.txt", &gcblob.SignedURLOptions{Expiry: 10 * time.Minute})
	if err != nil {
		log.Fatal(err)
	}

	get := func(link, ranges string) {
		req, err := http.NewRequest("GET", link, nil)
		if err != nil {
			log.Fatal(err)
		}
		req.Header.Set("Range", ranges)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			log.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			log.Fatal(err) // as for every damaged object
		}
		fmt.Println(resp.Status, strings.TrimSpace(string(body)))
	}
	get(link, "")
	get(link, "bytes=-3")
	get(strings.Replace(link, "cat", "dog", 1), "")
	// Output:
	// 200 OK a picture of a cat
	// 206 Partial Content cat
	// 403 Forbidden Forbidden
}

// An upload that can store one thing only: this object, as plain text, in the next
// minute. The signer needs no bucket: any part of a service may sign.
func ExampleSigner() {
	base, err := url.Parse("https://photos.example/shared")
	if err != nil {
		log.Fatal(err)
	}
	now, before := make([]byte, 32), []byte("the secret of the last quarter..")
	signer, err := signedurl.NewSigner(base, now, &signedurl.SignerOptions{
		Accept: [][]byte{before}, // its URLs are good until they expire
		Now:    func() time.Time { return time.Unix(1_800_000_000, 0) },
	})
	if err != nil {
		log.Fatal(err)
	}
	link, err := signer.SignedURL(context.Background(), "notes/today", &driver.SignedURLOptions{
		Method:      http.MethodPut,
		ContentType: "text/plain",
		Expiry:      time.Minute,
	})
	if err != nil {
		log.Fatal(err)
	}
	for _, param := range strings.Split(link, "&") {
		fmt.Println(param)
	}

	r := httptest.NewRequest(http.MethodPut, link, nil)
	r.Header.Set("Content-Type", "text/plain")
	permit, err := signer.Verify(r)
	fmt.Println(permit.Key, err)

	r.Header.Set("Content-Type", "text/html")
	_, err = signer.Verify(r)
	fmt.Println(err)
	// Output:
	// https://photos.example/shared?contentType=text%2Fplain
	// expiry=1800000060
	// kid=qCDjcU6Q
	// method=PUT
	// obj=notes%2Ftoday
	// signature=9OCDBMkiAqppPCMAwMMqLg0jrbh3_gT1mzmfOw2d5gM
	// notes/today <nil>
	// signedurl: not allowed by a signed URL: it is for another content type
}
