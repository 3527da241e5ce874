package gcpkms_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	google "cloud.google.com/go/kms/apiv1"
	"cloud.google.com/go/kms/apiv1/kmspb"

	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/gcpkms"
	"github.com/blobseal/blobseal/kms/gcpkms/gcpkmstest"
)

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
