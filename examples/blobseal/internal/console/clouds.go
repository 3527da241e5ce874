//go:build !noclouds

package console

import (
	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"
	"google.golang.org/api/option"
)

// Clouds has options of the clients of vendors' key services.
type Clouds struct {
	Google          []option.ClientOption
	Azure           *azkeys.ClientOptions
	AzureCredential func() (azcore.TokenCredential, error)
}

func newClouds() Clouds {
	return Clouds{AzureCredential: func() (azcore.TokenCredential, error) { return azidentity.NewDefaultAzureCredential(nil) }}
}
