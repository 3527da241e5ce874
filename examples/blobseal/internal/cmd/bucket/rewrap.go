package bucket

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/blob/jobs"
	"github.com/blobseal/blobseal/examples/blobseal/internal/console"
	"github.com/blobseal/blobseal/examples/blobseal/internal/keys"
	"github.com/blobseal/blobseal/examples/blobseal/internal/message"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/sse"
)

// jobFlags are the flags of jobs that change a whole bucket.
type jobFlags struct {
	Checkpoint  string `placeholder:"FILE" help:"Keep the progress in FILE. The same command continues from there."`
	DryRun      bool   `help:"Do everything except write, and show what would fail. Ignores --checkpoint."`
	Exclusive   bool   `help:"Rely on nobody else writing to the bucket. Needed on stores without conditional writes."`
	MaxFailures int    `default:"1000" placeholder:"N" help:"Give up after N failures; by default 1000."`
	paceFlags
	List bool `help:"Write a line for each changed object, too."`
}

func (f jobFlags) check() error {
	if f.MaxFailures < 1 {
		return message.Usagef("--max-failures %d: want 1 or more", f.MaxFailures)
	}
	return f.paceFlags.check()
}

// resultLine is the result of a job for one object. Scripts rely on its JSON.
type resultLine struct {
	Key     string     `json:"key"`
	Outcome string     `json:"outcome"` // done, current, unmatched, deleted or failed
	From    sealShape  `json:"from"`
	To      *sealShape `json:"to"`     // null unless done
	Stored  int64      `json:"stored"` // bytes written
	Error   string     `json:"error,omitempty"`
}

// jobSummary is the last line of a job. Scripts rely on its JSON.
type jobSummary struct {
	Bucket  string    `json:"bucket"`
	Target  sealShape `json:"target"`
	Resumed bool      `json:"resumed"`
	DryRun  bool      `json:"dry_run"`
	jobs.Counts
	Failed int64 `json:"failed"`
}

// run runs do, a job over b. Done says what the job does to an object, such as
// "rewrapped to".
func (f jobFlags) run(ctx context.Context, c *console.Console, b *bucket, target *keys.Keys, prefix, done string,
	do func(context.Context, jobs.Job) (*jobs.Report, error)) error {
	if err := b.checkExclusive(ctx, f.Exclusive || f.DryRun); err != nil {
		return err
	}
	p := count(ctx, c, b, prefix)
	defer p.finish()
	if f.DryRun {
		done = "would be " + done
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var unwritten error // a failed line ends the job
	job := jobs.Job{
		Workers: f.Workers, DryRun: f.DryRun, Limit: f.limit(), MaxFailures: f.MaxFailures,
		Progress: func(r *jobs.Report) { p.advance(r.Done + r.Current + r.Unmatched + r.Skipped + r.Deleted + r.Failed) },
		Object: func(r jobs.Result) {
			c.Count(1, r.Stored)
			if err := f.show(p, b, r, done); err != nil {
				unwritten = err
				cancel()
			}
		},
	}
	if f.Checkpoint != "" {
		store, err := keyring.NewFileStore(f.Checkpoint)
		if err != nil {
			return message.About(f.Checkpoint, err)
		}
		job.Checkpoint = checkpointStore{store, f.Checkpoint, fmt.Sprintf("blobseal checkpoint of %q\n", b.place)}
	}
	report, err := do(ctx, job)
	p.finish()
	switch {
	case unwritten != nil:
		return unwritten
	case err == nil, errors.Is(err, jobs.ErrIncomplete), errors.Is(err, jobs.ErrSkipped):
		return cmp.Or(f.summary(c, b, report, done), b.aboutLeft(report, err))
	case errors.Is(err, context.Canceled):
		return message.Problemf(err, "", "interrupted after %s; the same command %s", message.Count(p.n, "object"), f.resumes())
	}
	return f.about(b, target, report, err)
}

// about returns the error that ended a job as a [message.Problem].
func (f jobFlags) about(b *bucket, target *keys.Keys, report *jobs.Report, err error) error {
	switch {
	case errors.Is(err, jobs.ErrTooManyFailures):
		return message.Problemf(err, b.shown, "gave up after %s failed; the same command %s", message.Count(report.Failed, "object"), f.resumes())
	case errors.Is(err, jobs.ErrCheckpoint):
		return message.Problemf(err, f.Checkpoint, "is not a checkpoint of this job (repeat the job's flags, or name another file)")
	case errors.Is(err, jobs.ErrTarget):
		return message.Problemf(err, b.shown, "nothing was changed, because the objects would not open under the target: %s (first permit it to open objects, for this command and for every reader of the bucket)",
			message.OneLine(target.AboutSealing(err)))
	case message.IsKeys(err):
		return target.AboutSealing(err)
	}
	return b.about(err)
}

// aboutLeft returns the error of a job that left objects as they were as a
// [message.Problem].
func (b *bucket) aboutLeft(report *jobs.Report, err error) error {
	mode := report.Target.Mode
	switch {
	case err == nil:
		return nil
	case errors.Is(err, jobs.ErrSkipped):
		return message.Problemf(err, b.shown, "skipped %s of other modes than %v, whose keys are still in use (to move them, run the command with their keys and a target such as --to-ring; to skip them on purpose, give --mode %[2]v)",
			message.Count(report.Skipped, "object"), mode)
	}
	failures := new(message.Failures)
	text := fmt.Sprintf("%s failed without being changed; the same command tries again", message.Count(report.Failed, "object"))
	for _, failure := range report.Failures {
		failures.Add(failure.Err)
	}
	for _, failure := range report.Failures {
		if errors.Is(failure.Err, sse.ErrMode) {
			text += " (run it once for each mode, with that mode's keys and --mode)"
			break
		}
	}
	return message.Problemf(errors.Join(failures, err), b.shown, "%s", text)
}

// resumes says what the same command does after this one was interrupted.
func (f jobFlags) resumes() string {
	if f.Checkpoint != "" && !f.DryRun {
		return "continues from there"
	}
	return "skips what is done"
}

// show writes the line of an object.
func (f jobFlags) show(p *counter, b *bucket, r jobs.Result, done string) error {
	quiet := r.Outcome != jobs.OutcomeFailed && r.Outcome != jobs.OutcomeDeleted && !(f.List && r.Outcome == jobs.OutcomeDone)
	switch {
	case quiet:
		return nil
	case p.c.JSON:
		line := resultLine{Key: r.Key, Outcome: r.Outcome.String(), From: shapeOf(r.From), Stored: r.Stored}
		if r.Outcome == jobs.OutcomeDone {
			to := shapeOf(r.To)
			line.To = &to
		}
		if r.Err != nil {
			line.Error = b.explain(r.From, r.Err)
		}
		return p.writeLine(line)
	case r.Outcome == jobs.OutcomeDone:
		return p.printf("%s: %s %s\n", message.Printable(r.Key), done, sealName(r.To))
	case r.Outcome == jobs.OutcomeDeleted:
		return p.printf("%s: deleted meanwhile\n", message.Printable(r.Key))
	}
	return p.printf("%s: FAILED: %s\n", message.Printable(r.Key), message.Printable(message.OneLine(errors.New(b.explain(r.From, r.Err)))))
}

// summary writes the last line.
func (f jobFlags) summary(c *console.Console, b *bucket, r *jobs.Report, done string) error {
	if c.JSON {
		return c.WriteLine(map[string]jobSummary{"summary": {b.shown, shapeOf(r.Target), r.Resumed, r.DryRun, r.Counts, r.Failed}})
	}
	how := ""
	if r.Resumed {
		how = "with earlier runs: "
	}
	skipped := ""
	if r.Skipped > 0 {
		skipped = fmt.Sprintf(", %d of other modes", r.Skipped)
	}
	return c.Printf("%s: %s%s %s %s (%d bytes), %d current, %d unmatched%s, %d deleted meanwhile, %d failed\n",
		b.shown, how, message.Count(r.Done, "object"), done, sealName(r.Target), r.Bytes, r.Current, r.Unmatched, skipped, r.Deleted, r.Failed)
}

// checkpointStore stores a checkpoint, and puts its errors into words. It records where
// the bucket is, since several buckets may have one name.
type checkpointStore struct {
	keyring.Store
	path string
	head string // first line of a checkpoint of this bucket
}

func (s checkpointStore) about(err error) error {
	switch {
	case err == nil, errors.Is(err, keyring.ErrNotExist), errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, keyring.ErrConflict):
		return message.Problemf(err, s.path, "another command uses this checkpoint")
	case errors.Is(err, keyring.ErrDamaged):
		return message.Problemf(jobs.ErrCheckpoint, s.path, "is no checkpoint")
	case message.IsDirectory(s.path):
		return message.Problemf(err, s.path, "%v", message.ErrIsDirectory)
	}
	return message.Problemf(err, s.path, "%s", message.Plain(err))
}

func (s checkpointStore) Load(ctx context.Context) ([]byte, string, error) {
	data, version, err := s.Store.Load(ctx)
	if err != nil {
		return nil, "", s.about(err)
	}
	data, found := bytes.CutPrefix(data, []byte(s.head))
	if !found {
		return nil, "", jobs.ErrCheckpoint
	}
	return data, version, nil
}

func (s checkpointStore) Swap(ctx context.Context, version string, data []byte) (string, error) {
	version, err := s.Store.Swap(ctx, version, append([]byte(s.head), data...))
	return version, s.about(err)
}

type rewrapCmd struct {
	bucketFlags
	keys.OpenFlags
	keys.TargetFlags
	ToBucketKey bool `group:"target" help:"Bind the service's data key to the bucket, not to each object's name (see encrypt)."`
	filterFlags
	Force bool `help:"Rewrap objects that are under the target already: a key service may have rotated its key."`
	jobFlags
}

func (cmd rewrapCmd) Run(ctx context.Context, c *console.Console) (err error) {
	source, to, same := cmd.Target(cmd.Source(), cmd.ToBucketKey)
	if err := cmd.check(source, to, same); err != nil {
		return err
	}
	ctx = keys.AsPrincipal(ctx, cmd.Principal)
	from, err := source.Open(ctx, c)
	if err != nil {
		return err
	}
	defer from.Close()
	target := from
	switch {
	case !same:
		if target, err = to.Open(ctx, c); err == nil {
			defer target.Close()
		}
	case from.Service != nil:
		target, err = from.Service.Keys(cmd.ToKMSKey, to.BucketKey)
	}
	if err != nil {
		return err
	}
	filter, err := cmd.filter(from)
	if err != nil {
		return err
	}
	opts := &jobs.RewrapOptions{Filter: filter, Force: cmd.Force}
	with := []*keys.Keys{from}
	switch {
	case !same:
		opts.To = target
		with = append(with, target)
	case from.Service != nil:
		within := *from
		within.Cipher = movingCipher{target, eitherDecrypter{from, target}}
		with[0] = &within
	}
	b, err := cmd.openWhole(ctx, blob.Options{}, with...)
	if err != nil {
		return err
	}
	defer b.Close()
	return cmd.run(ctx, c, b, target, filter.Prefix, "rewrapped to", func(ctx context.Context, job jobs.Job) (*jobs.Report, error) {
		opts.Job = job
		return jobs.Rewrap(ctx, b.Bucket, opts)
	})
}

// check refuses flags that make no sense. same says that the target's keys are the
// source's.
func (cmd rewrapCmd) check(source, to keys.Source, same bool) error {
	if err := source.Check(); err != nil {
		return err
	}
	switch {
	case !same:
		if err := to.Check(); err != nil {
			return err
		}
	case source.Customer != "":
		return message.Usagef("nothing to change: give --to-ring, --to-kms or --to-customer-key-file")
	case source.KMS != "" && cmd.ToKMSKey == "":
		return message.Usagef("a key service has no newest key: give --to-kms-key, or another target")
	}
	return cmd.jobFlags.check()
}

type encryptCmd struct {
	bucketFlags
	keys.Flags
	BucketKey bool   `group:"keys" help:"With --kms: bind the service's data key to the bucket (see encrypt)."`
	Prefix    string `placeholder:"PREFIX" help:"Only objects whose keys begin with PREFIX."`
	jobFlags
}

func (cmd encryptCmd) Run(ctx context.Context, c *console.Console) error {
	source := cmd.Source()
	source.BucketKey = cmd.BucketKey
	if err := cmp.Or(source.Check(), cmd.check()); err != nil {
		return err
	}
	ctx = keys.AsPrincipal(ctx, cmd.Principal)
	k, err := source.Open(ctx, c)
	if err != nil {
		return err
	}
	defer k.Close()
	b, err := cmd.openWhole(ctx, blob.Options{}, k)
	if err != nil {
		return err
	}
	defer b.Close()
	for _, file := range []string{cmd.Ring, cmd.KMS, cmd.RootKeyFile, cmd.PassphraseFile, cmd.CustomerKeyFile, source.Root.Directory(), cmd.Checkpoint} {
		if b.contains(file) {
			return message.Problemf(message.ErrRefused, file, "is in the bucket and would be encrypted (keep it elsewhere)")
		}
	}
	return cmd.run(ctx, c, b, k, cmd.Prefix, "encrypted under", func(ctx context.Context, job jobs.Job) (*jobs.Report, error) {
		return jobs.EncryptExisting(ctx, b.Bucket, &jobs.EncryptOptions{Job: job, Prefix: cmd.Prefix})
	})
}
