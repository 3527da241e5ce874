package localkms_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log"

	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/localkms"
)

// exampleClient opens a service in memory; a program has a keyring.NewFileStore and
// a root key of its own.
func exampleClient(ctx context.Context) *localkms.Client {
	root, err := keyring.NewKeyRoot(bytes.Repeat([]byte{1}, 32))
	if err != nil {
		log.Fatal(err)
	}
	service, err := localkms.Create(ctx, keyring.NewMemStore(), root, nil)
	if err != nil {
		log.Fatal(err)
	}
	client, err := service.Client("111122223333", "eu-1")
	if err != nil {
		log.Fatal(err)
	}
	return client
}

func Example() {
	ctx := context.Background()
	client := exampleClient(ctx)

	key, err := client.CreateKey(ctx, &localkms.CreateKeyInput{Description: "photos", RotationDays: 365})
	if err != nil {
		log.Fatal(err)
	}
	if err := client.CreateAlias(ctx, "alias/photos", key.ID); err != nil {
		log.Fatal(err)
	}

	ec := kms.Context{"bucket": "photos"}
	dk, err := client.GenerateDataKey(ctx, "alias/photos", ec)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("named by its ARN:", dk.KeyID == key.ARN)

	if _, err := client.RotateKey(ctx, key.ID); err != nil {
		log.Fatal(err)
	}
	plaintext, err := client.Decrypt(ctx, dk.KeyID, dk.Ciphertext, ec)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("decrypted after a rotation:", bytes.Equal(plaintext, dk.Plaintext()))

	if err := client.DisableKey(ctx, key.ID); err != nil {
		log.Fatal(err)
	}
	_, err = client.Decrypt(ctx, dk.KeyID, dk.Ciphertext, ec)
	fmt.Println("disabled:", errors.Is(err, kms.ErrDisabled))
	// Output:
	// named by its ARN: true
	// decrypted after a rotation: true
	// disabled: true
}

// One principal may write and not read, another may read and not write.
func ExampleClient_PutKeyPolicy() {
	ctx := context.Background()
	client := exampleClient(ctx)
	admin := kms.WithPrincipal(ctx, kms.Principal{ID: "admin"})
	writer := kms.WithPrincipal(ctx, kms.Principal{ID: "writer"})
	reader := kms.WithPrincipal(ctx, kms.Principal{ID: "reader"})

	key, err := client.CreateKey(admin, nil)
	if err != nil {
		log.Fatal(err)
	}
	err = client.PutKeyPolicy(admin, key.ID, `
		permit (principal == Principal::"writer", action == Action::"GenerateDataKey", resource);
		permit (principal == Principal::"reader", action == Action::"Decrypt", resource);
		permit (principal == Principal::"admin", action in Action::"Administer", resource);
	`, nil)
	if err != nil {
		log.Fatal(err)
	}

	dk, err := client.GenerateDataKey(writer, key.ID, nil)
	if err != nil {
		log.Fatal(err)
	}
	_, err = client.Decrypt(writer, key.ID, dk.Ciphertext, nil)
	fmt.Println("writer reads:", err == nil, errors.Is(err, kms.ErrDenied))
	_, err = client.Decrypt(reader, key.ID, dk.Ciphertext, nil)
	fmt.Println("reader reads:", err == nil)

	err = client.PutKeyPolicy(admin, key.ID, `permit (principal == Principal::"reader", action, resource);`, nil)
	fmt.Println("admin locked out:", errors.Is(err, localkms.ErrLockout))
	err = client.PutKeyPolicy(admin, key.ID, `permit (principal, action, resource`, nil)
	fmt.Println("parses:", !errors.Is(err, localkms.ErrPolicy))
	// Output:
	// writer reads: false true
	// reader reads: true
	// admin locked out: true
	// parses: false
}

// A grant lets a principal use a key for one tenant's objects.
func ExampleClient_CreateGrant() {
	ctx := context.Background()
	client := exampleClient(ctx)
	admin := kms.WithPrincipal(ctx, kms.Principal{ID: "admin"})
	backup := kms.WithPrincipal(ctx, kms.Principal{ID: "backup"})

	key, err := client.CreateKey(admin, &localkms.CreateKeyInput{
		Policy: `permit (principal == Principal::"admin", action, resource);`,
	})
	if err != nil {
		log.Fatal(err)
	}
	grant, err := client.CreateGrant(admin, key.ID, &localkms.CreateGrantInput{
		Grantee:       "backup",
		Operations:    []kms.Operation{kms.OpDecrypt},
		ContextSubset: kms.Context{"tenant": "7"},
	})
	if err != nil {
		log.Fatal(err)
	}

	fmt.Println(client.Authorize(backup, kms.OpDecrypt, key.ID, kms.Context{"tenant": "7", "object": "a"}) == nil)
	fmt.Println(client.Authorize(backup, kms.OpDecrypt, key.ID, kms.Context{"tenant": "8", "object": "a"}) == nil)
	if err := client.RevokeGrant(admin, key.ID, grant.ID); err != nil {
		log.Fatal(err)
	}
	fmt.Println(client.Authorize(backup, kms.OpDecrypt, key.ID, kms.Context{"tenant": "7", "object": "a"}) == nil)
	// Output:
	// true
	// false
	// false
}

func ExampleClient_ReEncrypt() {
	ctx := context.Background()
	client := exampleClient(ctx)
	from, err := client.CreateKey(ctx, nil)
	if err != nil {
		log.Fatal(err)
	}
	to, err := client.CreateKey(ctx, nil)
	if err != nil {
		log.Fatal(err)
	}
	ciphertext, err := client.Encrypt(ctx, from.ID, []byte("a token"), nil)
	if err != nil {
		log.Fatal(err)
	}
	moved, err := client.ReEncrypt(ctx, &localkms.ReEncryptInput{Ciphertext: ciphertext, SourceKeyID: from.ID, KeyID: to.ID})
	if err != nil {
		log.Fatal(err)
	}
	plaintext, err := client.Decrypt(ctx, to.ID, moved.Ciphertext, nil)
	fmt.Println(string(plaintext), err)
	// Output: a token <nil>
}
