package audit_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/mod/sumdb/note"

	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/audit"
	"github.com/blobseal/blobseal/kms/cache"
	"github.com/blobseal/blobseal/kms/kmstest"
)

// Every use leaves a record, including those that a cache answers and those that
// are refused.
func ExampleNewClient() {
	dir, err := os.MkdirTemp("", "audit")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "audit.jsonl")
	sink, err := audit.OpenFileSink(path, nil)
	if err != nil {
		log.Fatal(err)
	}

	service := kmstest.NewFake("photos-key") // stands in for a real key service
	writer, reader := kms.Principal{ID: "writer"}, kms.Principal{ID: "reader"}
	service.Deny(writer, kms.OpDecrypt)
	client := audit.NewClient(cache.New(service, nil), sink)

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

	for e, err := range audit.Read(path, nil) {
		if err != nil {
			log.Fatal(err)
		}
		r := e.Record
		fmt.Printf("%d %s %s %s: %s, cached: %v\n",
			e.Seq, r.Principal.ID, r.Operation, r.Resource, strings.TrimSpace(r.Outcome+" "+r.ErrorCode), r.Cached)
	}
	// Output:
	// writer reads: kms: Decrypt with key "arn:kmstest:kms:test:111122223333:key/photos-key": access denied to "writer"
	// reader reads: <nil>
	// 1 writer GenerateDataKey photos/cat.jpg: success, cached: false
	// 2 writer GenerateDataKey photos/dog.jpg: success, cached: true
	// 3 writer Decrypt photos/cat.jpg: failure Denied, cached: false
	// 4 reader Decrypt photos/cat.jpg: success, cached: false
}

// Verify names the first line that was edited.
func ExampleVerify() {
	dir, err := os.MkdirTemp("", "audit")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "audit.jsonl")
	sink, err := audit.OpenFileSink(path, nil)
	if err != nil {
		log.Fatal(err)
	}
	client := audit.NewClient(kmstest.NewFake("key"), sink)
	for _, who := range []string{"alice", "mallory", "bob"} {
		ctx := kms.WithPrincipal(context.Background(), kms.Principal{ID: who})
		if _, err := client.GenerateDataKey(ctx, "key", nil); err != nil {
			log.Fatal(err)
		}
	}
	anchor := sink.Last() // keep it on another machine
	if err := sink.Close(); err != nil {
		log.Fatal(err)
	}

	found, err := audit.Verify(path, &audit.VerifyOptions{Last: &anchor})
	fmt.Println(found.Records, "records,", err)

	if err := replaceInFile(path, "mallory", "alice"); err != nil {
		log.Fatal(err)
	}
	_, err = audit.Verify(path, nil)
	if broken, ok := errors.AsType[*audit.ChainError](err); ok {
		fmt.Printf("entry %d is %s: %s, line %d\n", broken.Seq, broken.Kind, filepath.Base(broken.File), broken.Line)
	}
	// Output:
	// 3 records, <nil>
	// entry 2 is edited: audit.jsonl, line 2
}

// Write records to the log of your service.
func ExampleNewSlogSink() {
	logger := slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr { // omit what changes with each run
			switch a.Key {
			case "time", "eventTime", "eventID", "requestID":
				return slog.Attr{}
			}
			return a
		},
	}))
	client := audit.NewClient(kmstest.NewFake("key"), audit.NewSlogSink(logger))
	ctx := kms.WithPrincipal(context.Background(), kms.Principal{ID: "alice", Type: "User"})
	if _, err := client.GenerateDataKey(ctx, "key", kms.Context{"blobseal:object": "photos/cat.jpg"}); err != nil {
		log.Fatal(err)
	}
	// Output:
	// level=INFO msg="kms audit" userIdentity.id=alice userIdentity.type=User eventName=GenerateDataKey requestedKeyId=key keyId=arn:kmstest:kms:test:111122223333:key/key keyMaterialId=1 encryptionContext.blobseal:object=photos/cat.jpg resource=photos/cat.jpg outcome=success cached=false
}

// Sign checkpoints, so that an attacker who can write the files cannot rewrite the
// trail unnoticed.
func ExampleNewSigner() {
	dir, err := os.MkdirTemp("", "audit")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "audit.jsonl")

	// Once: give the signer key to the service as you give it its root key, and
	// publish the verifier key.
	signerKey, verifierKey, err := note.GenerateKey(rand.Reader, "photos.example.com/audit")
	if err != nil {
		log.Fatal(err)
	}

	// In the service:
	signer, err := audit.NewSigner(signerKey)
	if err != nil {
		log.Fatal(err)
	}
	sink, err := audit.OpenFileSink(path, &audit.FileSinkOptions{Signer: signer})
	if err != nil {
		log.Fatal(err)
	}
	client := audit.NewClient(kmstest.NewFake("key"), sink)
	if _, err := client.GenerateDataKey(context.Background(), "key", nil); err != nil {
		log.Fatal(err)
	}
	if err := sink.Close(); err != nil {
		log.Fatal(err)
	}

	// Anyone with the verifier key:
	verifier, err := note.NewVerifier(verifierKey)
	if err != nil {
		log.Fatal(err)
	}
	found, err := audit.Verify(path, &audit.VerifyOptions{Verifier: verifier})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%d record; entries up to %d of %d are signed\n", found.Records, found.Signed.Seq, found.Last.Seq)
	// Output:
	// 1 record; entries up to 2 of 3 are signed
}
