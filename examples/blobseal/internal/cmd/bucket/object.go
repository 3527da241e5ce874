package bucket

import (
	"cmp"
	"context"
	"io"
	"mime"
	"path"

	"github.com/blobseal/blobseal/examples/blobseal/internal/console"
	"github.com/blobseal/blobseal/examples/blobseal/internal/file"
	"github.com/blobseal/blobseal/examples/blobseal/internal/keys"
	"github.com/blobseal/blobseal/examples/blobseal/internal/message"

	gcblob "gocloud.dev/blob"
	"gocloud.dev/gcerrors"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/blob/jobs"
)

type putCmd struct {
	bucketFlags
	keys.Flags
	BucketKey   bool     `group:"keys" help:"With --kms: bind the service's data key to the bucket (see encrypt)."`
	Context     []string `placeholder:"K=V" sep:"none" help:"Pair of the encryption context; may be repeated. Bound to the object, and not secret."`
	ContentType string   `placeholder:"TYPE" help:"Content type; by default that of the extension of KEY or IN, or else of the data."`
	Force       bool     `help:"Replace the object if it exists."`
	In          string   `arg:"" name:"in" help:"Plaintext; - is standard input."`
	Key         string   `arg:"" help:"Object to write, such as 2026/cat.jpg."`
}

func (cmd putCmd) Run(ctx context.Context, c *console.Console) error {
	source := cmd.Source()
	source.BucketKey = cmd.BucketKey
	if err := source.Check(); err != nil {
		return err
	}
	pairs, err := console.ParsePairs("--context", cmd.Context)
	if err != nil {
		return err
	}
	ctx = keys.AsPrincipal(ctx, cmd.Principal)
	in, err := file.Open(ctx, c, cmd.In)
	if err != nil {
		return err
	}
	defer in.Close()
	k, err := source.Open(ctx, c)
	if err != nil {
		return err
	}
	defer k.Close()
	b, err := cmd.open(ctx, blob.Options{}, k)
	if err != nil {
		return err
	}
	defer b.Close()
	src := c.Track(ctx, in.Name, in.R, in.Size)
	defer src.Done()
	writing, abort := context.WithCancel(ctx) // ending its ctx aborts a writer
	defer abort()
	bound, err := b.With(blob.Request{Context: pairs})
	if err != nil {
		return cmd.about(b, k, err)
	}
	w, err := bound.NewWriter(writing, cmd.Key, &gcblob.WriterOptions{
		ContentType: cmp.Or(cmd.ContentType, typeByName(cmd.Key), typeByName(cmd.In)),
		IfNotExist:  !cmd.Force,
	})
	if err != nil {
		return cmd.about(b, k, err)
	}
	n, err := io.Copy(w, src)
	if err != nil {
		abort()
		w.Close()
		return cmd.about(b, k, err)
	}
	if err := w.Close(); err != nil {
		return cmd.about(b, k, err)
	}
	src.Done()
	return c.Wrote(console.File{From: in.Name, To: cmd.Key, Bytes: n})
}

// typeByName returns the content type of a name's extension, or "". Sniffing would take
// CSS, scripts, JSON and SVG for text/plain.
func typeByName(name string) string { return mime.TypeByExtension(path.Ext(name)) }

// about returns an error of writing as a [message.Problem].
func (cmd putCmd) about(b *bucket, k *keys.Keys, err error) error {
	switch {
	case !cmd.Force && gcerrors.Code(err) == gcerrors.FailedPrecondition && !message.IsKeys(err):
		return message.Problemf(err, cmd.Key, "already exists; --force replaces it")
	case message.IsKeys(err):
		return k.AboutSealing(err)
	}
	return b.aboutObject(cmd.Key, jobs.KeyRef{}, err)
}

type getCmd struct {
	bucketFlags
	keys.OpenFlags
	AllowPlain bool   `help:"Read an object that is not encrypted, too."`
	Range      string `placeholder:"OFF-END" help:"Bytes of the plaintext, as in HTTP: END is included, and OFF- goes to the end."`
	Force      bool   `help:"Replace OUT if it exists."`
	Key        string `arg:"" help:"Object to read."`
	Out        string `arg:"" name:"out" help:"Plaintext; - is standard output."`
}

func (cmd getCmd) Run(ctx context.Context, c *console.Console) error {
	if err := cmd.Source().Check(); err != nil {
		return err
	}
	part, err := file.ParseRange(cmd.Range)
	if err != nil {
		return err
	}
	ctx = keys.AsPrincipal(ctx, cmd.Principal)
	out, err := file.Create(ctx, c, cmd.Out, 0o600, cmd.Force)
	if err != nil {
		return err
	}
	defer out.Discard()
	k, err := cmd.Source().Open(ctx, c)
	if err != nil {
		return err
	}
	defer k.Close()
	b, err := cmd.open(ctx, blob.Options{AllowPlain: cmd.AllowPlain}, k)
	if err != nil {
		return err
	}
	defer b.Close()
	off, n := int64(0), int64(-1)
	if part != nil {
		attrs, err := b.Attributes(ctx, cmd.Key)
		if err != nil {
			return b.aboutReading(ctx, cmd.Key, err)
		}
		if off, n, err = part.Within(attrs.Size); err != nil {
			return message.Problemf(err, cmd.Key, "%s", err)
		}
	}
	r, err := b.NewRangeReader(ctx, cmd.Key, off, n, nil)
	if err != nil {
		return b.aboutReading(ctx, cmd.Key, err)
	}
	defer r.Close()
	size := n
	if n < 0 {
		size = r.Size()
	}
	src := c.Track(ctx, cmd.Key, r, size)
	defer src.Done()
	read, err := io.Copy(out, src)
	if err != nil {
		return b.aboutReading(ctx, cmd.Key, err)
	}
	src.Done()
	if err := out.Commit(); err != nil {
		return err
	}
	return c.Wrote(console.File{From: cmd.Key, To: out.Name, Bytes: read})
}

// aboutReading returns an error of reading an object as a [message.Problem]. The object
// may tell its key.
func (b *bucket) aboutReading(ctx context.Context, key string, err error) error {
	var seal jobs.KeyRef
	if e, explainErr := b.ExplainRead(ctx, key); explainErr == nil {
		seal = jobs.KeyRef{Mode: e.Mode, KeyID: e.KeyID}
	}
	return b.aboutObject(key, seal, err)
}
