package main

import (
	"context"
	"io"
	"io/fs"
)

type encryptCmd struct {
	keyFlags
	objectFlags
	Force bool   `help:"Replace OUT if it exists."`
	In    string `arg:"" name:"in" help:"Plaintext; - is standard input."`
	Out   string `arg:"" name:"out" help:"Sealed file; - is standard output."`
}

func (encryptCmd) Help() string {
	return `The file gets a data key of its own, which is sealed under the newest key of the ring or under the customer key. OUT appears when it is complete, or not at all, and has the mode that the umask gives. A ring whose newest key is too old (90 days) is rotated first.

    blobseal encrypt --ring my.ring --root-key-file root.key photo.jpg photo.enc
    tar c docs | blobseal encrypt --customer-key-file my.key --context owner=me - docs.enc`
}

func (cmd encryptCmd) Run(ctx context.Context, c *console) error {
	if err := cmd.source().check(); err != nil {
		return err
	}
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
	k, err := cmd.source().open(ctx)
	if err != nil {
		return err
	}
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
