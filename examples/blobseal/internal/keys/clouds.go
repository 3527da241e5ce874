//go:build !noclouds

package keys

import (
	"context"
	"errors"
	"os"
	"strings"

	google "cloud.google.com/go/kms/apiv1"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"
	"github.com/aws/aws-sdk-go-v2/aws/arn"
	"github.com/aws/aws-sdk-go-v2/config"
	aws "github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/smithy-go/logging"
	vault "github.com/hashicorp/vault/api"
	"github.com/hashicorp/vault/api/cliconfig"

	"github.com/blobseal/blobseal/examples/blobseal/internal/console"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/awskms"
	"github.com/blobseal/blobseal/kms/azurekms"
	"github.com/blobseal/blobseal/kms/gcpkms"
	"github.com/blobseal/blobseal/kms/vaultkms"
)

// cloudKey returns the client and the name of a key in a vendor's key service.
func cloudKey(ctx context.Context, c *console.Console, u *rootURL) (kms.Client, string, error) {
	switch u.scheme {
	case awsScheme:
		return awsKey(ctx, c, u)
	case googleScheme:
		return googleKey(ctx, c, u)
	case azureScheme:
		return azureKey(c, u)
	}
	return vaultKey(c, u)
}

// awsKey returns the client and the id of a key of AWS KMS. The region comes from the
// URL, or else from the key's ARN.
func awsKey(ctx context.Context, c *console.Console, u *rootURL) (kms.Client, string, error) {
	region := u.params["region"]
	if a, err := arn.Parse(u.key); err == nil && region == "" {
		region = a.Region
	}
	cfg, err := config.LoadDefaultConfig(ctx, config.WithRegion(region), config.WithSharedConfigProfile(u.params["profile"]),
		config.WithLogger(logging.Nop{})) // an error is one line, and ours
	if err != nil {
		return nil, "", err
	}
	if cfg.Region == "" {
		return nil, "", errors.New("no region: add ?region=REGION, or set AWS_REGION")
	}
	client, err := awskms.New(aws.NewFromConfig(cfg), nil)
	return remote(c, u, client, ""), u.key, err
}

// googleKey returns the client and the name of a key of Google Cloud KMS.
func googleKey(ctx context.Context, c *console.Console, u *rootURL) (kms.Client, string, error) {
	api, err := google.NewKeyManagementClient(ctx, c.Google...)
	if err != nil {
		return nil, "", err
	}
	c.AtEnd(func() { api.Close() })
	client, err := gcpkms.New(api)
	return remote(c, u, client, ""), u.key, err
}

// azureKey returns the client and the id of a key in an Azure Key Vault or Managed HSM.
func azureKey(c *console.Console, u *rootURL) (kms.Client, string, error) {
	credential, err := c.AzureCredential()
	if err != nil {
		return nil, "", err
	}
	host, _, _ := strings.Cut(u.key, "/")
	api, err := azkeys.NewClient("https://"+host, credential, c.Azure)
	if err != nil {
		return nil, "", err
	}
	client, err := azurekms.New(api, &azurekms.Options{Algorithm: azkeys.EncryptionAlgorithm(u.params["algorithm"])})
	return remote(c, u, client, ""), "https://" + u.key, err
}

// vaultKey returns the client and the name of a key of the Transit engine of Vault or
// OpenBao. Without VAULT_TOKEN, it uses the token that vault login left.
func vaultKey(c *console.Console, u *rootURL) (kms.Client, string, error) {
	cfg := vault.DefaultConfig()
	if cfg.Error != nil {
		return nil, "", cfg.Error
	}
	api, err := vault.NewClient(cfg)
	if err != nil {
		return nil, "", err
	}
	if _, err := os.UserHomeDir(); api.Token() == "" && err == nil { // the helper panics without a home directory
		helper, err := cliconfig.DefaultTokenHelper()
		if err != nil {
			return nil, "", err
		}
		token, err := helper.Get()
		if err != nil {
			return nil, "", err
		}
		api.SetToken(token)
	}
	opts := new(vaultkms.Options)
	if i := strings.LastIndex(u.key, "/keys/"); i >= 0 {
		opts.Mount = u.key[:i]
	}
	client, err := vaultkms.New(api, opts)
	if api.Token() == "" { // an agent may add one, or the user forgot it
		return remote(c, u, client, "no token: set VAULT_TOKEN, or log in with vault login"), u.key, err
	}
	return remote(c, u, client, ""), u.key, err
}
