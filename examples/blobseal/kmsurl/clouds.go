//go:build !noclouds

package kmsurl

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	google "cloud.google.com/go/kms/apiv1"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"
	"github.com/aws/aws-sdk-go-v2/aws/arn"
	"github.com/aws/aws-sdk-go-v2/config"
	aws "github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/smithy-go/logging"
	vault "github.com/hashicorp/vault/api"
	"github.com/hashicorp/vault/api/cliconfig"
	"google.golang.org/api/option"

	"github.com/blobseal/blobseal/kms/awskms"
	"github.com/blobseal/blobseal/kms/azurekms"
	"github.com/blobseal/blobseal/kms/gcpkms"
	"github.com/blobseal/blobseal/kms/vaultkms"
)

const hasVendors = true // this build has the vendors' clients

// Options are those of the clients of key services. The zero Options, and nil, are right
// outside of tests.
type Options struct {
	Google          []option.ClientOption
	Azure           *azkeys.ClientOptions
	AzureCredential func() (azcore.TokenCredential, error)
}

// Open opens the key of a vendor's key service. It does not ask the service yet. opts may
// be nil. The caller closes the key.
func (u *URL) Open(ctx context.Context, opts *Options) (*Key, error) {
	if opts == nil {
		opts = new(Options)
	}
	switch u.Scheme {
	case awsScheme:
		return u.openAWS(ctx)
	case googleScheme:
		return u.openGoogle(ctx, opts)
	case azureScheme:
		return u.openAzure(opts)
	case vaultScheme:
		return u.openVault()
	}
	return nil, fmt.Errorf("%s:// is no vendor's key service", u.Scheme)
}

// openAWS opens a key of AWS KMS. The region comes from the
// URL, or else from the key's ARN.
func (u *URL) openAWS(ctx context.Context) (*Key, error) {
	region := u.params["region"]
	if a, err := arn.Parse(u.Key); err == nil && region == "" {
		region = a.Region
	}
	cfg, err := config.LoadDefaultConfig(ctx, config.WithRegion(region), config.WithSharedConfigProfile(u.params["profile"]),
		config.WithLogger(logging.Nop{})) // an error is one line, and ours
	if err != nil {
		return nil, err
	}
	if cfg.Region == "" {
		return nil, errors.New("no region: add ?region=REGION, or set AWS_REGION")
	}
	client, err := awskms.New(aws.NewFromConfig(cfg), nil)
	if err != nil {
		return nil, err
	}
	return &Key{Client: client, ID: u.Key}, nil
}

// openGoogle opens a key of Google Cloud KMS.
func (u *URL) openGoogle(ctx context.Context, opts *Options) (*Key, error) {
	api, err := google.NewKeyManagementClient(ctx, opts.Google...)
	if err != nil {
		return nil, err
	}
	client, err := gcpkms.New(api)
	if err != nil {
		return nil, errors.Join(err, api.Close())
	}
	return &Key{Client: client, ID: u.Key, close: api.Close}, nil
}

// openAzure opens a key in an Azure Key Vault or Managed HSM.
func (u *URL) openAzure(opts *Options) (*Key, error) {
	credentials := opts.AzureCredential
	if credentials == nil {
		credentials = func() (azcore.TokenCredential, error) { return azidentity.NewDefaultAzureCredential(nil) }
	}
	credential, err := credentials()
	if err != nil {
		return nil, err
	}
	host, _, _ := strings.Cut(u.Key, "/")
	api, err := azkeys.NewClient("https://"+host, credential, opts.Azure)
	if err != nil {
		return nil, err
	}
	client, err := azurekms.New(api, &azurekms.Options{Algorithm: azkeys.EncryptionAlgorithm(u.params["algorithm"])})
	if err != nil {
		return nil, err
	}
	return &Key{Client: client, ID: "https://" + u.Key}, nil
}

// openVault opens a key of the Transit engine of Vault or
// OpenBao. Without VAULT_TOKEN, it uses the token that vault login left.
func (u *URL) openVault() (*Key, error) {
	cfg := vault.DefaultConfig()
	if cfg.Error != nil {
		return nil, cfg.Error
	}
	api, err := vault.NewClient(cfg)
	if err != nil {
		return nil, err
	}
	if _, err := os.UserHomeDir(); api.Token() == "" && err == nil { // the helper panics without a home directory
		helper, err := cliconfig.DefaultTokenHelper()
		if err != nil {
			return nil, err
		}
		token, err := helper.Get()
		if err != nil {
			return nil, err
		}
		api.SetToken(token)
	}
	opts := new(vaultkms.Options)
	if i := strings.LastIndex(u.Key, "/keys/"); i >= 0 {
		opts.Mount = u.Key[:i]
	}
	client, err := vaultkms.New(api, opts)
	if err != nil {
		return nil, err
	}
	key := &Key{Client: client, ID: u.Key}
	if api.Token() == "" { // an agent may add one, or the user forgot it
		key.Hint = "no token: set VAULT_TOKEN, or log in with vault login"
	}
	return key, nil
}
