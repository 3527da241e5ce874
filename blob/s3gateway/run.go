package s3gateway

import (
	"cmp"
	"context"
	"fmt"

	"github.com/versity/versitygw/auth"
	"github.com/versity/versitygw/embedgw"
	"github.com/versity/versitygw/s3api/middlewares"
)

// Run serves the gateway until ctx ends or an error occurs. It completes config:
// with the routes of the package, MaxParts, the connection limits if they are zero,
// and the account service. The engine allows one server in a process.
//
// Leave config.KeepAlive false: with it, the engine breaks uploads over TLS.
func (g *Gateway) Run(ctx context.Context, config embedgw.Config) error {
	config.Region = cmp.Or(config.Region, "us-east-1")
	config.MaxConnections = cmp.Or(config.MaxConnections, 250_000)
	config.MaxRequests = cmp.Or(config.MaxRequests, 100_000)
	config.MultipartMaxParts = MaxParts
	if config.IAMService == nil {
		accounts, err := auth.New(config.IamOpts())
		if err != nil {
			return fmt.Errorf("s3gateway: open accounts: %w", err)
		}
		config.IAMService = accounts
	}
	config.S3Options = append(g.Routes(RoutesOptions{
		Root:          middlewares.RootUserConfig{Access: config.RootUserAccess, Secret: config.RootUserSecret},
		IAM:           config.IAMService,
		Region:        config.Region,
		VirtualDomain: config.VirtualDomain,
		ReadOnly:      config.Readonly,
		DisableACLs:   config.DisableACLs,
	}), config.S3Options...)
	return embedgw.RunVersityGW(ctx, g, &config)
}
