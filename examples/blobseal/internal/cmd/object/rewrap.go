package object

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/blobseal/blobseal/examples/blobseal/internal/console"
	"github.com/blobseal/blobseal/examples/blobseal/internal/file"
	"github.com/blobseal/blobseal/examples/blobseal/internal/keys"
	"github.com/blobseal/blobseal/examples/blobseal/internal/message"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/localkms"
	"github.com/blobseal/blobseal/sse"
)

type Rewrap struct {
	keys.Flags
	objectFlags

	keys.TargetFlags
	ToBucketKey *bool   `negatable:"" group:"target" help:"Bind the service's data key to the bucket, or not; see encrypt. By default a file stays as it is."`
	ToObject    *string `group:"target" placeholder:"BUCKET/KEY" help:"Bind the file to another name; an empty one frees it."`

	Files []string `arg:"" name:"file" help:"Sealed file."`
}

func (Rewrap) Help() string {
	return `Run it after a rotation, to move files to the newest key, or to hand them to another key, ring, service or name. It changes the envelope at the head of the file and leaves the body alone, whatever its size. A file that is under the newest key already is left as it is. Under a key service it asks for a new data key, of the file's own key unless --to-kms-key names another one.

It is safe to interrupt or crash: the file opens under the old key or the new one. What is unfinished is in a journal beside the file (.NAME.blobseal-rewrap), which all commands heed and the next rewrap completes; keep the two together. Copies of the file from before still open under the old key.

    blobseal rewrap --ring my.ring --root-key-file root.key *.enc
    blobseal rewrap --kms my.kms --root-key-file root.key --to-kms-key alias/archive *.enc
    blobseal rewrap --ring my.ring --root-key-file root.key --to-kms my.kms --to-root-key-file kms.key photo.enc
    blobseal rewrap --ring my.ring --root-key-file root.key --to-customer-key-file my.key photo.enc`
}

func (cmd Rewrap) Run(ctx context.Context, c *console.Console) (err error) {
	source := cmd.Source()
	to, same := cmd.Target(source, cmd.ToBucketKey != nil)
	if (to.KMS != "" || to.Root.Local()) && source.KMS == "" {
		source.Principal = "" // it is the target's
	}
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
	job := Job{Console: c, toKey: cmd.ToKMSKey, toBucketKey: cmd.ToBucketKey}
	if job.from, err = cmd.object(); err != nil {
		return err
	}
	job.to = sse.Object{Bucket: job.from.Bucket, Key: job.from.Key} // and the stored context
	if cmd.ToObject != nil {
		if job.to, err = parseObject("--to-object", *cmd.ToObject); err != nil {
			return err
		}
	}
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

// Job is what to do to each file.
type Job struct {
	*console.Console
	source, target *keys.Keys
	from, to       sse.Object

	// Of a key service:
	toKey       string // empty for each file's own
	toBucketKey *bool  // nil for as it is
}

// sealer is what seals a file that was under env until now.
func (r *Job) sealer(env *sse.Envelope) (*keys.Keys, error) {
	if r.target.Service == nil {
		return r.target, nil
	}
	key, bucketKey := r.toKey, env.BucketKey()
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
		return message.Usagef("rewrap changes files; - is none (./- is)")
	}
	path, f, err := lockForRewrap(ctx, name)
	if err != nil {
		return message.About(name, err)
	}
	defer f.Close()
	j, err := file.FindJournal(path, f)
	if err != nil {
		return message.About(name, err)
	}
	if err := j.Settle(name, f); err != nil {
		return message.About(name, err)
	}
	info, err := f.Stat()
	if err != nil {
		return message.About(name, err)
	}
	o := &Object{Input: &file.Input{Name: name, R: f, File: f, Info: info, Size: info.Size()}}
	if o.env, err = sse.ReadEnvelope(io.NewSectionReader(f, 0, info.Size())); err != nil {
		return aboutObject(o, nil, err)
	}
	o.Size = info.Size() - int64(o.env.Size())

	var used kms.Report
	d, err := o.Decrypt(kms.WithReport(ctx, &used), r.source, r.from)
	if err != nil {
		return err
	}
	already := func() error {
		return r.Printf("%s: is under the newest key already, %s\n", message.Printable(name), o.env.KeyID())
	}
	if r.newest(ctx, o.env) {
		return already()
	}
	target, err := r.sealer(o.env)
	if err != nil {
		return notChanged(o, err)
	}
	var next kms.Report
	env, err := target.Rewrap(kms.WithReport(ctx, &next), r.to, d)
	if err != nil {
		return notChanged(o, target.AboutSealing(err))
	}
	if next.KeyVersion == used.KeyVersion && r.staysWith(o.env, env) {
		return already()
	}
	env, data, err := r.encode(ctx, o, target, env)
	if err != nil {
		return notChanged(o, err)
	}
	how := "in place"
	if env.Size() == o.env.Size() {
		if err := j.Write(data, info); err != nil {
			return message.Problemf(err, "%s: not changed: %s", name, message.Plain(err))
		}
		err = j.Apply(f)
		if err != nil {
			err = file.Unfinished(name, err)
		}
	} else {
		how = "into a new file, since the envelope grew"
		err = r.Replace(ctx, path, o, data)
	}
	if err != nil {
		return err
	}
	return r.Printf("%s: rewrapped from %s to %s, %s\n", message.Printable(name), describe(o.env, used.KeyVersion), describe(env, next.KeyVersion), how)
}

// newest tells whether a file of a ring is where it should be.
func (r *Job) newest(ctx context.Context, env *sse.Envelope) bool {
	if r.target != r.source || r.source.Ring == nil || r.renames() {
		return false
	}
	key, err := r.source.Ring.Primary(ctx)
	return err == nil && key.ID() == env.KeyID()
}

// staysWith tells whether the file keeps all but the version of its service's key.
func (r *Job) staysWith(old, env *sse.Envelope) bool {
	return r.target.Service != nil && r.target.Service == r.source.Service && !r.renames() &&
		env.KeyID() == old.KeyID() && env.BucketKey() == old.BucketKey()
}

func (r *Job) renames() bool { return r.from.Bucket != r.to.Bucket || r.from.Key != r.to.Key }

// notChanged is an error before anything was written.
func notChanged(o *Object, err error) error {
	if errors.Is(err, context.Canceled) {
		return message.About(o.Name, err)
	}
	text := message.Plain(err)
	if p := new(message.Problem); errors.As(err, &p) {
		text = p.Error()
	}
	return message.Problemf(err, "%s: not changed: %s", o.Name, text)
}

// encode encodes the new envelope, in the old one's size if it fits, and proves
// that it opens the file's body.
func (r *Job) encode(ctx context.Context, o *Object, target *keys.Keys, env *sse.Envelope) (*sse.Envelope, []byte, error) {
	var err error
	if env.Size() > o.env.Size() {
		if env, err = env.WithSize(envelopeSize(env)); err != nil {
			return nil, nil, err
		}
	}
	data, err := env.MarshalBinary()
	if err != nil {
		return nil, nil, err
	}
	again := new(sse.Envelope)
	if err := again.UnmarshalBinary(data); err != nil {
		return nil, nil, err
	}
	if target.Service == nil || target.Service.MayOpen(ctx, r.to, again) { // else who writes may not read
		if _, err := target.Decrypt(ctx, r.to, again); err != nil {
			return nil, nil, fmt.Errorf("the new envelope does not open: %w", err)
		}
	}
	head := make([]byte, file.HeadSize)
	if _, err := o.File.ReadAt(head, int64(o.env.Size()-file.HeadSize)); err != nil {
		return nil, nil, err
	}
	if !bytes.HasSuffix(data, head) {
		return nil, nil, errors.New("the file changed meanwhile")
	}
	return again, data, nil
}

// Replace writes a new file with the envelope and the body, and puts it in the
// place of the old one.
func (r *Job) Replace(ctx context.Context, path string, o *Object, envelope []byte) error {
	out, err := file.Replacement(ctx, o.Name, path, o.Info)
	if err != nil {
		return err
	}
	defer out.Discard()
	src := r.Track(ctx, o.Name, o.bodyAt(), o.Size)
	defer src.Done()
	if _, err := out.Write(envelope); err != nil {
		return err
	}
	n, err := io.Copy(out, src)
	if err == nil && n != o.Size {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return message.About(o.Name, err)
	}
	src.Done()
	if now, err := os.Stat(path); err != nil || !os.SameFile(now, o.Info) {
		return message.Problemf(err, "%s: not changed: the file was replaced meanwhile", o.Name)
	}
	return out.Commit()
}

// lockForRewrap opens a file for changing it, once no one else does. The path is
// without links.
func lockForRewrap(ctx context.Context, name string) (path string, f *os.File, err error) {
	for {
		if path, err = filepath.EvalSymlinks(name); err != nil {
			return "", nil, err
		}
		info, err := os.Stat(path)
		switch {
		case err != nil:
			return "", nil, err
		case info.IsDir():
			return "", nil, message.ErrIsDirectory
		case !info.Mode().IsRegular():
			return "", nil, errors.New("not a regular file")
		}
		if f, err = os.OpenFile(path, os.O_RDWR, 0); err != nil {
			return "", nil, err
		}
		if err := file.Lock(ctx, f, true); err != nil {
			f.Close()
			return "", nil, err
		}
		opened, err := f.Stat()
		if err == nil {
			info, err = os.Stat(path)
		}
		if err == nil && os.SameFile(opened, info) {
			return path, f, nil
		}
		f.Close() // it was replaced meanwhile
		if err != nil {
			return "", nil, err
		}
	}
}

// describe names what an envelope is sealed under. The version is that of a key
// service's key.
func describe(env *sse.Envelope, version string) string {
	text := "a customer key"
	if id := env.KeyID(); id != "" {
		text = "key " + id
	}
	if version != "" {
		text += " version " + version
	}
	if env.BucketKey() {
		text += " (bucket key)"
	}
	return text
}
