package object

import (
	"context"
	"errors"
	"io"

	"github.com/blobseal/blobseal/examples/blobseal/internal/console"
	"github.com/blobseal/blobseal/examples/blobseal/internal/keys"
	"github.com/blobseal/blobseal/examples/blobseal/internal/message"
	"github.com/blobseal/blobseal/sse"
)

type Verify struct {
	keys.OpenFlags
	objectFlags
	Files []string `arg:"" name:"file" help:"Sealed file; - is standard input."`
}

func (cmd Verify) Run(ctx context.Context, c *console.Console) error {
	if err := cmd.Source().Check(); err != nil {
		return err
	}
	ctx = keys.AsPrincipal(ctx, cmd.Principal)
	obj, err := cmd.object()
	if err != nil {
		return err
	}
	k, err := cmd.Source().Open(ctx, c)
	if err != nil {
		return err
	}
	defer k.Close()
	bad := 0
	var failures message.Failures
	for _, name := range cmd.Files {
		n, err := verify(ctx, c, name, k, obj)
		if errors.Is(err, context.Canceled) {
			return err
		}
		if err != nil {
			bad++
			failures.Add(err)
			reason := message.Reason(err, name)
			err = cmd.show(c, verdict{File: name, Error: reason})
		} else {
			c.Count(1, 0)
			err = cmd.show(c, verdict{File: name, OK: true, Bytes: n})
		}
		if err != nil {
			return err
		}
	}
	if bad > 0 {
		return message.Problemf(&failures, "", "%d of %d files failed verification", bad, len(cmd.Files))
	}
	return nil
}

// verdict is the result for a file in JSON. Scripts rely on it.
type verdict struct {
	File  string `json:"file"`
	OK    bool   `json:"ok"`
	Bytes int64  `json:"bytes"` // of the plaintext
	Error string `json:"error,omitempty"`
}

func (cmd Verify) show(c *console.Console, v verdict) error {
	switch {
	case c.JSON:
		return c.WriteLine(v)
	case !v.OK:
		return c.Printf("%s: %s: %s\n", message.Printable(v.File), c.Colour(console.Red, "FAILED"), v.Error)
	}
	return c.Printf("%s: %s, %d bytes\n", message.Printable(v.File), c.Colour(console.Green, "OK"), v.Bytes)
}

// verify reads a file to its end and returns the plaintext's size.
func verify(ctx context.Context, c *console.Console, name string, k *keys.Keys, obj sse.Object) (int64, error) {
	o, err := Open(ctx, c, name)
	if err != nil {
		return 0, err
	}
	defer o.Close()
	d, err := o.Decrypt(ctx, k, obj)
	if err != nil {
		return 0, err
	}
	src, plain, err := o.openBody(ctx, c, d)
	if err != nil {
		return 0, aboutObject(o, k, err)
	}
	defer src.Done()
	n, err := io.Copy(io.Discard, plain)
	return n, aboutObject(o, k, err)
}
