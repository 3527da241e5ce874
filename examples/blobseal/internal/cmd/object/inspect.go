package object

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/blobseal/blobseal/examples/blobseal/internal/console"
	"github.com/blobseal/blobseal/examples/blobseal/internal/message"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/sse"
)

type Inspect struct {
	Files []string `arg:"" name:"file" help:"Sealed file; - is standard input."`
}

// inspection is the description of a file. Scripts rely on its JSON.
type inspection struct {
	File          string      `json:"file"`
	Mode          sse.Mode    `json:"mode"`
	KeyID         string      `json:"key_id"`     // empty for SSE-C
	BucketKey     bool        `json:"bucket_key"` // of SSE-KMS
	Context       kms.Context `json:"context"`
	Composite     bool        `json:"composite"` // uploaded in parts
	EnvelopeSize  int         `json:"envelope_size"`
	BodySize      int64       `json:"body_size"`
	PlaintextSize *int64      `json:"plaintext_size"` // null if no body has this size
}

func (cmd Inspect) Run(ctx context.Context, c *console.Console) error {
	several := false
	return console.ForEach(ctx, cmd.Files, func(name string) error {
		found, err := Describe(ctx, c, name)
		if err != nil {
			return err
		}
		if c.JSON {
			return c.WriteLine(found)
		}
		if several {
			if err := c.Printf("\n"); err != nil {
				return err
			}
		}
		several = true
		return c.Printf("%s", found)
	})
}

func Describe(ctx context.Context, c *console.Console, name string) (*inspection, error) {
	o, err := Open(ctx, c, name)
	if err != nil {
		return nil, err
	}
	defer o.Close()
	if o.Size < 0 {
		if o.Size, err = io.Copy(io.Discard, o.body); err != nil {
			return nil, message.About(o.Name, err)
		}
	}
	found := &inspection{
		File: name, Mode: o.env.Mode(), KeyID: o.env.KeyID(), BucketKey: o.env.BucketKeyEnabled(), Context: o.env.Context(),
		EnvelopeSize: o.env.Size(), BodySize: o.Size,
	}
	if o.trailer != nil {
		n := o.trailer.Size()
		found.PlaintextSize, found.Composite = &n, true
	} else if n, err := sse.PlaintextSize(o.Size); err == nil {
		found.PlaintextSize = &n
	}
	return found, nil
}

// String returns the description for people.
func (i *inspection) String() string {
	w := new(strings.Builder)
	meaning := map[sse.Mode]string{
		sse.ModeManaged: "a key ring", sse.ModeKMS: "a key service", sse.ModeCustomer: "a customer key",
	}
	fmt.Fprintf(w, "  mode\t%v, %s\n", i.Mode, meaning[i.Mode])
	if i.KeyID != "" {
		label := map[bool]string{true: "version", false: "key"}[i.Mode == sse.ModeManaged]
		fmt.Fprintf(w, "  %s\t%s\n", label, message.Printable(i.KeyID))
	}
	if i.BucketKey {
		fmt.Fprintf(w, "  bucket key\tyes: the key service bound the bucket, not the whole name\n")
	}
	if len(i.Context) == 0 {
		fmt.Fprintf(w, "  context\tnone\n")
	}
	label := "context"
	for _, pair := range message.Pairs(i.Context) {
		fmt.Fprintf(w, "  %s\t%s\n", label, pair)
		label = ""
	}
	fmt.Fprintf(w, "  envelope\t%d bytes\n", i.EnvelopeSize)
	if i.Composite {
		fmt.Fprintf(w, "  body\t%d bytes, uploaded in parts\n", i.BodySize)
	} else {
		fmt.Fprintf(w, "  body\t%d bytes\n", i.BodySize)
	}
	switch {
	case i.Composite:
		fmt.Fprintf(w, "  plaintext\t%d bytes, as the file states; not authenticated\n", *i.PlaintextSize)
	case i.PlaintextSize != nil:
		fmt.Fprintf(w, "  plaintext\t%d bytes, computed; not authenticated\n", *i.PlaintextSize)
	default:
		fmt.Fprintf(w, "  plaintext\tunknown: no body has this size, so the file is truncated\n")
	}
	return message.Printable(i.File) + "\n" + console.Align(w.String())
}
