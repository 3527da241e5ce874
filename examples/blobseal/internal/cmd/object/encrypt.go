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
	BucketKey bool   `group:"keys" help:"With --kms: bind the service's data key to the bucket of --object, not to the whole name, as S3's Bucket Keys do. Whoever reads or rewraps many such files asks the service less."`
	Force     bool   `help:"Replace OUT if it exists."`
	In        string `arg:"" name:"in" help:"Plaintext; - is standard input."`
	Out       string `arg:"" name:"out" help:"Sealed file; - is standard output."`
}

func (Encrypt) Help() string {
	return `The file gets a data key of its own, which is sealed under the newest key of the ring, under a data key of the key service, or under the customer key. OUT appears when it is complete, or not at all, and has the mode that the umask gives. A ring whose newest key is too old (90 days) is rotated first. A key service may refuse; it records that as it records each use.

    blobseal encrypt --ring my.ring --root-key-file root.key photo.jpg photo.enc
    blobseal encrypt --kms my.kms --root-key-file root.key --kms-key alias/photos photo.jpg photo.enc
    tar c docs | blobseal encrypt --customer-key-file my.key --context owner=me - docs.enc`
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
