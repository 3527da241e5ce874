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
	"github.com/blobseal/blobseal/kms"
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
	in, err := file.Open(ctx, c, cmd.In)
	if err != nil {
		return err
	}
	defer in.Close()
	return cmd.with(ctx, c, source, blob.Options{}, func(ctx context.Context, b *bucket, k *keys.Keys) error {
		src := c.Track(ctx, in.Name, in.R, in.Size)
		defer src.Done()
		n, err := cmd.put(ctx, b, pairs, src)
		if err != nil {
			return cmd.about(b, k, err)
		}
		src.Done()
		return c.ReportFile(console.File{From: in.Name, To: cmd.Key, Bytes: n})
	})
}

// put writes the object, and returns the size of its plaintext.
func (cmd putCmd) put(ctx context.Context, b *bucket, pairs kms.Context, src io.Reader) (int64, error) {
	bound, err := b.With(blob.Request{Context: pairs})
	if err != nil {
		return 0, err
	}
	writing, abort := context.WithCancel(ctx) // ending its ctx aborts a writer
	defer abort()
	w, err := bound.NewWriter(writing, cmd.Key, &gcblob.WriterOptions{
		ContentType: cmp.Or(cmd.ContentType, typeByName(cmd.Key), typeByName(cmd.In)),
		IfNotExist:  !cmd.Force,
	})
	if err != nil {
		return 0, err
	}
	n, err := io.Copy(w, src)
	if err != nil {
		abort()
		w.Close()
		return 0, err
	}
	return n, w.Close()
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
	out, err := file.Create(ctx, c, cmd.Out, 0o600, cmd.Force)
	if err != nil {
		return err
	}
	defer out.Discard()
	return cmd.with(ctx, c, cmd.Source(), blob.Options{AllowPlain: cmd.AllowPlain}, func(ctx context.Context, b *bucket, _ *keys.Keys) error {
		n, err := b.copyTo(ctx, c, out, cmd.Key, part)
		if err != nil {
			return b.aboutReading(ctx, cmd.Key, err)
		}
		if err := out.Commit(); err != nil {
			return err
		}
		return c.ReportFile(console.File{From: cmd.Key, To: out.Name, Bytes: n})
	})
}

// copyTo writes the plaintext of an object, or a part of it, and returns its size.
func (b *bucket) copyTo(ctx context.Context, c *console.Console, dst io.Writer, key string, part *file.Range) (int64, error) {
	off, size := int64(0), int64(-1)
	if part != nil {
		attrs, err := b.Attributes(ctx, key)
		if err != nil {
			return 0, err
		}
		if off, size, err = part.Within(attrs.Size); err != nil {
			return 0, message.Problemf(err, key, "%s", err)
		}
	}
	r, err := b.NewRangeReader(ctx, key, off, size, nil)
	if err != nil {
		return 0, err
	}
	defer r.Close()
	if part == nil {
		size = r.Size()
	}
	src := c.Track(ctx, key, r, size)
	defer src.Done()
	return io.Copy(dst, src)
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
