package kms_test

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"
	"log"

	"github.com/blobseal/blobseal/kms"
)

// vault is a client of your own. A real one calls a service; this one has its keys in
// memory. Test yours with package kmstest.
type vault struct {
	keys map[string]cipher.AEAD
}

var _ kms.Client = (*vault)(nil)

func (v *vault) key(ctx context.Context, op kms.Operation, keyID string) (cipher.AEAD, error) {
	if err := ctx.Err(); err != nil {
		return nil, kms.CallError(ctx, op, keyID, nil, err)
	}
	key, ok := v.keys[keyID]
	if !ok {
		return nil, kms.CallError(ctx, op, keyID, nil, kms.ErrNotFound)
	}
	kms.ReportFrom(ctx).KeyID = keyID // for the audit trail
	return key, nil
}

func (v *vault) GenerateDataKey(ctx context.Context, keyID string, ec kms.Context) (*kms.DataKey, error) {
	key, err := v.key(ctx, kms.OpGenerateDataKey, keyID)
	if err != nil {
		return nil, err
	}
	plaintext := make([]byte, kms.DataKeySize)
	defer clear(plaintext) // NewDataKey copies it
	rand.Read(plaintext)
	return kms.NewDataKey(keyID, plaintext, key.Seal(nil, nil, plaintext, ec.AssociatedData()))
}

func (v *vault) Decrypt(ctx context.Context, keyID string, ciphertext []byte, ec kms.Context) ([]byte, error) {
	key, err := v.key(ctx, kms.OpDecrypt, keyID)
	if err != nil {
		return nil, err
	}
	plaintext, err := key.Open(nil, nil, ciphertext, ec.AssociatedData())
	if err != nil {
		return nil, kms.CallError(ctx, kms.OpDecrypt, keyID, nil, kms.ErrCiphertext)
	}
	return plaintext, nil
}

// Write a client for a key service that blobseal does not support.
func ExampleClient() {
	key := make([]byte, 32)
	rand.Read(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		log.Fatal(err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		log.Fatal(err)
	}
	client := &vault{keys: map[string]cipher.AEAD{"photos-key": aead}}

	ctx := context.Background()
	ec := kms.Context{"team": "blue"}
	dk, err := client.GenerateDataKey(ctx, "photos-key", ec)
	if err != nil {
		log.Fatal(err)
	}
	_, err = client.Decrypt(ctx, dk.KeyID, dk.Ciphertext, ec)
	fmt.Println("the same context:", err)
	_, err = client.Decrypt(ctx, dk.KeyID, dk.Ciphertext, kms.Context{"team": "red"})
	fmt.Println("another context:", errors.Is(err, kms.ErrCiphertext))
	_, err = client.Decrypt(ctx, "videos-key", dk.Ciphertext, ec)
	fmt.Println("no such key:", errors.Is(err, kms.ErrNotFound))
	// Output:
	// the same context: <nil>
	// another context: true
	// no such key: true
}
