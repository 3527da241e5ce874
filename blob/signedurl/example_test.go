package signedurl_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"time"

	gcblob "gocloud.dev/blob"
	"gocloud.dev/blob/memblob"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/blob/signedurl"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/sse"
)

// A photo service shares encrypted photos by link.
func Example() {
	ctx := context.Background()
	server := httptest.NewUnstartedServer(nil)
	defer server.Close()
	base := &url.URL{Scheme: "http", Host: server.Listener.Addr().String(), Path: "/shared"}

	signer, err := signedurl.NewSigner(base, loadSecret(), nil)
	check(err)
	bucket, err := blob.NewBucket(memblob.OpenBucket(nil), "photos", sse.NewManaged(openRing(ctx)), &blob.Options{Signer: signer})
	check(err)
	defer bucket.Close()

	mux := http.NewServeMux()
	mux.Handle("/shared/", signedurl.NewHandler(bucket.Bucket, signer, nil))
	server.Config.Handler = mux
	server.Start()

	check(bucket.WriteAll(ctx, "2026/cat.txt", []byte("a picture of a cat"), nil))
	link, err := bucket.SignedURL(ctx, "2026/cat.txt", &gcblob.SignedURLOptions{Expiry: 10 * time.Minute})
	check(err)

	fmt.Println(get(link))
	fmt.Println(get(strings.Replace(link, "obj=2026%2Fcat", "obj=2026%2Fdog", 1)))
	// Output:
	// 200 OK: a picture of a cat
	// 403 Forbidden: SignatureDoesNotMatch
}

// A link that stores one photo of at most 10 MiB and nothing else. To sign, a
// service needs neither the bucket nor its keys.
func ExampleSigner_Sign() {
	base, err := url.Parse("https://photos.example/shared")
	check(err)
	signer, err := signedurl.NewSigner(base, loadSecret(), nil)
	check(err)
	link, err := signer.Sign(&signedurl.Permit{
		Method:      http.MethodPut,
		Key:         "2026/cat.jpg",
		ContentType: "image/jpeg",
		MaxSize:     10 << 20,
		Expires:     time.Now().Add(time.Minute),
	})
	check(err)
	fmt.Println(link.Host, link.Path)

	r := httptest.NewRequest(http.MethodPut, link.String(), nil)
	r.Header.Set("Content-Type", "image/jpeg")
	permit, err := signer.Verify(r)
	check(err)
	fmt.Println(permit.Method, permit.Key, permit.MaxSize)

	r.Header.Set("Content-Type", "text/html")
	_, err = signer.Verify(r)
	fmt.Println(err)
	// Output:
	// photos.example /shared/cat.jpg
	// PUT 2026/cat.jpg 10485760
	// signedurl: request refused: URL is for Content-Type "image/jpeg"
}

// loadSecret stands for reading 32 random bytes that all servers share.
func loadSecret() []byte {
	secret := make([]byte, 32)
	rand.Read(secret)
	return secret
}

// openRing stands for opening the service's key ring.
func openRing(ctx context.Context) *keyring.Ring {
	root, err := keyring.NewKeyRoot(loadSecret())
	check(err)
	ring, err := keyring.Create(ctx, keyring.NewMemStore(), root, nil)
	check(err)
	return ring
}

// get returns the status of a response, and its body or error code.
func get(link string) string {
	resp, err := http.Get(link)
	check(err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	check(err) // also if the object proves to be damaged
	if code := resp.Header.Get(signedurl.ErrorCodeHeader); code != "" {
		body = []byte(code)
	}
	return resp.Status + ": " + string(body)
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
