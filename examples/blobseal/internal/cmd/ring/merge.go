package ring

import (
	"context"

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
	about := func(name string, err error) error { return message.Ring(name, err, cmd.Source().Args()...) }
	copies, err := keys.ReadCopies(ctx, cmd.Copies, about)
	if err != nil {
		return err
	}
	root, err := cmd.Source().Open(keys.AsPrincipal(ctx, cmd.Principal), c)
	if err != nil {
		return err
	}
	kept, badCopy, err := keys.Rescue(ctx, cmd.Ring, copies[0], func(ctx context.Context, s keyring.Store) error {
		_, err := keyring.Open(ctx, s, root, nil)
		return err
	})
	switch {
	case badCopy != nil:
		return about(copies[0].Name, badCopy)
	case err != nil:
		return cmd.About(err)
	case kept != "":
		c.ReportChange(change{Ring: cmd.Ring, Done: "damaged, kept as " + kept}, "%s: damaged, kept as %s\n", message.Printable(cmd.Ring), message.Printable(kept))
	}
	ring, err := keys.OpenRing(ctx, cmd.Ring, root, cmd.Source().Args()...)
	if err != nil {
		return err
	}
	before := len(ring.Versions())
	for _, one := range copies {
		if err := ring.Merge(ctx, one.Data); err != nil {
			return about(one.Name, err)
		}
	}
	return c.ReportChange(change{cmd.Ring, "merged", ""}, "%s: merged; it has %d versions, of which %d are new\n", message.Printable(cmd.Ring), len(ring.Versions()), len(ring.Versions())-before)
}
