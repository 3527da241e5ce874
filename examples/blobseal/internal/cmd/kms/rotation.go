package kms

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/blobseal/blobseal/examples/blobseal/internal/console"
	"github.com/blobseal/blobseal/examples/blobseal/internal/keys"
	"github.com/blobseal/blobseal/kms/localkms"
)

// rotationCmd are the commands on the rotation of keys.
type rotationCmd struct {
	Enable  rotationEnableCmd  `cmd:"" help:"Rotate a key every N days."`
	Disable rotationDisableCmd `cmd:"" help:"Rotate a key only on demand."`
	List    rotationListCmd    `cmd:"" help:"List the versions of a key."`
}

type rotationEnableCmd struct {
	keyFlags
	Days int `default:"365" placeholder:"N" help:"Period in days, 90 to 2560; by default 365."`
}

func (cmd rotationEnableCmd) Run(ctx context.Context, c *console.Console) error {
	if err := console.CheckDays("--days", max(cmd.Days, 1), localkms.MinRotationDays, localkms.MaxRotationDays); err != nil {
		return err
	}
	return cmd.change(ctx, c, cmd.Key, func(s *localkms.Client, ctx context.Context, key string) error {
		return s.EnableKeyRotation(ctx, key, cmd.Days)
	}, fmt.Sprintf("is rotated every %d days", cmd.Days))
}

type rotationDisableCmd struct{ keyFlags }

func (cmd rotationDisableCmd) Run(ctx context.Context, c *console.Console) error {
	return cmd.change(ctx, c, cmd.Key, (*localkms.Client).DisableKeyRotation, "is rotated on demand alone")
}

type rotationListCmd struct{ keyFlags }

func (cmd rotationListCmd) Run(ctx context.Context, c *console.Console) error {
	return cmd.with(ctx, c, func(ctx context.Context, s *keys.Service) error {
		versions, err := s.ListKeyRotations(ctx, cmd.Key)
		if err != nil {
			return s.About(cmd.Key, err)
		}
		if c.JSON {
			return c.WriteJSON(map[string]any{"versions": versions})
		}
		return c.Table(func(w io.Writer) {
			fmt.Fprintln(w, "VERSION\tCREATED\tHOW")
			how := map[localkms.Origin]string{localkms.Created: "with the key", localkms.ScheduledRotation: "by schedule", localkms.OnDemandRotation: "on demand"}
			for _, v := range versions {
				fmt.Fprintf(w, "%d\t%s\t%s\n", v.Number, v.Created.Format(time.RFC3339), how[v.Origin])
			}
		})
	})
}
