package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/localkms"
	"github.com/blobseal/blobseal/sse"
)

// targetFlags name what to seal under instead.
type targetFlags struct {
	ToRing            string `group:"target" placeholder:"FILE" help:"The newest key of another ring."`
	ToKMS             string `name:"to-kms" group:"target" placeholder:"DIR" help:"Another key service."`
	ToKMSKey          string `name:"to-kms-key" group:"target" placeholder:"KEY" help:"Another key of the service, as its id, ARN or alias; of another service by default alias/blobseal/default."`
	ToRootKeyFile     string `group:"target" placeholder:"FILE" help:"Root key of the other ring or service."`
	ToPassphraseFile  string `group:"target" placeholder:"FILE" help:"Passphrase of the other ring or service. Or set BLOBSEAL_TO_PASSPHRASE."`
	ToRootKMSKey      string `name:"to-root-kms-key" group:"target" placeholder:"URL" help:"Root key of the other ring or service in a key service."`
	ToCustomerKeyFile string `group:"target" placeholder:"FILE" help:"A customer key."`
}

// target is what to seal under, for files that are under source now; same tells
// that it is the same ring or service.
func (f targetFlags) target(source keySource, bucketKey bool) (to keySource, same bool) {
	to = keySource{
		ring:      f.ToRing,
		kms:       f.ToKMS,
		kmsKey:    f.ToKMSKey,
		bucketKey: bucketKey,
		root:      rootSource{f.ToRootKeyFile, f.ToPassphraseFile, f.ToRootKMSKey, "to-", "BLOBSEAL_TO_PASSPHRASE"},
		customer:  f.ToCustomerKeyFile,
	}
	same = to.ring == "" && to.kms == "" && to.customer == "" && to.root.keyFile == "" && to.root.passphraseFile == "" && to.root.kmsKey == "" &&
		(source.kms != "" || to.kmsKey == "" && !to.bucketKey)
	return to, same
}

type rewrapCmd struct {
	keyFlags
	objectFlags

	targetFlags
	ToBucketKey *bool   `negatable:"" group:"target" help:"Bind the service's data key to the bucket, or not; see encrypt. By default a file stays as it is."`
	ToObject    *string `group:"target" placeholder:"BUCKET/KEY" help:"Bind the file to another name; an empty one frees it."`

	Files []string `arg:"" name:"file" help:"Sealed file."`
}

func (rewrapCmd) Help() string {
	return `Run it after a rotation, to move files to the newest key, or to hand them to another key, ring, service or name. It changes the envelope at the head of the file and leaves the body alone, whatever its size. A file that is under the newest key already is left as it is. Under a key service it asks for a new data key, of the file's own key unless --to-kms-key names another one.

It is safe to interrupt or crash: the file opens under the old key or the new one. What is unfinished is in a journal beside the file (.NAME.blobseal-rewrap), which all commands heed and the next rewrap completes; keep the two together. Copies of the file from before still open under the old key.

    blobseal rewrap --ring my.ring --root-key-file root.key *.enc
    blobseal rewrap --kms my.kms --root-key-file root.key --to-kms-key alias/archive *.enc
    blobseal rewrap --ring my.ring --root-key-file root.key --to-kms my.kms --to-root-key-file kms.key photo.enc
    blobseal rewrap --ring my.ring --root-key-file root.key --to-customer-key-file my.key photo.enc`
}

func (cmd rewrapCmd) Run(ctx context.Context, c *console) (err error) {
	source := cmd.source()
	to, same := cmd.target(source, cmd.ToBucketKey != nil)
	if (to.kms != "" || to.root.local()) && source.kms == "" {
		source.principal = "" // it is the target's
	}
	if err := source.check(); err != nil {
		return err
	}
	switch {
	case !same:
		if err := to.check(); err != nil {
			return err
		}
	case cmd.CustomerKeyFile != "" && cmd.ToObject == nil:
		return usagef("nothing to change: give --to-ring, --to-kms, --to-customer-key-file or --to-object")
	}
	ctx = asPrincipal(ctx, cmd.Principal)
	job := rewrap{console: c, toKey: cmd.ToKMSKey, toBucketKey: cmd.ToBucketKey}
	if job.from, err = cmd.object(); err != nil {
		return err
	}
	job.to = sse.Object{Bucket: job.from.Bucket, Key: job.from.Key} // and the stored context
	if cmd.ToObject != nil {
		if job.to, err = parseObject("--to-object", *cmd.ToObject); err != nil {
			return err
		}
	}
	if job.source, err = source.open(ctx, c); err != nil {
		return err
	}
	defer job.source.Close()
	job.target = job.source
	if !same {
		if job.target, err = to.open(ctx, c); err != nil {
			return err
		}
		defer job.target.Close()
		if job.toKey == "" {
			job.toKey = localkms.DefaultAlias
		}
	}
	return forEach(ctx, cmd.Files, func(name string) error { return job.run(ctx, name) })
}

// rewrap is what to do to each file.
type rewrap struct {
	*console
	source, target *keys
	from, to       sse.Object

	// Of a key service:
	toKey       string // empty for each file's own
	toBucketKey *bool  // nil for as it is
}

// sealer is what seals a file that was under env until now.
func (r *rewrap) sealer(env *sse.Envelope) (*keys, error) {
	if r.target.service == nil {
		return r.target, nil
	}
	key, bucketKey := r.toKey, env.BucketKey()
	if key == "" {
		key = env.KeyID()
	}
	if r.toBucketKey != nil {
		bucketKey = *r.toBucketKey
	}
	return r.target.service.keys(key, bucketKey)
}

func (r *rewrap) run(ctx context.Context, name string) error {
	if name == "-" {
		return usagef("rewrap changes files; - is none (./- is)")
	}
	path, f, err := lockForRewrap(ctx, name)
	if err != nil {
		return about(name, err)
	}
	defer f.Close()
	j, err := findJournal(path, f)
	if err != nil {
		return about(name, err)
	}
	if err := j.settle(name, f); err != nil {
		return about(name, err)
	}
	info, err := f.Stat()
	if err != nil {
		return about(name, err)
	}
	o := &object{input: &input{name: name, r: f, file: f, info: info, size: info.Size()}}
	if o.env, err = sse.ReadEnvelope(io.NewSectionReader(f, 0, info.Size())); err != nil {
		return aboutObject(o, nil, err)
	}
	o.size = info.Size() - int64(o.env.Size())

	var used kms.Report
	d, err := o.decrypt(kms.WithReport(ctx, &used), r.source, r.from)
	if err != nil {
		return err
	}
	already := func() error {
		return r.printf("%s: is under the newest key already, %s\n", printable(name), o.env.KeyID())
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
		return notChanged(o, target.aboutSealing(err))
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
		if err := j.write(data, info); err != nil {
			return problemf(err, "%s: not changed: %s", name, plain(err))
		}
		err = j.apply(f)
		if err != nil {
			err = unfinished(name, err)
		}
	} else {
		how = "into a new file, since the envelope grew"
		err = r.replace(ctx, path, o, data)
	}
	if err != nil {
		return err
	}
	return r.printf("%s: rewrapped from %s to %s, %s\n", printable(name), describe(o.env, used.KeyVersion), describe(env, next.KeyVersion), how)
}

// newest tells whether a file of a ring is where it should be.
func (r *rewrap) newest(ctx context.Context, env *sse.Envelope) bool {
	if r.target != r.source || r.source.ring == nil || r.renames() {
		return false
	}
	key, err := r.source.ring.Primary(ctx)
	return err == nil && key.ID() == env.KeyID()
}

// staysWith tells whether the file keeps all but the version of its service's key.
func (r *rewrap) staysWith(old, env *sse.Envelope) bool {
	return r.target.service != nil && r.target.service == r.source.service && !r.renames() &&
		env.KeyID() == old.KeyID() && env.BucketKey() == old.BucketKey()
}

func (r *rewrap) renames() bool { return r.from.Bucket != r.to.Bucket || r.from.Key != r.to.Key }

// notChanged is an error before anything was written.
func notChanged(o *object, err error) error {
	if errors.Is(err, context.Canceled) {
		return about(o.name, err)
	}
	text := plain(err)
	if p := new(problem); errors.As(err, &p) {
		text = p.Error()
	}
	return problemf(err, "%s: not changed: %s", o.name, text)
}

// encode encodes the new envelope, in the old one's size if it fits, and proves
// that it opens the file's body.
func (r *rewrap) encode(ctx context.Context, o *object, target *keys, env *sse.Envelope) (*sse.Envelope, []byte, error) {
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
	if target.service == nil || target.service.mayOpen(ctx, r.to, again) { // else who writes may not read
		if _, err := target.Decrypt(ctx, r.to, again); err != nil {
			return nil, nil, fmt.Errorf("the new envelope does not open: %w", err)
		}
	}
	head := make([]byte, headSize)
	if _, err := o.file.ReadAt(head, int64(o.env.Size()-headSize)); err != nil {
		return nil, nil, err
	}
	if !bytes.HasSuffix(data, head) {
		return nil, nil, errors.New("the file changed meanwhile")
	}
	return again, data, nil
}

// replace writes a new file with the envelope and the body, and puts it in the
// place of the old one.
func (r *rewrap) replace(ctx context.Context, path string, o *object, envelope []byte) error {
	out, err := replacement(ctx, o.name, path, o.info)
	if err != nil {
		return err
	}
	defer out.discard()
	src := r.track(ctx, o.name, o.bodyAt(), o.size)
	defer src.done()
	if _, err := out.Write(envelope); err != nil {
		return err
	}
	n, err := io.Copy(out, src)
	if err == nil && n != o.size {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return about(o.name, err)
	}
	src.done()
	if now, err := os.Stat(path); err != nil || !os.SameFile(now, o.info) {
		return problemf(err, "%s: not changed: the file was replaced meanwhile", o.name)
	}
	return out.commit()
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
			return "", nil, errIsDirectory
		case !info.Mode().IsRegular():
			return "", nil, errors.New("not a regular file")
		}
		if f, err = os.OpenFile(path, os.O_RDWR, 0); err != nil {
			return "", nil, err
		}
		if err := lockFile(ctx, f, true); err != nil {
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
