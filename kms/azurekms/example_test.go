package azurekms_test

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"fmt"
	"log"
	"net/http"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	azfake "github.com/Azure/azure-sdk-for-go/sdk/azcore/fake"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys/fake"

	"github.com/blobseal/blobseal/kms/azurekms"
	"github.com/blobseal/blobseal/sse"
)

// fakeVault is the SDK's own fake with one RSA key of one version.
func fakeVault() azcore.ClientOptions {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		log.Fatal(err)
	}
	// The fake gives a name with a version as one, and no version.
	kid := func(name string) *azkeys.ID {
		name, _, _ = strings.Cut(name, "/")
		return to.Ptr(azkeys.ID("https://photos.vault.azure.net/keys/" + name + "/1"))
	}
	server := &fake.Server{
		WrapKey: func(_ context.Context, name, _ string, in azkeys.KeyOperationParameters, _ *azkeys.WrapKeyOptions) (resp azfake.Responder[azkeys.WrapKeyResponse], errResp azfake.ErrorResponder) {
			out, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, &key.PublicKey, in.Value, nil)
			if err != nil {
				errResp.SetResponseError(http.StatusBadRequest, "BadParameter")
				return resp, errResp
			}
			resp.SetResponse(http.StatusOK, azkeys.WrapKeyResponse{KeyOperationResult: azkeys.KeyOperationResult{KID: kid(name), Result: out}}, nil)
			return resp, errResp
		},
		UnwrapKey: func(_ context.Context, name, _ string, in azkeys.KeyOperationParameters, _ *azkeys.UnwrapKeyOptions) (resp azfake.Responder[azkeys.UnwrapKeyResponse], errResp azfake.ErrorResponder) {
			out, err := rsa.DecryptOAEP(sha256.New(), nil, key, in.Value, nil)
			if err != nil {
				errResp.SetResponseError(http.StatusBadRequest, "BadParameter")
				return resp, errResp
			}
			resp.SetResponse(http.StatusOK, azkeys.UnwrapKeyResponse{KeyOperationResult: azkeys.KeyOperationResult{KID: kid(name), Result: out}}, nil)
			return resp, errResp
		},
	}
	return azcore.ClientOptions{Transport: fake.NewServerTransport(server)}
}

// Objects under a key of a vault. The vault is the SDK's fake, so that the example
// runs; otherwise the credential is one of azidentity's, and the options are nil.
func Example() {
	keys, err := azkeys.NewClient("https://photos.vault.azure.net", &azfake.TokenCredential{}, &azkeys.ClientOptions{ClientOptions: fakeVault()})
	if err != nil {
		log.Fatal(err)
	}
	client, err := azurekms.New(keys, nil)
	if err != nil {
		log.Fatal(err)
	}
	mode, err := sse.NewKMS(client, "photos-key", nil)
	if err != nil {
		log.Fatal(err)
	}
	encryption, err := mode.Encrypt(context.Background(), sse.Object{Bucket: "photos", Key: "2026/cat.jpg"})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(mode.Mode(), encryption.Envelope().KeyID())
	// Output: SSE-KMS https://photos.vault.azure.net/keys/photos-key/1
}

// A symmetric key of a Managed HSM, into which the keys of another were restored.
func ExampleNew() {
	keys, err := azkeys.NewClient("https://photos-2.managedhsm.azure.net", &azfake.TokenCredential{}, nil)
	if err != nil {
		log.Fatal(err)
	}
	client, err := azurekms.New(keys, &azurekms.Options{
		Algorithm:    azkeys.EncryptionAlgorithmA256KW,
		FormerVaults: []string{"https://photos.managedhsm.azure.net"},
	})
	if err != nil {
		log.Fatal(err)
	}
	_, err = client.GenerateDataKey(context.Background(), "transit/keys/photos", nil)
	fmt.Println(err) // an id of another service, for which no request is made
	// Output: kms: GenerateDataKey with key "transit/keys/photos": key not found: want NAME, NAME/VERSION or https://VAULT/keys/NAME/VERSION
}
