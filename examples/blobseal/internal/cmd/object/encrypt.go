package object

import (
	"context"
	"io"

	"github.com/blobseal/blobseal/examples/blobseal/internal/console"
	"github.com/blobseal/blobseal/examples/blobseal/internal/file"
	"github.com/blobseal/blobseal/examples/blobseal/internal/keys"
	"github.com/blobseal/blobseal/examples/blobseal/internal/message"
)

type Encrypt struct {
	keys.Flags
	objectFlags
	BucketKey bool   `group:"keys" help:"With --kms: bind the service's data key to the bucket, not to the name, as S3's Bucket Keys do. Saves calls."`
	Force     bool   `help:"Replace OUT if it exists."`
	In        string `arg:"" name:"in" help:"Plaintext; - is standard input."`
	Out       string `arg:"" name:"out" help:"Sealed file; - is standard output."`
}

func (cmd Encrypt) Run(ctx context.Context, c *console.Console) error {
	source := cmd.Source()
	source.BucketKey = cmd.BucketKey
	if err := source.Check(); err != nil {
		return err
	}
	ctx = keys.AsPrincipal(ctx, cmd.Principal)
	obj, err := cmd.object()
	if err != nil {
		return err
	}
	in, err := file.Open(ctx, c, cmd.In)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := file.CreateFor(ctx, c, in, cmd.Out, 0o666, cmd.Force)
	if err != nil {
		return err
	}
	defer out.Discard()
	k, err := source.Open(ctx, c)
	if err != nil {
		return err
	}
	defer k.Close()
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
	if _, err := io.Copy(w, src); err != nil {
		return message.About(in.Name, err)
	}
	if err := w.Close(); err != nil {
		return message.About(out.Name, err)
	}
	return out.Commit()
}
