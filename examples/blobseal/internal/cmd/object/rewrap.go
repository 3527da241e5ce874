package object

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/blobseal/blobseal/examples/blobseal/internal/console"
	"github.com/blobseal/blobseal/examples/blobseal/internal/file"
	"github.com/blobseal/blobseal/examples/blobseal/internal/keys"
	"github.com/blobseal/blobseal/examples/blobseal/internal/message"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/localkms"
	"github.com/blobseal/blobseal/sse"
)

type Rewrap struct {
	keys.OpenFlags
	objectFlags

	keys.TargetFlags
	ToBucketKey *bool   `negatable:"" group:"target" help:"Bind the service's data key to the bucket, or not (see encrypt). By default files stay as they are."`
	ToObject    *string `group:"target" placeholder:"BUCKET/KEY" help:"Bind the file to another name. An empty one lets you rename it freely."`

	DryRun bool     `help:"Do everything except write, and show what would fail."`
	Files  []string `arg:"" name:"file" help:"Sealed file."`
}

func (cmd Rewrap) Run(ctx context.Context, c *console.Console) (err error) {
	source, to, same := cmd.Target(cmd.Source(), cmd.ToBucketKey != nil)
	if err := source.Check(); err != nil {
		return err
	}
	switch {
	case !same:
		if err := to.Check(); err != nil {
			return err
		}
	case cmd.CustomerKeyFile != "" && cmd.ToObject == nil:
		return message.Usagef("nothing to change: give --to-ring, --to-kms, --to-customer-key-file or --to-object")
	}
	ctx = keys.AsPrincipal(ctx, cmd.Principal)
	job := Job{Console: c, toKey: cmd.ToKMSKey, toBucketKey: cmd.ToBucketKey, dryRun: cmd.DryRun}
	if job.from, err = cmd.object(); err != nil {
		return err
	}
	job.to = sse.Object{Bucket: job.from.Bucket, Key: job.from.Key}
	if cmd.ToObject != nil {
		if job.to, err = parseObject("--to-object", *cmd.ToObject); err != nil {
			return err
		}
	}
	job.to.AnyContext = true // keeps the stored context
	if job.source, err = source.Open(ctx, c); err != nil {
		return err
	}
	defer job.source.Close()
	job.target = job.source
	if !same {
		if job.target, err = to.Open(ctx, c); err != nil {
			return err
		}
		defer job.target.Close()
		if job.toKey == "" {
			job.toKey = localkms.DefaultAlias
		}
	}
	return console.ForEach(ctx, cmd.Files, func(name string) error { return job.run(ctx, name) })
}

// Job is a rewrap of several files.
type Job struct {
	*console.Console
	source, target *keys.Keys
	from, to       sse.Object

	// For a key service:
	toKey       string // empty for each file's own key
	toBucketKey *bool  // nil to leave it

	dryRun bool
}

// sealer returns the keys for a file that has the envelope env.
func (r *Job) sealer(env *sse.Envelope) (*keys.Keys, error) {
	if r.target.Service == nil {
		return r.target, nil
	}
	key, bucketKey := r.toKey, env.BucketKeyEnabled()
	if key == "" {
		key = env.KeyID()
	}
	if r.toBucketKey != nil {
		bucketKey = *r.toBucketKey
	}
	return r.target.Service.Keys(key, bucketKey)
}

func (r *Job) run(ctx context.Context, name string) error {
	if name == "-" {
		return message.Usagef("rewrap replaces files, and - is standard input (write ./- for a file of that name)")
	}
	in, err := file.OpenToReplace(ctx, name)
	if err != nil {
		return message.About(name, err)
	}
	o, err := readObject(in)
	if err != nil {
		return err
	}
	defer o.Close()
	var used, next kms.Report
	d, err := o.Decrypt(kms.WithReport(ctx, &used), r.source, r.from)
	if err != nil {
		return err
	}
	if r.isNewest(ctx, o.env) {
		return r.reportCurrent(o)
	}
	target, err := r.sealer(o.env)
	if err != nil {
		return notChanged(o, err)
	}
	env, err := target.Rewrap(kms.WithReport(ctx, &next), r.to, d)
	if err != nil {
		return notChanged(o, target.AboutSealing(err))
	}
	if next.KeyVersion == used.KeyVersion && r.changesVersionOnly(o.env, env) {
		return r.reportCurrent(o)
	}
	changed, err := r.encode(ctx, o, target, env)
	if err != nil {
		return notChanged(o, err)
	}
	if r.dryRun {
		return r.report(o, "would be rewrapped", describe(o.env, used.KeyVersion), describe(env, next.KeyVersion))
	}
	if err := r.Replace(ctx, o, changed); err != nil {
		return err
	}
	return r.report(o, "rewrapped", describe(o.env, used.KeyVersion), describe(env, next.KeyVersion))
}

// rewrapped is the result for a file in JSON. Scripts rely on it.
type rewrapped struct {
	File string `json:"file"`
	Done string `json:"done"` // rewrapped, would be rewrapped or current
	From string `json:"from"`
	To   string `json:"to"`
}

func (r *Job) report(o *Object, done, from, to string) error {
	r.Count(1, 0)
	return r.ReportChange(rewrapped{o.Name, done, from, to}, "%s: %s from %s to %s\n", message.Printable(o.Name), done, from, to)
}

// reportCurrent reports that a file needs no rewrap.
func (r *Job) reportCurrent(o *Object) error {
	r.Count(1, 0)
	return r.ReportChange(rewrapped{o.Name, "current", o.env.KeyID(), o.env.KeyID()}, "%s: already under the newest version, %s\n", message.Printable(o.Name), o.env.KeyID())
}

// isNewest reports whether a file is under the newest version of the ring already.
func (r *Job) isNewest(ctx context.Context, env *sse.Envelope) bool {
	if r.target != r.source || r.source.Ring == nil || r.renames() {
		return false
	}
	key, err := r.source.Ring.Primary(ctx)
	return err == nil && key.ID() == env.KeyID()
}

// changesVersionOnly reports whether a rewrap changes nothing but the version of the service's key.
func (r *Job) changesVersionOnly(old, env *sse.Envelope) bool {
	return r.target.Service != nil && r.target.Service == r.source.Service && !r.renames() &&
		env.KeyID() == old.KeyID() && env.BucketKeyEnabled() == old.BucketKeyEnabled()
}

func (r *Job) renames() bool { return r.from.Bucket != r.to.Bucket || r.from.Key != r.to.Key }

// notChanged returns an error that says that the file is as it was.
func notChanged(o *Object, err error) error {
	if errors.Is(err, context.Canceled) {
		return message.About(o.Name, err)
	}
	return message.Problemf(err, o.Name, "not changed: %s", message.Reason(message.About(o.Name, err), o.Name))
}

// Changed is what a rewrap puts in the place of a file: head, the bytes of the file that
// stay, and tail.
type Changed struct {
	Head []byte
	Stay *io.SectionReader
	Tail []byte
}

// encode encodes the new envelope. It proves that the encoding opens, and that it belongs
// to the file's body.
func (r *Job) encode(ctx context.Context, o *Object, target *keys.Keys, env *sse.Envelope) (*Changed, error) {
	var err error
	if o.trailer == nil && env.Size() > o.env.Size() {
		if env, err = env.WithSize(envelopeSize(env)); err != nil {
			return nil, err
		}
	}
	data, err := env.MarshalBinary()
	if err != nil {
		return nil, err
	}
	again := new(sse.Envelope)
	if err := again.UnmarshalBinary(data); err != nil {
		return nil, err
	}
	if target.Service == nil || target.Service.MayOpen(ctx, r.to, again) { // policies may permit writing without reading
		if _, err := target.Decrypt(ctx, r.to, again); err != nil {
			return nil, fmt.Errorf("the new envelope does not open: %w", err)
		}
	}
	if o.trailer != nil {
		return o.replaceTail(env)
	}
	now, err := sse.ReadEnvelope(io.NewSectionReader(o.File, 0, o.Input.Size))
	if err != nil {
		return nil, err
	}
	if now.BodyID() != again.BodyID() {
		return nil, errChanged
	}
	return &Changed{Head: data, Stay: o.bodyAt()}, nil
}

var errChanged = errors.New("the file changed meanwhile")

// replaceTail puts an envelope into the end of a composite file.
func (o *Object) replaceTail(env *sse.Envelope) (*Changed, error) {
	now, err := sse.ReadTrailer(o.File, o.Input.Size)
	if err != nil {
		return nil, err
	}
	if !now.Envelope().Equal(o.env) {
		return nil, errChanged
	}
	tail, off, err := now.Replace(env)
	if err != nil {
		return nil, err
	}
	return &Changed{Stay: io.NewSectionReader(o.File, 0, off), Tail: tail}, nil
}

// Replace writes a new file and puts it in the place of the old one.
func (r *Job) Replace(ctx context.Context, o *Object, changed *Changed) error {
	out, err := file.Replace(ctx, o.Input)
	if err != nil {
		return notChanged(o, err)
	}
	defer out.Discard()
	size := changed.Stay.Size()
	src := r.Track(ctx, o.Name, changed.Stay, size)
	defer src.Done()
	if _, err := out.Write(changed.Head); err != nil {
		return notChanged(o, err)
	}
	n, err := io.Copy(out, src)
	if err == nil && n != size {
		err = io.ErrUnexpectedEOF
	}
	if err == nil {
		_, err = out.Write(changed.Tail)
	}
	if err != nil {
		return notChanged(o, err)
	}
	src.Done()
	if now, err := os.Stat(o.Path); err != nil || !os.SameFile(now, o.Info) {
		return notChanged(o, errors.New("the file was replaced meanwhile"))
	}
	return out.Commit()
}

// describe names what an envelope is sealed under. The version is that of a key
// service's key.
func describe(env *sse.Envelope, version string) string {
	text := "a customer key"
	switch env.Mode() {
	case sse.ModeManaged:
		text = "version " + env.KeyID()
	case sse.ModeKMS:
		text = "key " + env.KeyID()
	}
	if version != "" {
		text += " version " + version
	}
	if env.BucketKeyEnabled() {
		text += " (bucket key)"
	}
	return text
}
