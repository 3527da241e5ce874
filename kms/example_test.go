package kms_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/kmstest"
)

// A service says in each request's ctx who asks, out of its own authentication. A
// request without one asks as nobody: key policies should not let nobody in.
func ExampleWithPrincipal() {
	service := kmstest.NewFake("photos-key")             // stands for a real one
	service.Deny(kms.Principal{})                        // nobody
	service.Deny(kms.Principal{ID: "bob", Type: "User"}) // and bob
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := r.Context()
		if user, _, ok := r.BasicAuth(); ok { // and if the password is right
			ctx = kms.WithPrincipal(ctx, kms.Principal{ID: user, Type: "User"})
		}
		_, err := service.GenerateDataKey(ctx, "photos-key", nil) // as sse.KMS does
		if errors.Is(err, kms.ErrDenied) {
			w.WriteHeader(http.StatusForbidden)
		}
	})

	for _, user := range []string{"alice", "bob", ""} {
		r := httptest.NewRequest(http.MethodPut, "/cat.jpg", nil)
		if user != "" {
			r.SetBasicAuth(user, "secret")
		}
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		fmt.Printf("%q: %d\n", user, w.Code)
	}
	// Output:
	// "alice": 200
	// "bob": 403
	// "": 403
}

// One call to the key service for many objects of a bucket, and a key that is
// disabled at once.
func ExampleNewCache() {
	service := kmstest.NewFake("photos-key") // stands for a real one
	cache := kms.NewCache(kmstest.Authorizing{Fake: service}, &kms.CacheOptions{
		MaxAge: time.Minute,
		Outage: kms.ServeReads(time.Hour), // reads go on while the service is down
	})
	defer cache.Close()

	ctx := kms.WithPrincipal(context.Background(), kms.Principal{ID: "uploader", Type: "Service"})
	bucket := kms.Context{"blobseal:object": "photos"}
	for range 1000 {
		if _, err := cache.GenerateDataKey(ctx, "photos-key", bucket); err != nil {
			log.Fatal(err)
		}
	}
	fmt.Println("calls:", service.Count())

	service.Disable("photos-key")
	_, err := cache.GenerateDataKey(ctx, "photos-key", bucket)
	fmt.Println(errors.Is(err, kms.ErrDisabled))
	// Output:
	// calls: 1
	// true
}

// Every use leaves a record, also those that a cache answers and those that are
// refused.
func ExampleNewAudited() {
	dir, err := os.MkdirTemp("", "audit")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "audit.jsonl")
	sink, err := kms.OpenFileSink(path, nil)
	if err != nil {
		log.Fatal(err)
	}

	service := kmstest.NewFake("photos-key") // stands for a real one
	writer, reader := kms.Principal{ID: "writer"}, kms.Principal{ID: "reader"}
	service.Deny(writer, kms.OpDecrypt)
	client := kms.NewAudited(kms.NewCache(service, nil), sink, nil)

	bucket := kms.Context{"blobseal:object": "photos"}
	ctx := kms.WithPrincipal(context.Background(), writer)
	var key *kms.DataKey
	for _, object := range []string{"photos/cat.jpg", "photos/dog.jpg"} {
		key, err = client.GenerateDataKey(kms.WithResource(ctx, object), "photos-key", bucket)
		if err != nil {
			log.Fatal(err)
		}
	}
	for _, p := range []kms.Principal{writer, reader} {
		ctx := kms.WithResource(kms.WithPrincipal(ctx, p), "photos/cat.jpg")
		_, err := client.Decrypt(ctx, key.KeyID, key.Ciphertext, bucket)
		fmt.Printf("%s reads: %v\n", p.ID, err)
	}
	if err := sink.Close(); err != nil {
		log.Fatal(err)
	}

	for e, err := range kms.ReadFile(path, nil) {
		if err != nil {
			log.Fatal(err)
		}
		r := e.Record
		fmt.Printf("%d %s %s %s: %s, cached: %v\n",
			e.Seq, r.Principal.ID, r.Operation, r.Resource, strings.TrimSpace(string(r.Outcome)+" "+r.ErrorCode), r.Cached)
	}
	// Output:
	// writer reads: kms: access denied: "writer" may not Decrypt
	// reader reads: <nil>
	// 1 writer GenerateDataKey photos/cat.jpg: success, cached: false
	// 2 writer GenerateDataKey photos/dog.jpg: success, cached: true
	// 3 writer Decrypt photos/cat.jpg: failure Denied, cached: false
	// 4 reader Decrypt photos/cat.jpg: success, cached: false
}

// An edited line is found, and named.
func ExampleVerifyFile() {
	dir, err := os.MkdirTemp("", "audit")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "audit.jsonl")
	sink, err := kms.OpenFileSink(path, nil)
	if err != nil {
		log.Fatal(err)
	}
	client := kms.NewAudited(kmstest.NewFake("key"), sink, nil)
	for _, who := range []string{"alice", "mallory", "bob"} {
		ctx := kms.WithPrincipal(context.Background(), kms.Principal{ID: who})
		if _, err := client.GenerateDataKey(ctx, "key", nil); err != nil {
			log.Fatal(err)
		}
	}
	anchor := sink.Last() // to keep where the file's writer cannot reach it
	if err := sink.Close(); err != nil {
		log.Fatal(err)
	}

	found, err := kms.VerifyFile(path, &kms.VerifyOptions{Last: &anchor})
	fmt.Println(found.Records, "records,", err)

	if err := replaceInFile(path, "mallory", "alice"); err != nil {
		log.Fatal(err)
	}
	_, err = kms.VerifyFile(path, nil)
	if broken, ok := errors.AsType[*kms.ChainError](err); ok {
		fmt.Printf("entry %d is %s: %s, line %d\n", broken.Seq, broken.Kind, filepath.Base(broken.File), broken.Line)
	}
	// Output:
	// 3 records, <nil>
	// entry 2 is edited: audit.jsonl, line 2
}

// Records in the service's own log.
func ExampleNewSlogSink() {
	logger := slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr { // for an output that stays the same
			switch a.Key {
			case "time", "eventTime", "eventID", "requestID":
				return slog.Attr{}
			}
			return a
		},
	}))
	client := kms.NewAudited(kmstest.NewFake("key"), kms.NewSlogSink(logger), nil)
	ctx := kms.WithPrincipal(context.Background(), kms.Principal{ID: "alice", Type: "User"})
	if _, err := client.GenerateDataKey(ctx, "key", kms.Context{"blobseal:object": "photos/cat.jpg"}); err != nil {
		log.Fatal(err)
	}
	// Output:
	// level=INFO msg="kms audit" userIdentity.id=alice userIdentity.type=User eventName=GenerateDataKey requestedKeyId=key keyId=key keyMaterialId=1 encryptionContext.blobseal:object=photos/cat.jpg resource=photos/cat.jpg outcome=success cached=false
}
