package object

import (
	"context"

	"github.com/blobseal/blobseal/examples/blobseal/internal/console"
	"github.com/blobseal/blobseal/examples/blobseal/internal/keys"
)

type Keygen struct {
	File string `arg:"" help:"File to make; an existing one is never overwritten."`
}

func (Keygen) Help() string {
	return `A key file is the root of a ring or a key service (--root-key-file) or a customer key (--customer-key-file). Whoever has it can open what it seals, and without it nobody can: keep a copy in a safe place.

    blobseal keygen root.key`
}

func (cmd Keygen) Run(ctx context.Context, c *console.Console) error {
	return keys.GenerateKey(ctx, c, cmd.File)
}
