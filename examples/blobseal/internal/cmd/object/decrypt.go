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

// Decrypt is the command that decrypts a file.
type Decrypt struct {
	keys.OpenFlags
	objectFlags
	Range string `placeholder:"OFF-END" help:"Bytes of the plaintext, as in HTTP: END is included, and OFF- goes to the end. Needs a regular file."`
	Force bool   `help:"Replace OUT if it exists."`
	In    string `arg:"" name:"in" help:"Sealed file; - is standard input."`
	Out   string `arg:"" name:"out" help:"Plaintext; - is standard output."`
}

func (cmd Decrypt) Run(ctx context.Context, c *console.Console) error {
	if err := cmd.Source().Check(); err != nil {
		return err
	}
	ctx = keys.AsPrincipal(ctx, cmd.Principal)
	obj, err := cmd.object()
	if err != nil {
		return err
	}
	part, err := file.ParseRange(cmd.Range)
	if err != nil {
		return err
	}
	o, err := Open(ctx, c, cmd.In)
	if err != nil {
		return err
	}
	defer o.Close()
	if part != nil && !o.Regular() {
		return message.Usagef("--range needs a regular file, not %s", o.Name)
	}
	out, err := file.CreateFor(ctx, c, o.Input, cmd.Out, 0o600, cmd.Force)
	if err != nil {
		return err
	}
	defer out.Discard()
	k, err := cmd.Source().Open(ctx, c)
	if err != nil {
		return err
	}
	defer k.Close()
	d, err := o.Decrypt(ctx, k, obj)
	if err != nil {
		return err
	}
	src, plain, err := o.plaintext(ctx, c, d, part)
	if err != nil {
		return aboutObject(o, k, err)
	}
	defer src.Done()
	if _, err := io.Copy(out, plain); err != nil {
		return aboutObject(o, k, err)
	}
	src.Done()
	return out.Commit()
}

// plaintext returns the reader of the plaintext, or of a part of it, and the source
// below, whose progress shows. The end of a regular file is proved before a byte is
// released.
func (o *Object) plaintext(ctx context.Context, c *console.Console, d *sse.Decryption, part *file.Range) (*console.Source, io.Reader, error) {
	if !o.Regular() {
		return o.openBody(ctx, c, d)
	}
	size, err := o.prove(d)
	if err != nil {
		return nil, nil, err
	}
	if part == nil {
		return o.openBody(ctx, c, d)
	}
	off, n, err := part.Within(size)
	if err != nil {
		return nil, nil, message.Problemf(err, o.Name, "%s", err)
	}
	return o.openRange(ctx, c, d, off, n)
}
