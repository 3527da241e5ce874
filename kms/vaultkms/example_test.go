package vaultkms_test

import (
	"context"
	"fmt"
	"log"
	"net/http/httptest"

	vault "github.com/hashicorp/vault/api"

	"github.com/blobseal/blobseal/kms/vaultkms"
	"github.com/blobseal/blobseal/sse"
)

// Objects under a key of Transit. The server is a fake here, so that the example
// runs; otherwise it is where VAULT_ADDR says.
func Example() {
	server := httptest.NewServer(&fakeTransit{mounts: make(map[string]map[string]*fakeKey)})
	defer server.Close()

	config := vault.DefaultConfig()
	config.Address = server.URL
	v, err := vault.NewClient(config)
	if err != nil {
		log.Fatal(err)
	}
	v.SetToken(token)
	// What an administrator does, once:
	// vault secrets enable transit
	// vault write -f transit/keys/photos derived=true
	if err := v.Sys().Mount("transit", &vault.MountInput{Type: "transit"}); err != nil {
		log.Fatal(err)
	}
	if _, err := v.Logical().Write("transit/keys/photos", map[string]any{"derived": true}); err != nil {
		log.Fatal(err)
	}

	client, err := vaultkms.New(v, nil)
	if err != nil {
		log.Fatal(err)
	}
	mode, err := sse.NewKMS(client, "photos", nil)
	if err != nil {
		log.Fatal(err)
	}
	encryption, err := mode.Encrypt(context.Background(), sse.Object{Bucket: "photos", Key: "2026/cat.jpg"})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(mode.Mode(), encryption.Envelope().KeyID())
	// Output: SSE-KMS transit/keys/photos
}

// Transit in a namespace, under a mount of its own.
func ExampleNew() {
	v, err := vault.NewClient(vault.DefaultConfig()) // VAULT_ADDR, VAULT_TOKEN, VAULT_CACERT, ...
	if err != nil {
		log.Fatal(err)
	}
	client, err := vaultkms.New(v.WithNamespace("teams/photos"), &vaultkms.Options{Mount: "transit-eu"})
	if err != nil {
		log.Fatal(err)
	}
	_, err = client.GenerateDataKey(context.Background(), "transit/keys/photos", nil)
	fmt.Println(err) // a key of another mount, for which no request is made
	// Output: kms: GenerateDataKey with key "transit/keys/photos": key not found: want NAME or transit-eu/keys/NAME
}
