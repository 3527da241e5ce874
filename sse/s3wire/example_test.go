package s3wire_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"log"

	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/cache"
	"github.com/blobseal/blobseal/kms/localkms"
	"github.com/blobseal/blobseal/sse"
	"github.com/blobseal/blobseal/sse/s3wire"
)

// newKeys returns the keys of a service on embedded defaults: a ring, and an
// embedded key service behind a cache. A real service keeps both in files or in a
// database.
func newKeys() (*s3wire.Keys, error) {
	ctx := context.Background()
	rootKey := make([]byte, 32)
	rand.Read(rootKey)
	root, err := keyring.NewKeyRoot(rootKey)
	if err != nil {
		return nil, err
	}
	ring, err := keyring.Create(ctx, keyring.NewMemStore(), root, nil)
	if err != nil {
		return nil, err
	}
	service, err := localkms.Create(ctx, keyring.NewMemStore(), root, nil)
	if err != nil {
		return nil, err
	}
	client, err := service.Client("", "")
	if err != nil {
		return nil, err
	}
	return s3wire.NewKeys(s3wire.KeysOptions{
		Managed:    sse.NewManaged(ring),
		KMS:        cache.New(client, nil), // serves objects with a bucket key
		DefaultKey: localkms.DefaultAlias,
		Accept:     sse.AnyKey, // requests may name each key that the requester may use
	})
}

func ExampleNewKeys() {
	keys, err := newKeys()
	if err != nil {
		log.Fatal(err)
	}
	cipher, err := keys.ForWrite(&s3wire.Write{Algorithm: s3wire.AWSKMS}, nil)
	fmt.Println(cipher.Mode(), err)
	// Output: SSE-KMS <nil>
}

func ExampleFromError() {
	err := fmt.Errorf("reading the object: %w", &kms.KeyError{Op: kms.OpDecrypt, KeyID: "photos", Err: kms.ErrDisabled})
	answer := s3wire.FromError(err)
	fmt.Println(answer.Status(), answer.Code, "-", answer.ClientMessage())
	fmt.Println(answer)
	// Output:
	// 400 KMS.DisabledException - The KMS key is disabled.
	// s3wire: KMS.DisabledException: reading the object: kms: Decrypt with key "photos": key is disabled
}
