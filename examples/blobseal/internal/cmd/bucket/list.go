package bucket

import (
	"context"
	"errors"
	"io"
	"time"

	gcblob "gocloud.dev/blob"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/blob/jobs"
	"github.com/blobseal/blobseal/examples/blobseal/internal/console"
	"github.com/blobseal/blobseal/examples/blobseal/internal/keys"
	"github.com/blobseal/blobseal/examples/blobseal/internal/message"
)

type catCmd struct {
	bucketFlags
	keys.OpenFlags
	AllowPlain bool     `help:"Read an object that is not encrypted, too."`
	Keys       []string `arg:"" name:"key" help:"Object to read."`
}

func (cmd catCmd) Run(ctx context.Context, c *console.Console) error {
	if err := cmd.Source().Check(); err != nil {
		return err
	}
	return cmd.with(ctx, c, cmd.Source(), blob.Options{AllowPlain: cmd.AllowPlain}, func(ctx context.Context, b *bucket, _ *keys.Keys) error {
		return console.ForEach(ctx, cmd.Keys, func(key string) error {
			if _, err := b.copyTo(ctx, c, &console.AbandoningWriter{Ctx: ctx, Dst: c.Stdout}, key, nil); err != nil {
				return b.aboutReading(ctx, key, err)
			}
			c.Count(1, 0)
			return nil
		})
	})
}

type lsCmd struct {
	bucketFlags
	Recursive bool   `short:"r" help:"List what is below /, too."`
	Prefix    string `arg:"" optional:"" help:"Only objects whose keys begin with PREFIX, such as 2026/."`
}

// listedShape is an object in a listing. Scripts rely on its JSON.
type listedShape struct {
	Key     string     `json:"key"`                // ends in / for what is below
	Size    *int64     `json:"size,omitempty"`     // of the plaintext, as the store says; not authenticated
	ModTime *time.Time `json:"mod_time,omitempty"` // none for what is below
}

func (cmd lsCmd) Run(ctx context.Context, c *console.Console) error {
	b, err := cmd.open(ctx, blob.Options{AllowPlain: true})
	if err != nil {
		return err
	}
	defer b.Close()
	opts := &gcblob.ListOptions{Prefix: cmd.Prefix, Delimiter: "/"}
	if cmd.Recursive {
		opts.Delimiter = ""
	}
	list := b.List(opts)
	for {
		object, err := list.Next(ctx)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return b.about(err)
		}
		c.Count(1, 0)
		if err := show(c, object); err != nil {
			return err
		}
	}
}

func show(c *console.Console, object *gcblob.ListObject) error {
	switch {
	case c.JSON && object.IsDir:
		return c.WriteLine(listedShape{Key: object.Key})
	case c.JSON:
		return c.WriteLine(listedShape{object.Key, &object.Size, &object.ModTime})
	}
	width := c.Width(c.Stdout)
	narrow := width > 0 && width < 60
	switch {
	case object.IsDir && narrow:
		return c.Printf("%s\n", message.Printable(object.Key))
	case object.IsDir:
		return c.Printf("%20s  %12s  %s\n", "", "", message.Printable(object.Key))
	case narrow: // key, time and size have two lines
		return c.Printf("%s\n  %s  %d\n", message.Printable(object.Key), object.ModTime.UTC().Format(time.RFC3339), object.Size)
	}
	return c.Printf("%20s  %12d  %s\n", object.ModTime.UTC().Format(time.RFC3339), object.Size, message.Printable(object.Key))
}

type rmCmd struct {
	bucketFlags
	console.ConfirmFlag
	Keys []string `arg:"" name:"key" help:"Object to delete."`
}

func (cmd rmCmd) Run(ctx context.Context, c *console.Console) error {
	if err := cmd.CheckConfirm(c, "deleting objects"); err != nil {
		return err
	}
	b, err := cmd.open(ctx, blob.Options{AllowPlain: true})
	if err != nil {
		return err
	}
	defer b.Close()
	if err := cmd.Confirm(ctx, c, "Delete %s of %s?\nType yes to delete: ", message.Count(len(cmd.Keys), "object"), b.shown); err != nil {
		return err
	}
	return console.ForEach(ctx, cmd.Keys, func(key string) error {
		if err := b.Delete(ctx, key); err != nil {
			return b.aboutObject(key, jobs.KeyRef{}, err)
		}
		c.Count(1, 0)
		return c.ReportChange(deleted{b.shown, key, "deleted"}, "%s: deleted\n", message.Printable(key))
	})
}

// deleted is a deleted object in JSON. Scripts rely on it.
type deleted struct {
	Bucket string `json:"bucket"`
	Key    string `json:"key"`
	Done   string `json:"done"`
}
