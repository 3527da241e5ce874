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

type Decrypt struct {
	keys.Flags
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
		return message.Usagef("--range needs a regular file: %s cannot be read at random", o.Name)
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
	var plain io.Reader
	src := c.Track(ctx, o.Name, o.body, o.Size)
	defer func() { src.Done() }()
	switch {
	case !o.Regular():
		plain = d.Reader(src)
	default:
		size, err := o.prove(d) // before a byte is written
		if err != nil {
			return err
		}
		if part == nil {
			plain = d.Reader(src)
			break
		}
		off, n, err := part.Within(size)
		if err != nil {
			return message.Problemf(err, o.Name, "%s", err)
		}
		bodyOff, bodyLen, err := sse.CiphertextRange(off, n)
		if err != nil {
			return aboutObject(o, k, err)
		}
		bodyLen = min(bodyLen, o.Size-bodyOff)
		src = c.Track(ctx, o.Name, io.NewSectionReader(o.bodyAt(), bodyOff, bodyLen), bodyLen)
		plain = d.RangeReader(src, off, n)
	}
	if _, err := io.Copy(out, plain); err != nil {
		return aboutObject(o, k, err)
	}
	src.Done()
	return out.Commit()
}
