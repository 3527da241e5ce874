package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/sse"
)

// jobFlags are those of commands that change a whole bucket.
type jobFlags struct {
	Checkpoint  string `placeholder:"FILE" help:"Note in FILE how far it got, so that the same command goes on from there."`
	DryRun      bool   `help:"Do all but write: data keys are opened and sealed anew, and what cannot be done shows. It takes no notice of --checkpoint."`
	MaxFailures int    `default:"1000" placeholder:"N" help:"Give up when so many objects failed; by default 1000."`
	paceFlags
	List bool `help:"Write a line for each object that is changed, too."`
	JSON bool `name:"json" help:"Write JSON, one object a line for each object of the bucket that is to be shown, and one with the summary."`
}

func (f jobFlags) check() error {
	if f.MaxFailures < 1 {
		return usagef("--max-failures %d: want 1 or more", f.MaxFailures)
	}
	return f.paceFlags.check()
}

// resultLine is what became of an object. Its JSON is a contract.
type resultLine struct {
	Key     string     `json:"key"`
	Outcome string     `json:"outcome"` // done, current, unmatched, changed or failed
	From    sealShape  `json:"from"`
	To      *sealShape `json:"to"`     // null unless it is done
	Stored  int64      `json:"stored"` // bytes that were written
	Error   string     `json:"error,omitempty"`
}

// jobSummary is the last line of a job. Its JSON is a contract.
type jobSummary struct {
	Bucket  string    `json:"bucket"`
	Target  sealShape `json:"target"`
	Resumed bool      `json:"resumed"`
	DryRun  bool      `json:"dry_run"`
	blob.Counts
	Failed int64 `json:"failed"`
}

// run runs a job over b; do is the job, and done says what it did to an object, as in:
// rewrapped to KEY.
func (f jobFlags) run(ctx context.Context, c *console, b *bucket, target *keys, prefix, done string, do func(context.Context, blob.Job) (*blob.Report, error)) error {
	p := c.count(ctx, b, prefix)
	defer p.done()
	if f.DryRun {
		done = "would be " + done
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var unwritten error // of a line, which ends the job
	job := blob.Job{
		Workers: f.Workers, DryRun: f.DryRun, Limit: f.limit(), MaxFailures: f.MaxFailures,
		Progress: func(r *blob.Report) { p.at(r.Done + r.Current + r.Unmatched + r.Changed + r.Failed) },
		Object: func(r blob.Result) {
			if err := f.show(p, b, r, done); err != nil {
				unwritten = err
				cancel()
			}
		},
	}
	if f.Checkpoint != "" {
		store, err := keyring.NewFileStore(f.Checkpoint)
		if err != nil {
			return about(f.Checkpoint, err)
		}
		job.Checkpoint = checkpointStore{store, f.Checkpoint, fmt.Sprintf("blobseal checkpoint of %q\n", b.place)}
	}
	report, err := do(ctx, job)
	p.done()
	switch {
	case unwritten != nil:
		return unwritten
	case err == nil, errors.Is(err, blob.ErrIncomplete):
		if err := f.summary(c, b, report, done); err != nil {
			return err
		}
		if err != nil {
			return problemf(err, "%s: %s failed, unchanged; the same command tries again", b.shown, objects(report.Failed))
		}
		return nil
	case errors.Is(err, context.Canceled):
		return problemf(err, "interrupted %s; the same command %s", p.before(), f.resumes())
	case errors.Is(err, blob.ErrTooManyFailures):
		return problemf(err, "%s: gave up when %s had failed; the same command %s", b.shown, objects(report.Failed), f.resumes())
	case errors.Is(err, blob.ErrCheckpoint):
		return problemf(err, "%s: is the checkpoint of another job, or none: give the flags that it was made with, or another file", f.Checkpoint)
	case target.fails(err):
		return target.aboutSealing(err)
	}
	return b.about(err)
}

// resumes says what the same command does after this one was ended.
func (f jobFlags) resumes() string {
	if f.Checkpoint != "" && !f.DryRun {
		return "goes on from there"
	}
	return "leaves alone what is done"
}

// show writes the line of an object.
func (f jobFlags) show(p *counter, b *bucket, r blob.Result, done string) error {
	quiet := r.Outcome != blob.OutcomeFailed && r.Outcome != blob.OutcomeChanged && !(f.List && r.Outcome == blob.OutcomeDone)
	switch {
	case quiet:
		return nil
	case f.JSON:
		line := resultLine{Key: r.Key, Outcome: r.Outcome.String(), From: shapeOf(r.From), Stored: r.Stored}
		if r.Outcome == blob.OutcomeDone {
			to := shapeOf(r.To)
			line.To = &to
		}
		if r.Err != nil {
			line.Error = b.says(r.From, r.Err)
		}
		return p.writeLine(line)
	case r.Outcome == blob.OutcomeDone:
		return p.printf("%s: %s %s\n", printable(r.Key), done, sealName(r.To))
	case r.Outcome == blob.OutcomeChanged:
		return p.printf("%s: left alone: replaced or deleted meanwhile\n", printable(r.Key))
	}
	return p.printf("%s: FAILED: %s\n", printable(r.Key), printable(oneLine(errors.New(b.says(r.From, r.Err)))))
}

// summary writes the last line.
func (f jobFlags) summary(c *console, b *bucket, r *blob.Report, done string) error {
	if f.JSON {
		return c.writeLine(map[string]jobSummary{"summary": {b.shown, shapeOf(r.Target), r.Resumed, r.DryRun, r.Counts, r.Failed}})
	}
	how := ""
	if r.Resumed {
		how = "with the runs before: "
	}
	return c.printf("%s: %s%s %s %s (%d bytes), %d there already, %d not asked for, %d changed meanwhile, %d failed\n",
		b.shown, how, objects(r.Done), done, sealName(r.Target), r.Bytes, r.Current, r.Unmatched, r.Changed, r.Failed)
}

// checkpointStore keeps a checkpoint, and puts its errors into words. It knows where
// the bucket is, since another one of its name may be at another place.
type checkpointStore struct {
	keyring.Store
	path string
	head string // line that a checkpoint of this bucket begins with
}

func (s checkpointStore) about(err error) error {
	switch {
	case err == nil, errors.Is(err, keyring.ErrNotExist), errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, keyring.ErrConflict):
		return problemf(err, "%s: another command uses this checkpoint", s.path)
	case errors.Is(err, keyring.ErrDamaged):
		return problemf(blob.ErrCheckpoint, "%s: is no checkpoint", s.path)
	case isDirectory(s.path):
		return problemf(err, "%s: %v", s.path, errIsDirectory)
	}
	return problemf(err, "%s: %s", s.path, plain(err))
}

func (s checkpointStore) Load(ctx context.Context) ([]byte, string, error) {
	data, version, err := s.Store.Load(ctx)
	if err != nil {
		return nil, "", s.about(err)
	}
	data, found := bytes.CutPrefix(data, []byte(s.head))
	if !found {
		return nil, "", blob.ErrCheckpoint
	}
	return data, version, nil
}

func (s checkpointStore) Swap(ctx context.Context, version string, data []byte) (string, error) {
	version, err := s.Store.Swap(ctx, version, append([]byte(s.head), data...))
	return version, s.about(err)
}

// fails tells whether an error is of these keys, and not of a bucket.
func (k *keys) fails(err error) bool {
	if errors.As(err, new(*problem)) {
		return false
	}
	kinds := []error{keyring.ErrStore, keyring.ErrRoot, keyring.ErrDamaged, keyring.ErrFull, keyring.ErrDisabled, keyring.ErrDestroyed, sse.ErrTooLarge, sse.ErrInvalid, kms.ErrNotFound, kms.ErrInvalid}
	for _, kind := range kinds {
		if errors.Is(err, kind) {
			return true
		}
	}
	return refusedByService(err)
}

type bucketRewrapCmd struct {
	bucketFlags
	keyFlags
	targetFlags
	ToBucketKey bool `group:"target" help:"Bind the service's data key to the bucket, not to each object's whole name, as S3's Bucket Keys do: the service is asked less."`
	filterFlags
	Force bool `help:"Seal anew what is under the target's key already: a key service may have new material for the same key."`
	jobFlags
}

func (bucketRewrapCmd) Help() string {
	return `Run it after a rotation: it seals each object's data key, 104 bytes, under the newest key of the ring, and copies the body as it is. Or it moves objects to another ring, key service, key or customer key. Objects that are there already are left alone, and so are those that are not encrypted: see encrypt-existing. Copies and older versions that the store keeps still open under the old key.

The service may go on meanwhile. Each object is replaced as a whole, unless it was written or deleted since it was read. What fails stays as it was, and is named; the exit code is then 1. With --checkpoint, a large bucket is gone through once, however often the command is interrupted.

    blobseal bucket rewrap --bucket file:///srv/photos --ring my.ring --root-key-file root.key --dry-run
    blobseal bucket rewrap --bucket 's3://photos?region=eu-west-1' --ring my.ring --root-key-file root.key --checkpoint photos.cp --rate 500
    blobseal bucket rewrap --bucket file:///srv/photos --ring my.ring --root-key-file root.key --prefix 2025/ --to-kms my.kms --to-root-key-file kms.key
    blobseal bucket rewrap --bucket file:///srv/photos --kms my.kms --root-key-file root.key --to-kms-key alias/archive --to-bucket-key`
}

func (cmd bucketRewrapCmd) Run(ctx context.Context, c *console) (err error) {
	source := cmd.source()
	to, same := cmd.target(source, cmd.ToBucketKey)
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
	case source.customer != "":
		return usagef("nothing to change: give --to-ring, --to-kms or --to-customer-key-file")
	case source.kms != "" && to.kmsKey == "":
		return usagef("the keys of a key service have no newest one: give --to-kms-key, or another target")
	}
	if err := cmd.jobFlags.check(); err != nil {
		return err
	}
	ctx = asPrincipal(ctx, cmd.Principal)
	from, err := source.open(ctx, c)
	if err != nil {
		return err
	}
	defer from.Close()
	target := from
	switch {
	case !same:
		if target, err = to.open(ctx, c); err == nil {
			defer target.Close()
		}
	case from.service != nil:
		target, err = from.service.keys(to.kmsKey, to.bucketKey)
	}
	if err != nil {
		return err
	}
	filter, err := cmd.filter(ctx, from)
	if err != nil {
		return err
	}
	b, err := cmd.openWhole(ctx, blob.Options{}, from)
	if err != nil {
		return err
	}
	defer b.Close()
	return cmd.run(ctx, c, b, target, filter.Prefix, "rewrapped to", func(ctx context.Context, job blob.Job) (*blob.Report, error) {
		return b.Rewrap(ctx, &blob.RewrapOptions{Job: job, Filter: filter, To: target, Force: cmd.Force})
	})
}

type bucketEncryptCmd struct {
	bucketFlags
	keyFlags
	BucketKey bool   `group:"keys" help:"With --kms: bind the service's data key to the bucket; see encrypt."`
	Prefix    string `placeholder:"PREFIX" help:"Only objects whose keys begin so."`
	jobFlags
}

func (bucketEncryptCmd) Help() string {
	return `For a bucket that was there before its encryption: each object that is not encrypted is encrypted in place, with its attributes. Until that is done, the service reads both (Options.AllowPlain of package blob); afterwards it refuses what is not encrypted. In a directory, every file is an object: keep rings and keys elsewhere. Versions of objects that the store keeps, and backups, stay plaintext.

    blobseal bucket encrypt-existing --bucket file:///srv/photos --ring my.ring --root-key-file root.key --dry-run
    blobseal bucket encrypt-existing --bucket file:///srv/photos --ring my.ring --root-key-file root.key --checkpoint photos.cp`
}

func (cmd bucketEncryptCmd) Run(ctx context.Context, c *console) error {
	source := cmd.source()
	source.bucketKey = cmd.BucketKey
	if err := cmp.Or(source.check(), cmd.check()); err != nil {
		return err
	}
	ctx = asPrincipal(ctx, cmd.Principal)
	k, err := source.open(ctx, c)
	if err != nil {
		return err
	}
	defer k.Close()
	b, err := cmd.openWhole(ctx, blob.Options{}, k)
	if err != nil {
		return err
	}
	defer b.Close()
	for _, file := range []string{cmd.Ring, cmd.KMS, cmd.RootKeyFile, cmd.PassphraseFile, cmd.CustomerKeyFile, source.root.directory(), cmd.Checkpoint} {
		if b.holds(file) {
			return problemf(nil, "%s: is in the bucket, and would be encrypted, too: keep it elsewhere", file)
		}
	}
	return cmd.run(ctx, c, b, k, cmd.Prefix, "encrypted under", func(ctx context.Context, job blob.Job) (*blob.Report, error) {
		return b.EncryptExisting(ctx, &blob.EncryptOptions{Job: job, Prefix: cmd.Prefix})
	})
}
