package object

import (
	"context"
	"io"

	"github.com/blobseal/blobseal/examples/blobseal/internal/console"
	"github.com/blobseal/blobseal/examples/blobseal/internal/file"
	"github.com/blobseal/blobseal/examples/blobseal/internal/keys"
	"github.com/blobseal/blobseal/examples/blobseal/internal/message"
	"github.com/blobseal/blobseal/sse"
)

type Encrypt struct {
	keys.Flags
	BucketKey bool `group:"keys" help:"With --kms: bind the service's data key to the bucket, not to the name, as S3's Bucket Keys do. Saves calls."`
	fileFlags
}

func (cmd Encrypt) Run(ctx context.Context, c *console.Console) error {
	source := cmd.Source()
	source.BucketKey = cmd.BucketKey
	addSuffix := func(base string) string { return base + suffix }
	return cmd.each(ctx, c, source, addSuffix, func(ctx context.Context, p pair, obj sse.Object, k *lazyKeys) error {
		return cmd.encrypt(ctx, c, p, obj, k)
	})
}

func (cmd Encrypt) encrypt(ctx context.Context, c *console.Console, p pair, obj sse.Object, open *lazyKeys) error {
	if p.out == "-" && !cmd.Force && c.IsTerminal(c.Stdout) {
		return message.Usagef("a terminal cannot show a sealed file: give OUT, use a pipe, or give --force")
	}
	in, err := file.Open(ctx, c, p.in)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := file.CreateFor(ctx, c, in, p.out, 0o666, cmd.Force)
	if err != nil {
		return err
	}
	defer out.Discard()
	k, err := open.get()
	if err != nil {
		return err
	}
	e, err := k.Encrypt(ctx, obj)
	if err != nil {
		return k.AboutSealing(err)
	}
	env, err := e.Envelope().WithSize(envelopeSize(e.Envelope()))
	if err != nil {
		return k.AboutSealing(err)
	}
	head, err := env.MarshalBinary()
	if err != nil {
		return k.AboutSealing(err)
	}
	src := c.Track(ctx, in.Name, in.R, in.Size)
	defer src.Done()
	if _, err := out.Write(head); err != nil {
		return message.About(out.Name, err)
	}
	w := e.Writer(out)
	n, err := io.Copy(w, src)
	if err != nil {
		return message.About(in.Name, err)
	}
	if err := w.Close(); err != nil {
		return message.About(out.Name, err)
	}
	if err := out.Commit(); err != nil {
		return err
	}
	src.Done()
	return c.ReportFile(console.File{From: in.Name, To: out.Name, Bytes: n})
}
