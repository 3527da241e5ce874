package awskms_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/awskms"
	"github.com/blobseal/blobseal/kms/awskms/awskmstest"
	"github.com/blobseal/blobseal/sse"
)

// SSE-KMS over AWS KMS. The SDK's client is a test's here, and otherwise
// kms.NewFromConfig(config).
func Example() {
	aws := awskmstest.NewServer()
	defer aws.Close()
	keyARN := aws.CreateKey()
	aws.SetAlias("alias/photos", keyARN)

	client, err := awskms.New(aws.Client("AKIAEXAMPLE"), nil)
	if err != nil {
		log.Fatal(err)
	}
	mode, err := sse.NewKMS(client, "alias/photos", nil)
	if err != nil {
		log.Fatal(err)
	}
	encryption, err := mode.Encrypt(context.Background(), sse.Object{Bucket: "photos", Key: "cat.jpg"})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(mode.Mode(), encryption.Envelope().KeyID() == keyARN) // never the alias
	// Output: SSE-KMS true
}

// A data key of AWS KMS, and a key that is disabled.
func ExampleNew() {
	aws := awskmstest.NewServer()
	defer aws.Close()
	keyARN := aws.CreateKey()

	client, err := awskms.New(aws.Client("AKIAEXAMPLE"), nil)
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	ec := kms.Context{"blobseal:object": "photos/cat.jpg"}
	key, err := client.GenerateDataKey(ctx, keyARN, ec)
	if err != nil {
		log.Fatal(err)
	}
	_, err = client.Decrypt(ctx, key.KeyID, key.Ciphertext, kms.Context{"blobseal:object": "photos/dog.jpg"})
	fmt.Println(errors.Is(err, kms.ErrCiphertext))

	aws.SetState(keyARN, awskmstest.Disabled)
	_, err = client.Decrypt(ctx, key.KeyID, key.Ciphertext, ec)
	fmt.Println(errors.Is(err, kms.ErrDisabled))
	// Output:
	// true
	// true
}

// Objects of a multi-Region key, read in the region of its replica.
func ExampleOptions_replicaRegion() {
	aws := awskmstest.NewServer() // whose region is us-east-1
	defer aws.Close()
	client, err := awskms.New(aws.Client("AKIAEXAMPLE"), &awskms.Options{ReplicaRegion: awskmstest.Region})
	if err != nil {
		log.Fatal(err)
	}
	const stored = "arn:aws:kms:eu-west-1:111122223333:key/mrk-1234abcd12ab34cd56ef1234567890ab"
	report := new(kms.Report)
	_, err = client.Decrypt(kms.WithReport(context.Background(), report), stored, []byte("ciphertext"), nil)
	fmt.Println(errors.Is(err, kms.ErrNotFound), report.KeyID) // asked here, where there is no replica
	// Output: true arn:aws:kms:us-east-1:111122223333:key/mrk-1234abcd12ab34cd56ef1234567890ab
}
