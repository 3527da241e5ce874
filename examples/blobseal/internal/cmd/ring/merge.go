package ring

import (
	"context"
	"errors"

	"github.com/blobseal/blobseal/examples/blobseal/internal/console"
	"github.com/blobseal/blobseal/examples/blobseal/internal/keys"
	"github.com/blobseal/blobseal/examples/blobseal/internal/message"
	"github.com/blobseal/blobseal/keyring"
)

type mergeCmd struct {
	keys.RingFlags
	Copies []string `arg:"" name:"copy" help:"Other copy of the ring: a backup, or what a running service exported."`
}

func (cmd mergeCmd) Run(ctx context.Context, c *console.Console) error {
	if err := cmd.Check(); err != nil {
		return err
	}
	copies := make([][]byte, len(cmd.Copies))
	for i, name := range cmd.Copies {
		store, err := keyring.NewFileStore(name)
		if err == nil {
			copies[i], _, err = store.Load(ctx)
		}
		if err != nil {
			return message.Ring(name, err)
		}
	}
	root, err := cmd.Source().Open(keys.AsPrincipal(ctx, cmd.Principal), c)
	if err != nil {
		return err
	}
	if err := cmd.restore(ctx, root, copies[0]); err != nil {
		return err
	}
	ring, err := keys.OpenRing(ctx, cmd.Ring, root)
	if err != nil {
		return err
	}
	before := len(ring.Versions())
	for i, data := range copies {
		if err := ring.Merge(ctx, data); err != nil {
			return message.Ring(cmd.Copies[i], err)
		}
	}
	return c.Printf("%s: merged; it has %d versions, of which %d are new\n", message.Printable(cmd.Ring), len(ring.Versions()), len(ring.Versions())-before)
}

// restore creates a missing ring from a copy, if the root opens the copy.
func (cmd mergeCmd) restore(ctx context.Context, root keyring.Root, data []byte) error {
	store, err := keyring.NewFileStore(cmd.Ring)
	if err != nil {
		return message.Ring(cmd.Ring, err)
	}
	_, _, err = store.Load(ctx)
	if !errors.Is(err, keyring.ErrNotExist) {
		return nil // opening the ring says what is wrong with it
	}
	proof := keyring.NewMemStore()
	if _, err := proof.Swap(ctx, "", data); err != nil {
		return message.Ring(cmd.Copies[0], err)
	}
	if _, err := keyring.Open(ctx, proof, root, nil); err != nil {
		return message.Ring(cmd.Copies[0], err)
	}
	if _, err := store.Swap(ctx, "", data); err != nil {
		return message.Ring(cmd.Ring, err)
	}
	return nil
}
