package object

import (
	"context"
	"io"
	"strings"

	"github.com/blobseal/blobseal/examples/blobseal/internal/console"
	"github.com/blobseal/blobseal/examples/blobseal/internal/file"
	"github.com/blobseal/blobseal/examples/blobseal/internal/keys"
	"github.com/blobseal/blobseal/examples/blobseal/internal/message"
	"github.com/blobseal/blobseal/sse"
)

// Decrypt is the command that decrypts a file.
type Decrypt struct {
	keys.OpenFlags
	Range string `placeholder:"OFF-END" help:"Bytes of the plaintext, as in HTTP: END is included, and OFF- goes to the end. Needs a regular file."`
	fileFlags
}

func (cmd Decrypt) Run(ctx context.Context, c *console.Console) error {
	part, err := file.ParseRange(cmd.Range)
	if err != nil {
		return err
	}
	removeSuffix := func(base string) string { return strings.TrimSuffix(base, suffix) }
	return cmd.each(ctx, c, cmd.Source(), removeSuffix, func(ctx context.Context, p pair, obj sse.Object, k *lazyKeys) error {
		return cmd.decrypt(ctx, c, p, obj, part, k)
	})
}

func (cmd Decrypt) decrypt(ctx context.Context, c *console.Console, p pair, obj sse.Object, part *file.Range, open *lazyKeys) error {
	o, err := Open(ctx, c, p.in)
	if err != nil {
		return err
	}
	defer o.Close()
	if part != nil && !o.Regular() {
		return message.Usagef("--range needs a regular file, not %s", o.Name)
	}
	out, err := file.CreateFor(ctx, c, o.Input, p.out, 0o600, cmd.Force)
	if err != nil {
		return err
	}
	defer out.Discard()
	k, err := open.get()
	if err != nil {
		return err
	}
	d, err := o.Decrypt(ctx, k, obj)
	if err != nil {
		return err
	}
	src, plain, err := o.plaintext(ctx, c, d, part)
	if err != nil {
		return aboutObject(o, k, err)
	}
	defer src.Done()
	n, err := io.Copy(out, plain)
	if err != nil {
		return aboutObject(o, k, err)
	}
	src.Done()
	if err := out.Commit(); err != nil {
		return err
	}
	return c.ReportFile(console.File{From: o.Name, To: out.Name, Bytes: n})
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
