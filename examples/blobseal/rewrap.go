package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"

	"github.com/blobseal/blobseal/sse"
)

type rewrapCmd struct {
	keyFlags
	objectFlags

	ToRing            string  `group:"target" placeholder:"FILE" help:"The newest key of another ring."`
	ToRootKeyFile     string  `group:"target" placeholder:"FILE" help:"The other ring's root key."`
	ToPassphraseFile  string  `group:"target" placeholder:"FILE" help:"The other ring's passphrase. Or set BLOBSEAL_TO_PASSPHRASE."`
	ToCustomerKeyFile string  `group:"target" placeholder:"FILE" help:"A customer key."`
	ToObject          *string `group:"target" placeholder:"BUCKET/KEY" help:"Bind the file to another name; an empty one frees it."`

	Files []string `arg:"" name:"file" help:"Sealed file."`
}

func (rewrapCmd) Help() string {
	return `Run it after a rotation, to move files to the newest key, or to hand them to another ring, key or name. It changes the envelope at the head of the file and leaves the body alone, whatever its size. A file that is under the newest key already is left as it is.

It is safe to interrupt or crash: the file opens under the old key or the new one. What is unfinished is in a journal beside the file (.NAME.blobseal-rewrap), which all commands heed and the next rewrap completes; keep the two together. Copies of the file from before still open under the old key.

    blobseal rewrap --ring my.ring --root-key-file root.key *.enc
    blobseal rewrap --ring my.ring --root-key-file root.key --to-customer-key-file my.key photo.enc`
}

func (cmd rewrapCmd) target() keySource {
	return keySource{
		ring:     cmd.ToRing,
		root:     rootSource{cmd.ToRootKeyFile, cmd.ToPassphraseFile, "to-", "BLOBSEAL_TO_PASSPHRASE"},
		customer: cmd.ToCustomerKeyFile,
	}
}

func (cmd rewrapCmd) Run(ctx context.Context, c *console) (err error) {
	if err := cmd.source().check(); err != nil {
		return err
	}
	to := cmd.target()
	same := to.ring == "" && to.customer == "" && to.root.keyFile == "" && to.root.passphraseFile == ""
	switch {
	case !same:
		if err := to.check(); err != nil {
			return err
		}
	case cmd.CustomerKeyFile != "" && cmd.ToObject == nil:
		return usagef("nothing to change: give --to-ring, --to-customer-key-file or --to-object")
	}
	job := rewrap{console: c}
	if job.from, err = cmd.object(); err != nil {
		return err
	}
	job.to = sse.Object{Bucket: job.from.Bucket, Key: job.from.Key} // and the stored context
	if cmd.ToObject != nil {
		if job.to, err = parseObject("--to-object", *cmd.ToObject); err != nil {
			return err
		}
	}
	if job.source, err = cmd.source().open(ctx); err != nil {
		return err
	}
	job.target = job.source
	if !same {
		if job.target, err = to.open(ctx); err != nil {
			return err
		}
	}
	return forEach(ctx, cmd.Files, func(name string) error { return job.run(ctx, name) })
}

// rewrap is what to do to each file.
type rewrap struct {
	*console
	source, target *keys
	from, to       sse.Object
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

	d, err := o.decrypt(ctx, r.source, r.from)
	if err != nil {
		return err
	}
	if r.done(ctx, o.env) {
		return r.printf("%s: is under the newest key already, %s\n", printable(name), o.env.KeyID())
	}
	env, data, err := r.seal(ctx, o, d)
	if err != nil {
		return err
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
	return r.printf("%s: rewrapped from %s to %s, %s\n", printable(name), describe(o.env), describe(env), how)
}

// done tells whether there is nothing to change.
func (r *rewrap) done(ctx context.Context, env *sse.Envelope) bool {
	if r.target != r.source || r.source.ring == nil || r.from.Bucket != r.to.Bucket || r.from.Key != r.to.Key {
		return false
	}
	key, err := r.source.ring.Primary(ctx)
	return err == nil && key.ID() == env.KeyID()
}

// seal makes the new envelope, in the old one's size if it fits, and proves that
// it opens the file's body.
func (r *rewrap) seal(ctx context.Context, o *object, d *sse.Decryption) (*sse.Envelope, []byte, error) {
	env, err := r.target.Rewrap(ctx, r.to, d)
	if err != nil {
		return nil, nil, r.target.aboutSealing(err)
	}
	if env.Size() > o.env.Size() {
		if env, err = env.WithSize(envelopeSize(env)); err != nil {
			return nil, nil, r.target.aboutSealing(err)
		}
	}
	data, err := env.MarshalBinary()
	if err != nil {
		return nil, nil, r.target.aboutSealing(err)
	}
	again := new(sse.Envelope)
	if err := again.UnmarshalBinary(data); err != nil {
		return nil, nil, aboutObject(o, nil, err)
	}
	if _, err := r.target.Decrypt(ctx, r.to, again); err != nil {
		return nil, nil, problemf(err, "%s: not changed: the new envelope does not open: %s", o.name, plain(err))
	}
	head := make([]byte, headSize)
	if _, err := o.file.ReadAt(head, int64(o.env.Size()-headSize)); err != nil {
		return nil, nil, about(o.name, err)
	}
	if !bytes.HasSuffix(data, head) {
		return nil, nil, problemf(nil, "%s: not changed: the file changed meanwhile", o.name)
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
