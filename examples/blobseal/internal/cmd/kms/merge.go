package kms

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"time"

	"github.com/blobseal/blobseal/examples/blobseal/internal/console"
	"github.com/blobseal/blobseal/examples/blobseal/internal/keys"
	"github.com/blobseal/blobseal/examples/blobseal/internal/message"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms/localkms"
)

type mergeCmd struct {
	serviceFlags
	Copies []string `arg:"" name:"copy" help:"Other copy of DIR/keys: a backup, or what a running service exported."`
}

func (cmd mergeCmd) Run(ctx context.Context, c *console.Console) error {
	if err := cmd.Source().Check("key service"); err != nil {
		return err
	}
	ctx = keys.AsPrincipal(ctx, cmd.Principal)
	copies, err := keys.ReadCopies(ctx, cmd.Copies, message.About)
	if err != nil {
		return err
	}
	root, err := cmd.Source().Open(ctx, c)
	if err != nil {
		return err
	}
	if err := os.Mkdir(cmd.KMS, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return message.About(cmd.KMS, err)
	}
	path := message.KeysPath(cmd.KMS)
	kept, badCopy, err := keys.Rescue(ctx, path, copies[0], func(ctx context.Context, s keyring.Store) error {
		_, err := openToMerge(ctx, s, root)
		return err
	})
	switch {
	case badCopy != nil:
		os.Remove(cmd.KMS) // unless it has files
		return message.About(copies[0].Name, badCopy)
	case err != nil:
		return message.About(cmd.KMS, err)
	case kept != "":
		c.ReportChange(change{KMS: cmd.KMS, Done: "damaged, kept as " + kept}, "%s: damaged, kept as %s\n", message.Printable(path), message.Printable(kept))
	}
	store, err := keyring.NewFileStore(path)
	if err != nil {
		return message.About(cmd.KMS, err)
	}
	service, err := openToMerge(ctx, store, root)
	if err != nil {
		return (&keys.Service{Dir: cmd.KMS}).About("", err)
	}
	for _, one := range copies {
		if err := service.Merge(ctx, one.Data); err != nil {
			return message.About(one.Name, err)
		}
	}
	return c.ReportChange(change{KMS: cmd.KMS, Done: "merged"}, "%s: merged\n", message.Printable(cmd.KMS))
}

// openToMerge opens a service without deleting the keys whose deletion is due: another copy
// may have cancelled that.
func openToMerge(ctx context.Context, s keyring.Store, root keyring.Root) (*localkms.Service, error) {
	return localkms.Open(ctx, s, root, &localkms.Options{
		Now:    func() time.Time { return time.Unix(0, 0) },
		Logger: slog.New(slog.DiscardHandler),
	})
}
