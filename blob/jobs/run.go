package jobs

import (
	"context"
	"errors"
	"fmt"
	"io"

	"gocloud.dev/gcerrors"

	"github.com/blobseal/blobseal/blob/internal/store"
	"github.com/blobseal/blobseal/blob/stored"
	"github.com/blobseal/blobseal/sse"
)

// operation is what a job does to objects. The job calls probe first; the other methods
// are safe for concurrent use.
type operation interface {
	// probe makes an envelope without a body, which shows the target's key.
	probe(ctx context.Context) (*sse.Envelope, error)

	// followsKey reports whether all objects must be under the key that is the newest
	// when the job ends.
	followsKey() bool

	// isTarget reports whether an earlier probe is under the target's key.
	isTarget(ctx context.Context, probe *sse.Envelope) bool

	// decide returns OutcomeDone if the object is to be converted, and its outcome
	// otherwise. env is nil if the object is not encrypted.
	decide(ctx context.Context, e Entry, env *sse.Envelope) (Outcome, error)

	// convert turns an object's envelope, or nil, and its body into those of the
	// object that takes its place.
	convert(ctx context.Context, key string, env *sse.Envelope, body io.Reader) (*sse.Envelope, io.Reader, error)
}

const (
	// lookFirst is the size from which a job reads an object's head by itself, to see
	// whether there is anything to do. Smaller objects are cheaper to open at once.
	lookFirst = 64 << 10

	// maxPasses bounds how often a job visits the bucket because its target moved.
	maxPasses = 3

	defaultMaxFailures = 1000
)

// run runs a job: see [Job].
func run(ctx context.Context, s *store.Store, o Job, op operation, spec jobSpec) (*Report, error) {
	report := &Report{DryRun: o.DryRun}
	if o.DryRun {
		o.Checkpoint = nil
	}
	if o.MaxFailures <= 0 {
		o.MaxFailures = defaultMaxFailures
	}
	if o.saveEvery == 0 {
		o.saveEvery = defaultSaveEvery
	}
	probe, err := probeTarget(ctx, s, op, spec.Filter.Prefix)
	if err != nil {
		return report, err
	}
	spec.Bucket, spec.Mode = s.Name, probe.Mode().String()
	c, resumed, err := openCheckpoint(ctx, o.Checkpoint, spec)
	if err != nil {
		return report, err
	}
	if resumed && (c.Moved || op.followsKey() && c.Target != keyOf(probe) || c.Probe == nil || !op.isTarget(ctx, c.Probe)) {
		c.restart()
		resumed = false
	}
	report.Resumed = resumed
	c.Target, c.Probe = keyOf(probe), probe
	if err := c.save(ctx); err != nil {
		return report, err
	}
	j := &job{s: s, Job: o, op: op, c: c, report: report}
	j.updateReport()
	if err := j.visitUntilSettled(ctx); err != nil {
		return report, err
	}
	c.Done = len(c.Failed) == 0
	if err := c.save(ctx); err != nil {
		return report, err
	}
	return report, report.err()
}

// sealProbe makes an envelope of enc without a body, for an object named prefix.
func sealProbe(ctx context.Context, s *store.Store, enc sse.Encrypter, prefix string) (*sse.Envelope, error) {
	if err := s.Precheck(enc); err != nil {
		return nil, err
	}
	probe, err := enc.Encrypt(ctx, s.Object(prefix))
	if err != nil {
		return nil, err
	}
	return probe.Envelope(), nil
}

// probeTarget makes an envelope under the target's key, if the bucket's policy permits
// that and the bucket can open objects under it.
func probeTarget(ctx context.Context, s *store.Store, op operation, prefix string) (*sse.Envelope, error) {
	probe, err := op.probe(ctx)
	if err != nil {
		return nil, fmt.Errorf("blob: target's key: %w", err)
	}
	if _, err := s.Fit(probe); err != nil {
		return nil, err
	}
	if probe.Mode() == sse.ModeCustomer {
		return probe, nil // each caller brings the key
	}
	if _, err := s.Decrypter.Decrypt(ctx, s.Object(prefix), probe); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrTarget, store.KeyError(err))
	}
	return probe, nil
}

// job is a job that runs.
type job struct {
	s *store.Store
	Job
	op     operation
	c      *checkpoint
	report *Report
}

// visitUntilSettled visits the bucket, and again if the target's key changed meanwhile.
func (j *job) visitUntilSettled(ctx context.Context) error {
	for pass := 1; ; pass++ {
		if err := j.visit(ctx); err != nil {
			// Keep what is done, even if ctx has ended.
			return errors.Join(err, j.c.save(context.WithoutCancel(ctx)))
		}
		if !j.c.Moved {
			return nil
		}
		if pass == maxPasses {
			return errors.Join(fmt.Errorf("%w: the target's key changed %d times", ErrIncomplete, pass), j.c.save(ctx))
		}
		before := j.c.Counts
		j.c.restart()
		j.c.Counts.Done, j.c.Counts.Bytes = before.Done, before.Bytes
		j.updateReport() // also if the next pass finds no object
	}
}

// visit visits the bucket once.
func (j *job) visit(ctx context.Context) error {
	objects := j.c.skipFinished(lister(j.s, j.c.Job.Filter.Prefix))
	return walk(ctx, pace{j.Workers, j.Limit}, objects, j.process, func(r Result) error {
		if err := ctx.Err(); err != nil && r.Outcome == OutcomeFailed {
			return err
		}
		switch r.Outcome {
		case OutcomeDone:
			j.c.Counts.Done++
			j.c.Counts.Bytes += r.Stored
			if r.To != j.c.Target {
				j.c.Target, j.c.Moved = r.To, j.op.followsKey()
			}
		case OutcomeCurrent:
			j.c.Counts.Current++
		case OutcomeUnmatched:
			j.c.Counts.Unmatched++
		case OutcomeSkipped:
			j.c.Counts.Skipped++
		case OutcomeDeleted:
			j.c.Counts.Deleted++
		case OutcomeFailed:
			if len(j.report.Failures) < maxReported {
				j.report.Failures = append(j.report.Failures, r)
			}
		}
		stop := j.c.recordResult(r.Key, r.Outcome == OutcomeFailed, j.MaxFailures)
		j.updateReport()
		if j.Object != nil {
			j.Object(r)
		}
		if j.Progress != nil {
			j.Progress(j.report)
		}
		return errors.Join(stop, j.c.saveIfDue(context.WithoutCancel(ctx), j.saveEvery))
	})
}

// updateReport updates the report.
func (j *job) updateReport() {
	j.report.Target, j.report.Counts, j.report.Failed = j.c.Target, j.c.Counts, int64(len(j.c.Failed))
}

// process does the job for one object, and attempts it again while others change it.
func (j *job) process(ctx context.Context, object store.Listed) Result {
	for attempt := 1; ; attempt++ {
		r := j.attempt(ctx, object)
		var absent *absentError
		if errors.As(r.Err, &absent) {
			if r.Err = j.s.Absence(ctx, r.Key, absent.err); errors.Is(r.Err, store.ErrDeleted) {
				r.Outcome, r.Err = OutcomeDeleted, nil
			}
		}
		again := errors.Is(r.Err, stored.ErrChanged) || errors.Is(r.Err, store.ErrHidden)
		if !again || attempt == stored.MaxTries || ctx.Err() != nil {
			if r.Outcome != OutcomeDone {
				r.To, r.Stored = KeyRef{}, 0
			}
			return r
		}
		object.Size = -1 // the listing showed an older version
		store.Pause(ctx, attempt)
	}
}

// attempt does one object once.
func (j *job) attempt(ctx context.Context, object store.Listed) Result {
	r := Result{Key: object.Key}
	if j.DryRun || object.Size >= lookFirst {
		seen := j.s.Inspect(ctx, object)
		e := entryOf(seen)
		r.From = e.Seal
		if r.Outcome, r.Err = j.op.decide(ctx, e, seen.Envelope); r.Outcome != OutcomeDone {
			r.Err = absentIfNotFound(r.Err)
			return r
		}
		if j.DryRun {
			r.Err = j.rehearse(ctx, &r, seen)
		}
	}
	if !j.DryRun {
		r.Err = j.replace(ctx, &r)
	}
	if r.Err != nil {
		r.Outcome = OutcomeFailed
	}
	return r
}

// absentError says that the store did not find an object when it was read. A
// NotFound of a write says something else, as that the bucket is gone.
type absentError struct{ err error }

func (e *absentError) Error() string { return e.err.Error() }
func (e *absentError) Unwrap() error { return e.err }

func absentIfNotFound(err error) error {
	if gcerrors.Code(err) == gcerrors.NotFound {
		return &absentError{err}
	}
	return err
}

// rehearse does what replace does without the body and without writing.
func (j *job) rehearse(ctx context.Context, r *Result, seen store.Object) error {
	sealed, _, err := j.op.convert(ctx, r.Key, seen.Envelope, nil)
	if err != nil {
		return store.KeyError(err)
	}
	r.To = keyOf(sealed)
	if seen.Trailer != nil {
		tail, err := j.s.Replace(seen.Trailer, sealed)
		if err == nil {
			r.Stored = tail.Size()
		}
		return err
	}
	if sealed, err = j.s.Fit(sealed); err != nil {
		return err
	}
	body, err := sse.CiphertextSize(seen.Size)
	r.Stored = int64(sealed.Size()) + body
	return err
}
