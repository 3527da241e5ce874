package awskmstest_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/awskms"
	"github.com/blobseal/blobseal/kms/awskms/awskmstest"
)

// A service under test whose key is taken away, and whose key service is overrun.
func ExampleServer() {
	server := awskmstest.NewServer()
	defer server.Close()
	keyARN := server.CreateKey()
	client, err := awskms.New(server.Client("AKIAEXAMPLE"), nil)
	if err != nil {
		log.Fatal(err)
	}

	ctx := context.Background()
	server.SetState(keyARN, awskmstest.PendingDeletion)
	_, err = client.GenerateDataKey(ctx, keyARN, nil)
	_, ok := errors.AsType[*types.KMSInvalidStateException](err)
	fmt.Println(errors.Is(err, kms.ErrPendingDeletion), ok)

	server.SetState(keyARN, awskmstest.Enabled)
	requests := 0
	server.Intercept(func(w http.ResponseWriter, _ *http.Request) bool {
		requests++
		if requests > 1 {
			return false
		}
		awskmstest.WriteError(w, http.StatusBadRequest, "ThrottlingException", "Rate exceeded")
		return true
	})
	_, err = client.GenerateDataKey(ctx, keyARN, nil)
	fmt.Println(requests, err) // the SDK tried again
	// Output:
	// true true
	// 2 <nil>
}
