package jobs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/blob/internal/store"
	"github.com/blobseal/blobseal/blob/stored"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/sse"
)

// Errors of jobs.
var (
	// ErrIncomplete means that the job went through the whole bucket and some
	// objects failed. The [Report] lists them; run the job again.
	ErrIncomplete = errors.New("blob: job left objects undone")

	// ErrSkipped means that the job is done and left alone objects of other modes,
	// since nothing asked for them. Their keys are still in use.
	ErrSkipped = errors.New("blob: job skipped objects of other modes (name them in Filter.Modes)")

	// ErrTarget means that the bucket could not open what the job would write. Add the
	// target to [blob.Options].Decrypters, in every reader of the bucket, first.
	ErrTarget = errors.New("blob: bucket has no decrypter for the job's target (add it to Options.Decrypters)")

	// ErrTooManyFailures means that the job gave up after [Job].MaxFailures failures.
	ErrTooManyFailures = errors.New("blob: too many objects failed")
)

// Job is what [Rewrap] and [EncryptExisting] have in common. The zero value is right
// for small buckets; give a job of a large one a Checkpoint.
//
// # What a job does to an object
//
// A job reads the object as one stream, writes the new object and publishes it by the
// store's own atomic replacement. Only the envelope and the footer of a composite object,
// which was uploaded in parts, change, at its end: with [blob.Options].ReplaceEnd, the
// store copies the rest. A job keeps all that gocloud knows of the object:
// content type, metadata, cache control, content encoding, disposition and language.
// It writes the hint again. A process that is killed therefore leaves each object
// either as it was or as the job makes it. Tags, access lists and the storage class,
// which gocloud does not know, become the bucket's defaults unless
// [blob.Options].IfUnchanged or ReplaceEnd carries them over. The modification time and
// the store's ETag change.
//
// In a fileblob bucket that keeps attributes, the job replaces the attributes' file by
// a rename, since fileblob truncates that file first and refuses to read the object if
// the process is killed then. (On Windows this can still happen.) With fileblob's
// NoTempDir, the listing shows files that another process is writing. They do not open
// under any key. EncryptExisting reports them as failed and leaves them alone.
//
// # Other writers
//
// A job never replaces an object that was written or deleted since it read it, if the
// write came through a [blob.Bucket] of this process, or if [blob.Options].IfUnchanged
// carries the store's condition. It attempts such an object again; an object that
// changes at every attempt is [OutcomeFailed]. Without IfUnchanged, a write by another
// process between the job's last look and its publication is lost, except on files,
// where processes take turns.
type Job struct {
	// Workers is how many objects are in hand at once; 0 means 8.
	Workers int

	// Checkpoint, if set, keeps the progress of the job, for example in a
	// [keyring.NewFileStore]. The same job with the same Checkpoint continues where the
	// last run stopped and attempts again what failed. It starts again if the last
	// run was complete or the target's key has changed. A checkpoint of another job
	// is [ErrCheckpoint]. A checkpoint that two processes use at once is
	// [keyring.ErrConflict]. After a crash, the job looks again at the objects of
	// about the last second.
	Checkpoint keyring.Store

	// DryRun opens and seals data keys but copies no bodies and writes nothing, so
	// that failures show. It ignores Checkpoint.
	DryRun bool

	// Limit, if set, sets the pace, in objects.
	Limit Limiter

	// Progress, if set, is called with the state after each object, in the goroutine
	// of the job.
	Progress func(*Report)

	// Object, if set, is called with the result of each object, in the order of the
	// listing and in the goroutine of the job.
	Object func(Result)

	// MaxFailures is how many objects may fail before the job gives up with
	// ErrTooManyFailures; 0 means 1000. Objects under way at that moment may be done
	// without being counted; the next run finds them done.
	MaxFailures int

	saveEvery time.Duration // of the checkpoint; 0 means a second
}

// Outcome is the result of a job for one object.
type Outcome uint8

// The outcomes.
const (
	OutcomeDone      Outcome = iota + 1 // the job replaced it; a dry run would
	OutcomeCurrent                      // it was under the target already
	OutcomeUnmatched                    // the job does not concern it
	OutcomeSkipped                      // it is of another mode, which nothing asked for: see [ErrSkipped]
	OutcomeDeleted                      // it was deleted since the store listed it
	OutcomeFailed                       // it is as it was: see Result.Err
)

var outcomeNames = [...]string{OutcomeDone: "done", OutcomeCurrent: "current", OutcomeUnmatched: "unmatched", OutcomeSkipped: "skipped", OutcomeDeleted: "deleted", OutcomeFailed: "failed"}

// String names the outcome.
func (o Outcome) String() string {
	if int(o) < len(outcomeNames) && o != 0 {
		return outcomeNames[o]
	}
	return fmt.Sprintf("Outcome(%d)", uint8(o))
}

// Result is the outcome of one object.
type Result struct {
	Key      string
	Outcome  Outcome
	From, To KeyRef // zero if unknown; To is zero unless the outcome is OutcomeDone
	Stored   int64  // bytes written; in a dry run, bytes to write
	Err      error  // of OutcomeFailed; [blob.ErrChanged] if other writers changed it at every attempt
}

// Counts are the numbers of objects by outcome.
type Counts struct {
	Done      int64 `json:"done"`
	Current   int64 `json:"current"`
	Unmatched int64 `json:"unmatched"`
	Skipped   int64 `json:"skipped,omitempty"`
	Deleted   int64 `json:"deleted"`
	Bytes     int64 `json:"bytes"` // written to the store
}

// Report describes what a job has done, including earlier runs of the same
// checkpoint.
type Report struct {
	Target  KeyRef // the key of Done objects
	Resumed bool   // the job continued an earlier run
	DryRun  bool
	Counts
	Failed int64 // objects that are still undone

	// Failures are the first failures of this run, at most 100.
	Failures []Result
}

// maxReported bounds Report.Failures.
const maxReported = 100

// String summarizes the report in one line.
func (r *Report) String() string {
	s := fmt.Sprintf("%d done (%d bytes), %d current, %d unmatched, %d deleted meanwhile, %d failed", r.Done, r.Bytes, r.Current, r.Unmatched, r.Deleted, r.Failed)
	if r.Skipped > 0 {
		s += fmt.Sprintf(", %d of other modes skipped", r.Skipped)
	}
	if r.DryRun {
		return "dry run: " + s
	}
	return s
}

// err returns the error of a job that went through the whole bucket.
func (r *Report) err() error {
	switch {
	case r.Failed > 0 && len(r.Failures) > 0:
		first := r.Failures[0]
		return fmt.Errorf("%w: %d failed, first %q: %w", ErrIncomplete, r.Failed, first.Key, first.Err)
	case r.Failed > 0:
		return fmt.Errorf("%w: %d failed", ErrIncomplete, r.Failed)
	case r.Skipped > 0:
		return fmt.Errorf("%w: %d objects", ErrSkipped, r.Skipped)
	}
	return nil
}

// RewrapOptions are for [Rewrap]. The zero value moves objects in the mode of the
// bucket's cipher to the cipher's newest key.
type RewrapOptions struct {
	Job

	// Filter chooses objects by their present key. Without Modes, KeyIDs, To and
	// From, Rewrap skips objects of other modes than that of the bucket's cipher and
	// returns [ErrSkipped]: an object leaves its key service, or its customer's key,
	// only if you ask for it.
	Filter Filter

	// To seals the data keys: under the newest master key of a ring, a key of a key
	// service, or a customer key. Nil means the bucket's own cipher. The bucket's
	// policy must permit it. Give every reader of the bucket a decrypter for it first:
	// see [blob.Options].Decrypters.
	To sse.Cipher

	// From opens the objects; nil means the bucket's decrypters.
	From sse.Decrypter

	// Force also rewraps objects that are under To's key already, since a key service
	// may have new material under the same key id.
	Force bool
}

// Rewrap moves objects to another key or another mode by sealing their data keys
// again. It streams each body through the process as ciphertext and decrypts data keys
// only. Whoever has a copy of an old envelope and its key can still open the body:
// rewrapping replaces old keys, it does not revoke stolen ones.
//
// Rewrap visits the whole bucket even if objects fail. A failed object stays as it was,
// and Rewrap then returns [ErrIncomplete]. Plain objects are [OutcomeUnmatched].
// Damaged objects and those of an unknown version fail, unless Filter names other keys.
// Errors of the listing, the checkpoint, the target's key and ctx end the job. The
// report is never nil.
//
// Rewrap begins by sealing one data key that it forgets, for an object named
// Filter.Prefix. This shows which key is the newest, and appears in the records of a
// key service. If the ring rotates while Rewrap runs, Rewrap visits the bucket again
// and counts objects that it moves twice as done twice.
func Rewrap(ctx context.Context, b *blob.Bucket, opts *RewrapOptions) (*Report, error) {
	s := storeOf(b)
	o := valueOr(opts)
	if err := o.Filter.check(); err != nil {
		return &Report{DryRun: o.DryRun}, err
	}
	keepModes := o.To == nil && o.From == nil && !o.Filter.narrow()
	if o.To == nil {
		o.To = s.Cipher
	}
	if o.From == nil {
		o.From = s.Decrypter
	}
	r := &rewrap{s: s, to: o.To, from: o.From, filter: o.Filter, force: o.Force, keepModes: keepModes}
	return run(ctx, s, o.Job, r, jobSpec{Operation: "rewrap", Filter: o.Filter, Force: o.Force})
}

// rewrap is the operation of [Rewrap].
type rewrap struct {
	s         *store.Store
	to        sse.Cipher
	from      sse.Decrypter
	filter    Filter
	force     bool
	keepModes bool                         // whether objects keep their mode
	newest    atomic.Pointer[sse.Envelope] // the newest that was made
}

func (r *rewrap) probe(ctx context.Context) (*sse.Envelope, error) {
	probe, err := sealProbe(ctx, r.s, r.to, r.filter.Prefix)
	if err == nil {
		r.newest.Store(probe)
	}
	return probe, err
}

func (r *rewrap) followsKey() bool { return true }

func (r *rewrap) isTarget(ctx context.Context, probe *sse.Envelope) bool {
	_, err := r.to.Decrypt(ctx, r.s.Object(r.filter.Prefix), probe)
	return err == nil
}

func (r *rewrap) decide(ctx context.Context, e Entry, env *sse.Envelope) (Outcome, error) {
	switch {
	case !r.filter.chooses(e.Seal), e.Kind == stored.KindPlain:
		return OutcomeUnmatched, nil
	case r.keepModes && e.Seal != KeyRef{} && e.Seal.Mode != r.newest.Load().Mode():
		return OutcomeSkipped, nil
	case e.Err != nil:
		return OutcomeFailed, e.Err
	}
	target := r.newest.Load()
	if r.force || keyOf(env) != keyOf(target) || env.BucketKeyEnabled() != target.BucketKeyEnabled() {
		return OutcomeDone, nil
	}
	if env.Mode() == sse.ModeCustomer { // customer keys have no ids: only opening tells
		if _, err := r.to.Decrypt(ctx, r.s.Existing(e.Key), env); errors.Is(err, sse.ErrKey) {
			return OutcomeDone, nil
		}
	}
	return OutcomeCurrent, nil
}

func (r *rewrap) convert(ctx context.Context, key string, env *sse.Envelope, body io.Reader) (*sse.Envelope, io.Reader, error) {
	d, err := r.from.Decrypt(ctx, r.s.Existing(key), env)
	if err != nil {
		return nil, nil, err
	}
	sealed, err := r.to.Rewrap(ctx, r.s.Existing(key), d)
	if err != nil {
		return nil, nil, err
	}
	if asked := r.newest.Load().Mode(); sealed.Mode() != asked {
		return nil, nil, fmt.Errorf("%w: sealed in %v, want %v", sse.ErrMode, sealed.Mode(), asked)
	}
	if keyOf(sealed) != keyOf(r.newest.Load()) { // the ring was rotated
		if _, err := r.probe(ctx); err != nil {
			return nil, nil, err
		}
	}
	return sealed, body, nil
}
