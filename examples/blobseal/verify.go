package main

import (
	"context"
	"errors"
	"io"
	"strings"

	"github.com/blobseal/blobseal/sse"
)

type verifyCmd struct {
	keyFlags
	objectFlags
	Files []string `arg:"" name:"file" help:"Sealed file; - is standard input."`
}

func (verifyCmd) Help() string {
	return `Reads each file to its end and checks every chunk, as decrypt would, without releasing anything. It writes a line for each file, and goes on after a bad one; a damaged file's line names the first bad chunk. The exit code is 0 if all are good.

    blobseal verify --ring my.ring --root-key-file root.key *.enc`
}

func (cmd verifyCmd) Run(ctx context.Context, c *console) error {
	if err := cmd.source().check(); err != nil {
		return err
	}
	ctx = asPrincipal(ctx, cmd.Principal)
	obj, err := cmd.object()
	if err != nil {
		return err
	}
	k, err := cmd.source().open(ctx, c)
	if err != nil {
		return err
	}
	defer k.Close()
	bad := 0
	for _, name := range cmd.Files {
		n, err := c.verify(ctx, name, k, obj)
		if errors.Is(err, context.Canceled) {
			return err
		}
		if err != nil {
			bad++
			reason := strings.TrimPrefix(oneLine(err), printable(name)+": ")
			err = c.printf("%s: FAILED: %s\n", printable(name), reason)
		} else {
			err = c.printf("%s: OK, %d bytes\n", printable(name), n)
		}
		if err != nil {
			return err
		}
	}
	if bad > 0 {
		return problemf(nil, "%d of %d files failed verification", bad, len(cmd.Files))
	}
	return nil
}

// verify reads a file to its end and returns the plaintext's size.
func (c *console) verify(ctx context.Context, name string, k *keys, obj sse.Object) (int64, error) {
	o, err := c.openObject(ctx, name)
	if err != nil {
		return 0, err
	}
	defer o.Close()
	d, err := o.decrypt(ctx, k, obj)
	if err != nil {
		return 0, err
	}
	src := c.track(ctx, o.name, o.body, o.size)
	defer src.done()
	n, err := io.Copy(io.Discard, d.Reader(src))
	return n, aboutObject(o, k, err)
}
