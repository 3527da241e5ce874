package tinkkms_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	"github.com/tink-crypto/tink-go/v2/testing/fakekms"

	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/tinkkms"
)

// A key service of Tink's: a test's here, and otherwise of tink-go-awskms,
// tink-go-gcpkms or tink-go-hcvault.
func ExampleNewFromKMSClient() {
	service, err := fakekms.NewClient("fake-kms://")
	if err != nil {
		log.Fatal(err)
	}
	keyURI, err := fakekms.NewKeyURI()
	if err != nil {
		log.Fatal(err)
	}
	client, err := tinkkms.NewFromKMSClient(service, nil)
	if err != nil {
		log.Fatal(err)
	}

	ctx := context.Background()
	ec := kms.Context{"blobseal:object": "photos/cat.jpg"}
	key, err := client.GenerateDataKey(ctx, keyURI, ec)
	if err != nil {
		log.Fatal(err)
	}
	plaintext, err := client.Decrypt(ctx, key.KeyID, key.Ciphertext, ec)
	fmt.Println(len(plaintext), err)

	_, err = client.Decrypt(ctx, key.KeyID, key.Ciphertext, kms.Context{"blobseal:object": "photos/dog.jpg"})
	fmt.Println(errors.Is(err, kms.ErrCiphertext))
	// Output:
	// 32 <nil>
	// true
}

// One AEAD under a name: here the AEAD of a Tink test key, with a classifier for
// the errors of its service.
func ExampleNew() {
	keyURI, err := fakekms.NewKeyURI()
	if err != nil {
		log.Fatal(err)
	}
	aead, err := fakekms.NewAEADWithContext(keyURI)
	if err != nil {
		log.Fatal(err)
	}
	errThrottled := errors.New("an error of the service's SDK")
	client, err := tinkkms.New(aead, "photos-key", &tinkkms.Options{
		Classify: func(_ kms.Operation, err error) error {
			if errors.Is(err, errThrottled) {
				return kms.ErrUnavailable
			}
			return nil
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	key, err := client.GenerateDataKey(context.Background(), "photos-key", nil)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("data key under", key.KeyID)
	// Output: data key under photos-key
}
