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

	// ErrTooManyFailures means that the job gave up after [Job].MaxFailures failures.
	ErrTooManyFailures = errors.New("blob: too many objects failed")
)

// Job is what the jobs over a whole bucket have in common, [Rewrap] and
// [EncryptExisting]. The zero value is right for small buckets; large ones
// want a Checkpoint.
//
// # What a job does to an object
//
// It reads the object as one stream, writes what the object is to become, and
// publishes it by the store's own atomic replacement, with all that gocloud knows
// of the object: content type, metadata, cache control, content encoding,
// disposition and language. The hint in the metadata is made anew. So a process
// that is killed leaves each object as it was or as it is to be. What gocloud does
// not know, such as tags, access lists and storage class, becomes the bucket's
// default, if [blob.Options].IfUnchanged does not carry it over. The time of
// modification and the ETag are new.
//
// In a fileblob bucket that keeps attributes, the job replaces their file by
// itself, since fileblob truncates it first, and refuses to read the object if it
// is killed then. (That can still happen on Windows, and to an object that had no
// such file when it was encrypted.) With fileblob's NoTempDir, what a process is
// writing, or was when it was killed, is listed as an object, which no key opens.
// EncryptExisting leaves it alone, as failed, if it is plain: its writer would else
// publish the job's object in the place of its own.
//
// It does not replace an object that was written or deleted since the job read
// it. Through the same [blob.Bucket] that cannot happen. Of other processes' writes it
// is sure with [blob.Options].IfUnchanged; without, it looks immediately before it
// publishes, and loses a write that comes between.
type Job struct {
	// Workers is how many objects are in hand at once; 0 means 8.
	Workers int

	// Checkpoint, if set, keeps how far the job got, a [keyring.FileStore] for
	// one: the same job, with the same Checkpoint, goes on from there, and tries
	// again what failed. It begins anew when the last run was complete, and where
	// the target's key is another by now. A checkpoint of another job is
	// [ErrCheckpoint], one that two processes use at once
	// [keyring.ErrConflict]. After a crash, what was done in the last second or
	// so is looked at again.
	Checkpoint keyring.Store

	// DryRun does all but copy bodies and write: data keys are opened and sealed
	// anew, and what cannot be done shows. It takes no notice of Checkpoint.
	DryRun bool

	// Limit, if set, sets the pace, in objects.
	Limit Limiter

	// Progress, if set, hears the state after each object, in the goroutine of
	// the job.
	Progress func(*Report)

	// Object, if set, hears what became of each object, in the order of the
	// listing and in the goroutine of the job.
	Object func(Result)

	// MaxFailures is how many objects may fail before the job gives up, with
	// ErrTooManyFailures; 0 means 1000. What was under way then may be done and is
	// not counted: the next run finds it so.
	MaxFailures int

	saveEvery time.Duration // of the checkpoint; 0 means a second
}

// Outcome is what became of an object in a job.
type Outcome uint8

// What can become of an object.
const (
	OutcomeDone      Outcome = iota + 1 // it is as asked; in a dry run, it would be
	OutcomeCurrent                      // it was as asked already
	OutcomeUnmatched                    // it was not asked for
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

// Result is what became of one object.
type Result struct {
	Key      string
	Outcome  Outcome
	From, To KeyRef // as far as known; To is zero unless it is done
	Stored   int64  // bytes that were written, or would have been
	Err      error  // of OutcomeFailed; [blob.ErrChanged] if other writers changed it at every attempt
}

// Counts are the numbers of objects by what became of them.
type Counts struct {
	Done      int64 `json:"done"`
	Current   int64 `json:"current"`
	Unmatched int64 `json:"unmatched"`
	Skipped   int64 `json:"skipped,omitempty"`
	Deleted   int64 `json:"deleted"`
	Bytes     int64 `json:"bytes"` // written to the store
}

// Report is what a job has done, the runs before it of the same checkpoint
// included.
type Report struct {
	Target  KeyRef // what Done objects are under
	Resumed bool   // an earlier run's work was gone on with
	DryRun  bool
	Counts
	Failed int64 // now; what failed in an earlier run and then did not is not in it

	// Failures are the results of the first of this run that failed, at most 100.
	Failures []Result
}

// maxReported bounds Report.Failures.
const maxReported = 100

// String sums the report up.
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

// undone is the error of a job that left n objects undone.
func (r *Report) undone(n int) error {
	if len(r.Failures) == 0 {
		return fmt.Errorf("%w: %d failed", ErrIncomplete, n)
	}
	first := r.Failures[0]
	return fmt.Errorf("%w: %d failed, first %q: %w", ErrIncomplete, n, first.Key, first.Err)
}

// RewrapOptions are for [Rewrap]. The zero value seals all objects of the
// mode of the bucket's cipher that are not under its newest key under that.
type RewrapOptions struct {
	Job

	// Filter chooses objects by their present key. Without Modes, KeyIDs, To and
	// From, Rewrap skips objects of other modes than that of the bucket's cipher and
	// returns [ErrSkipped]: an object leaves its key service, or its customer's key,
	// only if you ask for it.
	Filter Filter

	// To is what to seal under: the newest master key of a ring, a key of a key
	// service, or a customer key. nil means the bucket's own cipher. The bucket's
	// policy decides whether it may. Whatever reads the objects later has to have
	// it too: see [blob.Options].Decrypters.
	To sse.Cipher

	// From opens the objects; nil means what the bucket opens them with.
	From sse.Decrypter

	// Force seals objects anew that are under To's key already. A key service
	// may have new material under the same key id.
	Force bool
}

// Rewrap moves objects to another key, or to another mode, by sealing their data
// keys again. Bodies are copied as they are, and nothing is decrypted but data
// keys. Whoever has a copy of an old envelope, and its key, can still open the
// body: Rewrap is for keys that grow old, not for keys that were stolen.
//
// It goes through the whole bucket, whatever fails: an object that cannot be done
// as asked is [OutcomeFailed] and stays as it is, and Rewrap then returns
// [ErrIncomplete], with its report. Plain objects are [OutcomeUnmatched]; damaged
// ones, and those of an unknown version, fail, unless Filter says what they should be
// under. Other errors end the job: those of the listing, of the checkpoint, of
// the target's key, and of ctx. The report is never nil.
//
// To begin, it seals one data key that it then forgets, for an object with the
// name of Filter.Prefix: that tells which key is the newest, and shows in the
// records of a key service. If the ring rotates while Rewrap runs, it goes through
// the bucket once more, and counts what it does twice as done twice.
func Rewrap(ctx context.Context, b *blob.Bucket, opts *RewrapOptions) (*Report, error) {
	s := storeOf(b)
	o := valueOr(opts)
	if err := o.Filter.check(); err != nil {
		return &Report{DryRun: o.DryRun}, err
	}
	stays := o.To == nil && o.From == nil && !o.Filter.narrow()
	if o.To == nil {
		o.To = s.Cipher
	}
	if o.From == nil {
		o.From = b
	}
	r := &rewrap{s: s, to: o.To, from: o.From, filter: o.Filter, force: o.Force, stays: stays}
	return run(ctx, s, o.Job, r, jobSpec{Operation: "rewrap", Filter: o.Filter, Force: o.Force})
}

// rewrap is the operation of [Rewrap].
type rewrap struct {
	s      *store.Store
	to     sse.Cipher
	from   sse.Decrypter
	filter Filter
	force  bool
	stays  bool                         // whether objects of other modes are left alone
	target atomic.Pointer[sse.Envelope] // one that was made last
}

func (r *rewrap) probe(ctx context.Context) (*sse.Envelope, error) {
	if err := r.s.Precheck(r.to); err != nil {
		return nil, err
	}
	e, err := r.to.Encrypt(ctx, r.s.Object(r.filter.Prefix))
	if err != nil {
		return nil, err
	}
	r.target.Store(e.Envelope())
	return e.Envelope(), nil
}

func (r *rewrap) follows() bool { return true }

func (r *rewrap) same(ctx context.Context, probe *sse.Envelope) bool {
	_, err := r.to.Decrypt(ctx, r.s.Object(r.filter.Prefix), probe)
	return err == nil
}

func (r *rewrap) look(ctx context.Context, e Entry, env *sse.Envelope) (Outcome, error) {
	switch {
	case e.Seal != KeyRef{} && !r.filter.match(e.Seal), env == nil && r.filter.narrow(), e.Kind == stored.KindPlain:
		return OutcomeUnmatched, nil
	case r.stays && e.Seal != KeyRef{} && e.Seal.Mode != r.target.Load().Mode():
		return OutcomeSkipped, nil
	case e.Err != nil:
		return OutcomeFailed, e.Err
	}
	target := r.target.Load()
	if r.force || keyOf(env) != keyOf(target) || env.BucketKeyEnabled() != target.BucketKeyEnabled() {
		return OutcomeDone, nil
	}
	if env.Mode() == sse.ModeCustomer { // whose keys have no ids
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
	if asked := r.target.Load().Mode(); sealed.Mode() != asked {
		return nil, nil, fmt.Errorf("%w: sealed in %v, asked for was %v", sse.ErrMode, sealed.Mode(), asked)
	}
	if keyOf(sealed) != keyOf(r.target.Load()) { // the ring was rotated
		if _, err := r.probe(ctx); err != nil {
			return nil, nil, err
		}
	}
	return sealed, body, nil
}
