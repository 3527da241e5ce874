package gcpkms_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"

	google "cloud.google.com/go/kms/apiv1"
	"cloud.google.com/go/kms/apiv1/kmspb"

	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/gcpkms"
	"github.com/blobseal/blobseal/kms/gcpkms/gcpkmstest"
	"github.com/blobseal/blobseal/sse"
)

// SSE-KMS over Google Cloud KMS. The server is a test's here; Google's client finds
// the real one without options.
func Example() {
	server, err := gcpkmstest.NewServer()
	if err != nil {
		log.Fatal(err)
	}
	defer server.Close()
	keyName := server.CreateKey("photos")

	ctx := context.Background()
	googleClient, err := google.NewKeyManagementClient(ctx, server.ClientOptions("me@example.com")...)
	if err != nil {
		log.Fatal(err)
	}
	defer googleClient.Close()
	client, err := gcpkms.New(googleClient)
	if err != nil {
		log.Fatal(err)
	}
	mode, err := sse.NewKMS(client, keyName, nil)
	if err != nil {
		log.Fatal(err)
	}

	obj := sse.Object{Bucket: "photos", Key: "cat.jpg"}
	var stored bytes.Buffer
	w, err := sse.NewWriter(ctx, &stored, mode, obj, nil)
	if err != nil {
		log.Fatal(err)
	}
	io.WriteString(w, "meow")
	if err := w.Close(); err != nil {
		log.Fatal(err)
	}

	r, err := sse.NewReader(ctx, &stored, mode, obj)
	if err != nil {
		log.Fatal(err)
	}
	text, err := io.ReadAll(r)
	fmt.Println(string(text), err)
	// Output: meow <nil>
}

// A data key under a key of Google's, whose version is then disabled.
func ExampleNew() {
	server, err := gcpkmstest.NewServer()
	if err != nil {
		log.Fatal(err)
	}
	defer server.Close()
	keyName := server.CreateKey("photos")

	ctx := context.Background()
	googleClient, err := google.NewKeyManagementClient(ctx, server.ClientOptions("me@example.com")...)
	if err != nil {
		log.Fatal(err)
	}
	defer googleClient.Close()
	client, err := gcpkms.New(googleClient)
	if err != nil {
		log.Fatal(err)
	}
	ec := kms.Context{"blobseal:object": "photos/cat.jpg"}
	var report kms.Report
	key, err := client.GenerateDataKey(kms.WithReport(ctx, &report), keyName, ec)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(key.KeyID, "version", report.KeyVersion)

	server.SetState(keyName, kmspb.CryptoKeyVersion_DISABLED)
	_, err = client.Decrypt(ctx, key.KeyID, key.Ciphertext, ec)
	fmt.Println(errors.Is(err, kms.ErrDisabled))
	// Output:
	// projects/test/locations/global/keyRings/test/cryptoKeys/photos version 1
	// true
}
