package gcpkmstest_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	google "cloud.google.com/go/kms/apiv1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/gcpkms"
	"github.com/blobseal/blobseal/kms/gcpkms/gcpkmstest"
)

// A service under test whose principal may only write, and whose quota is spent.
func ExampleServer() {
	server, err := gcpkmstest.NewServer()
	if err != nil {
		log.Fatal(err)
	}
	defer server.Close()
	keyName := server.CreateKey("photos")
	server.Deny("writer@example.com", "Decrypt")

	ctx := context.Background()
	googleClient, err := google.NewKeyManagementClient(ctx, server.ClientOptions("writer@example.com")...)
	if err != nil {
		log.Fatal(err)
	}
	defer googleClient.Close()
	client, err := gcpkms.New(googleClient)
	if err != nil {
		log.Fatal(err)
	}
	key, err := client.GenerateDataKey(ctx, keyName, nil)
	if err != nil {
		log.Fatal(err)
	}
	_, err = client.Decrypt(ctx, key.KeyID, key.Ciphertext, nil)
	fmt.Println(errors.Is(err, kms.ErrDenied))

	server.Intercept(func(context.Context, any, *grpc.UnaryServerInfo, grpc.UnaryHandler) (any, error) {
		return nil, status.Error(codes.ResourceExhausted, "Quota exceeded")
	})
	_, err = client.GenerateDataKey(ctx, keyName, nil)
	fmt.Println(errors.Is(err, kms.ErrUnavailable))
	// Output:
	// true
	// true
}
