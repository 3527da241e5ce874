package main

import (
	"context"
	"io"
	"io/fs"
)

type encryptCmd struct {
	keyFlags
	objectFlags
	BucketKey bool   `group:"keys" help:"With --kms: bind the service's data key to the bucket of --object, not to the whole name, as S3's Bucket Keys do. Whoever reads or rewraps many such files asks the service less."`
	Force     bool   `help:"Replace OUT if it exists."`
	In        string `arg:"" name:"in" help:"Plaintext; - is standard input."`
	Out       string `arg:"" name:"out" help:"Sealed file; - is standard output."`
}

func (encryptCmd) Help() string {
	return `The file gets a data key of its own, which is sealed under the newest key of the ring, under a data key of the key service, or under the customer key. OUT appears when it is complete, or not at all, and has the mode that the umask gives. A ring whose newest key is too old (90 days) is rotated first. A key service may refuse; it records that as it records each use.

    blobseal encrypt --ring my.ring --root-key-file root.key photo.jpg photo.enc
    blobseal encrypt --kms my.kms --root-key-file root.key --kms-key alias/photos photo.jpg photo.enc
    tar c docs | blobseal encrypt --customer-key-file my.key --context owner=me - docs.enc`
}

func (cmd encryptCmd) Run(ctx context.Context, c *console) error {
	source := cmd.source()
	source.bucketKey = cmd.BucketKey
	if err := source.check(); err != nil {
		return err
	}
	ctx = asPrincipal(ctx, cmd.Principal)
	obj, err := cmd.object()
	if err != nil {
		return err
	}
	in, err := c.open(ctx, cmd.In)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := c.createFor(ctx, in, cmd.Out, 0o666, cmd.Force)
	if err != nil {
		return err
	}
	defer out.discard()
	k, err := source.open(ctx, c)
	if err != nil {
		return err
	}
	defer k.Close()
	e, err := k.Encrypt(ctx, obj)
	if err != nil {
		return k.aboutSealing(err)
	}
	env, err := e.Envelope().WithSize(envelopeSize(e.Envelope()))
	if err != nil {
		return k.aboutSealing(err)
	}
	head, err := env.MarshalBinary()
	if err != nil {
		return k.aboutSealing(err)
	}
	src := c.track(ctx, in.name, in.r, in.size)
	defer src.done()
	if _, err := out.Write(head); err != nil {
		return about(out.name, err)
	}
	w := e.Writer(out)
	if _, err := io.Copy(w, src); err != nil {
		return about(in.name, err)
	}
	if err := w.Close(); err != nil {
		return about(out.name, err)
	}
	return out.commit()
}

// createFor starts the output of a command that reads in, which must be another file.
func (c *console) createFor(ctx context.Context, in *input, name string, perm fs.FileMode, force bool) (*output, error) {
	if sameFile(in, name) {
		return nil, usagef("%s and %s are the same file: write to another one", in.name, name)
	}
	return c.create(ctx, name, perm, force)
}
