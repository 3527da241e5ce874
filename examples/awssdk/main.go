// Awssdk is a service on the AWS SDK for Go that encrypts the files of its tenants, each
// tenant's under a key of its own, and serves ranges of them. service.go is all that
// such a service needs; this file starts it, with a fake S3 and a key service in this
// process, and uses it. It needs nothing but Go, and fails if anything is not as it
// says:
//
//	go run ./examples/awssdk
package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"

	"github.com/blobseal/blobseal/blob/awss3"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/localkms"
	"github.com/blobseal/blobseal/sse"
)

// main is long because it is one session, to be read from top to bottom.
func main() {
	log.SetFlags(0)
	ctx := kms.WithPrincipal(context.Background(), kms.Principal{ID: "files-service"})

	// A key service with one key for each tenant. A real service has awskms in its place.
	dir, err := os.MkdirTemp("", "blobseal-awssdk-")
	check(err)
	defer os.RemoveAll(dir)
	keys := newKeys(ctx, dir)
	tenants := map[string]string{} // ids of keys
	for _, tenant := range []string{"acme", "globex"} {
		key, err := keys.CreateKey(ctx, nil)
		check(err)
		check(keys.CreateAlias(ctx, "alias/"+tenant, key.ID))
		tenants[tenant] = key.ID
		fmt.Printf("key:    alias/%s is %s\n", tenant, key.ID)
	}

	// The store: the SDK's own client, here of a fake S3.
	fake := httptest.NewServer(gofakes3.New(s3mem.New()).Server())
	defer fake.Close()
	store := s3.New(s3.Options{
		Region: "us-east-1", BaseEndpoint: &fake.URL, UsePathStyle: true,
		Credentials: credentials.NewStaticCredentialsProvider("fake", "fake", ""),
		// The fake states the checksum of the object with a part of it.
		ResponseChecksumValidation: aws.ResponseChecksumValidationWhenRequired,
	})
	bucket := "files"
	_, err = store.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: &bucket})
	check(err)

	// The service. Each tenant has a cipher of its own, so the client's opens nothing.
	none, err := sse.NewKMS(keys, "", &sse.KMSOptions{Accept: func(string) bool { return false }})
	check(err)
	client, err := awss3.New(store, none, nil)
	check(err)
	mux := http.NewServeMux()
	mux.Handle("/{tenant}/{name...}", &service{bucket: bucket, client: client, keys: keys})
	server := httptest.NewServer(asPrincipal(ctx, mux))
	defer server.Close()

	text := strings.Repeat("the minutes of a meeting. ", 40_000)
	for tenant := range tenants {
		status, _ := call(http.MethodPut, server.URL+"/"+tenant+"/minutes.txt", "", text)
		ensure(status == http.StatusOK, "PUT was answered %d", status)
	}
	fmt.Printf("put:    2 files of %d bytes\n", len(text))

	stored, err := store.GetObject(ctx, &s3.GetObjectInput{Bucket: &bucket, Key: aws.String("acme/minutes.txt")})
	check(err)
	cipher, err := io.ReadAll(stored.Body)
	check(err)
	ensure(!bytes.Contains(cipher, []byte("minutes of a meeting")), "the store holds plaintext")
	fmt.Printf("stored: %d bytes of ciphertext\n", len(cipher))

	status, body := call(http.MethodGet, server.URL+"/acme/minutes.txt", "bytes=499984-499990", "")
	ensure(status == http.StatusPartialContent && body == text[499984:499991], "the range was answered %d, %q", status, body)
	fmt.Printf("range:  %q\n", body)
	status, body = call(http.MethodGet, server.URL+"/acme/minutes.txt", "", "")
	ensure(status == http.StatusOK && body == text, "GET was answered %d", status)

	// A file that somebody moved from one tenant to another does not open.
	_, err = store.CopyObject(ctx, &s3.CopyObjectInput{Bucket: &bucket, Key: aws.String("globex/stolen.txt"), CopySource: aws.String(bucket + "/acme/minutes.txt")})
	check(err)
	status, body = call(http.MethodGet, server.URL+"/globex/stolen.txt", "", "")
	ensure(status == http.StatusForbidden, "a moved file was answered %d", status)
	fmt.Printf("moved:  %d %s", status, body)

	// Without its key, a tenant's files are gone, and only that tenant's.
	check(keys.DisableKey(ctx, tenants["acme"]))
	status, body = call(http.MethodGet, server.URL+"/acme/minutes.txt", "", "")
	ensure(status == http.StatusForbidden, "a disabled key was answered %d", status)
	fmt.Printf("acme:   %d %s", status, body)
	status, _ = call(http.MethodGet, server.URL+"/globex/minutes.txt", "", "")
	ensure(status == http.StatusOK, "the other tenant was answered %d", status)
	fmt.Printf("globex: %d\n", status)
}

// newKeys returns a key service with its keys in a file of dir.
func newKeys(ctx context.Context, dir string) *localkms.Client {
	rootKey := make([]byte, 32)
	rand.Read(rootKey)
	root, err := keyring.NewKeyRoot(rootKey)
	check(err)
	file, err := keyring.NewFileStore(filepath.Join(dir, "keys"))
	check(err)
	keys, err := localkms.Create(ctx, file, root, nil)
	check(err)
	client, err := keys.Client("", "")
	check(err)
	return client
}

// asPrincipal gives each request the principal in ctx.
func asPrincipal(ctx context.Context, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r.WithContext(kms.WithPrincipal(r.Context(), kms.PrincipalFrom(ctx))))
	})
}

// call asks the service and returns what it answers.
func call(method, url, rng, text string) (status int, body string) {
	request, err := http.NewRequest(method, url, strings.NewReader(text))
	check(err)
	if rng != "" {
		request.Header.Set("Range", rng)
	}
	response, err := http.DefaultClient.Do(request)
	check(err)
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	check(err)
	return response.StatusCode, string(data)
}

func ensure(ok bool, format string, args ...any) {
	if !ok {
		log.Fatalf(format, args...)
	}
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
