package object

import (
	"context"

	"github.com/blobseal/blobseal/examples/blobseal/internal/console"
	"github.com/blobseal/blobseal/examples/blobseal/internal/keys"
)

type Keygen struct {
	File string `arg:"" help:"File to create. An existing file is never overwritten."`
}

func (cmd Keygen) Run(ctx context.Context, c *console.Console) error {
	return keys.GenerateKey(ctx, c, cmd.File)
}
