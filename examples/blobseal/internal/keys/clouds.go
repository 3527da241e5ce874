//go:build !noclouds

package keys

import (
	"context"

	"github.com/blobseal/blobseal/examples/blobseal/internal/console"
	"github.com/blobseal/blobseal/examples/blobseal/kmsurl"
	"github.com/blobseal/blobseal/kms"
)

// cloudKey returns the client and the name of a key in a vendor's key service.
func cloudKey(ctx context.Context, c *console.Console, u *kmsurl.URL) (kms.Client, string, error) {
	key, err := u.Open(ctx, &kmsurl.Options{Google: c.Google, Azure: c.Azure, AzureCredential: c.AzureCredential})
	if err != nil {
		return nil, "", err
	}
	c.AtEnd(func() { key.Close() })
	return remote(c, u, key.Client, key.Hint), key.ID, nil
}
