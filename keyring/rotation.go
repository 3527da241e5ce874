package keyring

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"time"

	"github.com/blobseal/blobseal/internal/document"
)

const (
	rotationTimeout = 30 * time.Second       // of one attempt in the background
	rotationPause   = time.Minute            // after an attempt that failed
	rotationWait    = 250 * time.Millisecond // for a healthy store to deliver the new primary
)

// Primary returns the version that seals new data keys.
//
// If the primary is older than the ring's period, Primary rotates in the background. The
// call that begins an attempt waits for it, for at most a quarter of a second and not beyond
// ctx, and then returns the old primary. Other calls do not wait. One attempt runs at a time,
// for at most 30 seconds. After a failure there is no attempt for a minute, unless Run finds
// that the store works again. Failures go to the Logger.
//
// When the primary is older than HardAge, all calls wait for the attempt until ctx ends. If
// it fails, the error wraps [ErrTooOld] and the reason. If the store is known to lack the
// primary, for example after a failover, and could not be healed for 30 seconds, the error
// is [ErrRollback].
func (r *Ring) Primary(ctx context.Context) (*Key, error) {
	s := r.doc.State()
	if d := r.doc.Diverged(); d != nil {
		if err := checkStored(s, d); err != nil {
			return nil, err
		}
	}
	if !r.isDue(&s.metadata) {
		return s.primaryKey, nil
	}
	return r.primaryAfterRotation(ctx)
}

// isDue reports whether the primary is old enough to be rotated.
func (r *Ring) isDue(m *metadata) bool { return r.age(m) >= r.rotateAge(m) }

// isTooOld reports whether the primary must not seal any more.
func (r *Ring) isTooOld(m *metadata) bool { return r.age(m) >= r.hardAge(m) }

// age returns how old the primary is. A primary from the future counts as new within
// [document.ClockTolerance]. Beyond that, a wrong clock dated it, or this clock is wrong: the
// primary is due for rotation, and ages from when this process first saw it.
func (r *Ring) age(m *metadata) time.Duration {
	now, p := r.opts.Now(), m.primary()
	// time.Time.Sub would cost each call of Primary a tenth more.
	if age := now.UnixMilli() - int64(p.created); age >= -document.ClockTolerance.Milliseconds() {
		return time.Duration(min(max(0, age), math.MaxInt64/int64(time.Millisecond))) * time.Millisecond
	}
	f := r.future.Load()
	if f == nil || f.id != p.id {
		f = &futureVersion{p.id, now}
		r.future.Store(f)
		r.opts.Logger.Warn("keyring: primary was created in the future, it will be replaced (check all clocks)",
			slog.String("ring", m.ring.String()), slog.String("primary", keyID(m.ring, p.id)), slog.Time("created", m.info(p).Created))
	}
	return max(r.rotateAge(m), now.Sub(f.seen))
}

// futureVersion is a primary from the future.
type futureVersion struct {
	id   uint32
	seen time.Time // when this process first saw it
}

// checkStored rejects a primary that the store has been known to lack for longer than
// [document.LostGrace]. When this process ends, objects sealed under it would be lost.
func checkStored(s *snapshot, d *document.Divergence[*snapshot]) error {
	if time.Since(d.Since) < document.LostGrace {
		return nil
	}
	if d.State != nil && d.State.lookup(*s.primary()) != nil {
		return nil
	}
	return fmt.Errorf("%w: it lacks %s since %v: %w", ErrRollback, s.primaryKey.id, d.Since.UTC().Format(time.RFC3339), d.Err)
}

// hardAge is the age from which a primary must not seal.
func (r *Ring) hardAge(m *metadata) time.Duration {
	if r.opts.HardAge != 0 {
		return r.opts.HardAge
	}
	if r.opts.ReadOnly {
		return math.MaxInt64
	}
	return hardPeriods * m.period
}

// rotateAge is the age from which a primary is rotated.
func (r *Ring) rotateAge(m *metadata) time.Duration { return min(m.period, r.hardAge(m)) }

// primaryAfterRotation is Primary for a primary that is due.
func (r *Ring) primaryAfterRotation(ctx context.Context) (*Key, error) {
	if s := r.doc.State(); r.opts.ReadOnly && !r.isTooOld(&s.metadata) {
		r.warnOfAge(s)
		return s.primaryKey, nil
	}
	attempt, begun, err := r.beginRotation(ctx)
	s := r.doc.State()
	tooOld := r.isTooOld(&s.metadata)
	if attempt != nil && (begun || tooOld) {
		wait := rotationWait
		if tooOld {
			wait = rotationTimeout + time.Second
		}
		select {
		case <-attempt.done:
			err = attempt.err
		case <-ctx.Done():
			err = ctx.Err()
		case <-time.After(wait):
			err = fmt.Errorf("%w: no answer yet", ErrStore)
		}
		s = r.doc.State()
	}
	if !r.isTooOld(&s.metadata) {
		return s.primaryKey, nil
	}
	if err == nil { // another process just added the primary, and one of the clocks is wrong
		err = fmt.Errorf("%w: new primary is too old (check all clocks)", ErrStore)
	}
	return nil, fmt.Errorf("%w: %s is %v old: %w", ErrTooOld, s.primaryKey.id, r.age(&s.metadata).Round(time.Second), err)
}

// warnOfAge logs, once for each primary, that nobody rotates the ring where it is
// provisioned from.
func (r *Ring) warnOfAge(s *snapshot) {
	if id := s.primary().id; r.warned.Swap(uint64(id)+1) != uint64(id)+1 {
		r.opts.Logger.Warn("keyring: primary is older than the ring's period (rotate the ring where it is provisioned from)",
			slog.String("ring", r.ID()), slog.String("primary", s.primaryKey.id))
	}
}

// rotation tracks the rotations of a ring by age.
type rotation struct {
	mu      sync.Mutex
	running *attempt
	made    time.Time // when this process last added a version, by the ring's clock
	err     error     // of the last attempt
	resume  time.Time // if that failed, when the next attempt may begin
}

// retryNow ends the pause after an attempt that failed.
func (r *rotation) retryNow() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.resume = time.Time{}
}

// attempt is one try to rotate.
type attempt struct {
	done chan struct{} // closed at the end, after err is set
	err  error
}

// beginRotation begins an attempt if the primary is due, none is running and the last one
// did not fail a moment ago. It returns the running attempt and whether this call began it,
// or, during the pause after a failure, that failure.
func (r *Ring) beginRotation(ctx context.Context) (a *attempt, begun bool, err error) {
	r.rotation.mu.Lock()
	defer r.rotation.mu.Unlock()
	if a := r.rotation.running; a != nil {
		return a, false, nil
	}
	if !r.wantsRotation() {
		return nil, false, nil
	}
	if r.rotation.err != nil && time.Now().Before(r.rotation.resume) {
		return nil, false, r.rotation.err
	}
	a = &attempt{done: make(chan struct{})}
	r.rotation.running = a
	go r.rotateInBackground(context.WithoutCancel(ctx), a)
	return a, true, nil
}

// wantsRotation reports whether this process should rotate because of age. The caller
// holds rotation.mu.
func (r *Ring) wantsRotation() bool {
	return !r.opts.ReadOnly && r.isDue(&r.doc.State().metadata) && !r.rotatedLately()
}

// rotatedLately reports whether this process added a version because of age less than half
// a period ago. If the primary is due again, the clocks of two processes disagree, and they
// would replace each other's versions without end. The caller holds rotation.mu.
func (r *Ring) rotatedLately() bool {
	if r.rotation.made.IsZero() {
		return false
	}
	since := r.opts.Now().Sub(r.rotation.made)
	return since >= 0 && since < r.rotateAge(&r.doc.State().metadata)/2
}

// Rotate adds a version, makes it the primary and returns it. The version is in the
// store before it seals anything. ctx bounds the call.
//
// Concurrent calls share a version: a call that waited for another rotation of this Ring,
// or whose write lost against a rotation by another process, returns that version. A ring
// of 4096 versions is [ErrFull]; versions destroyed long ago do not count. A process whose
// clock differs from the store's does not rotate: see [ClockError].
//
// After [ErrStore] the version may or may not be in the store. If it is, the ring adopts it
// at the next refresh.
func (r *Ring) Rotate(ctx context.Context) (Version, error) {
	before := r.rotated.Load()
	if err := r.lockRotation(ctx); err != nil {
		return Version{}, err
	}
	defer r.unlockRotation()
	if r.rotated.Load() != before {
		return r.doc.State().primaryInfo(), nil
	}
	var first uint32
	primary, _, err := r.rotate(ctx, func(d *draft) bool {
		if first == 0 {
			first = d.primary().id
		}
		return d.primary().id == first
	})
	return primary, err
}

// rotate adds a version if the document, as loaded, wants one, and reports whether it did.
// It returns the primary. The caller holds the turn to rotate.
func (r *Ring) rotate(ctx context.Context, wanted func(*draft) bool) (primary Version, made bool, err error) {
	s, err := r.doc.Edit(ctx, func(d *draft) (bool, error) {
		if made = wanted(d); !made {
			return false, nil
		}
		now, _, err := r.doc.Time(ctx, r.opts.Now)
		if err != nil {
			return false, err
		}
		return true, d.rotate(now)
	})
	if err != nil {
		r.failed.Add(1)
		return Version{}, false, err
	}
	if made {
		r.rotated.Add(1)
	}
	return s.primaryInfo(), made, nil
}

// lockRotation waits for the turn to rotate, so that concurrent calls can share a version.
func (r *Ring) lockRotation(ctx context.Context) error {
	select {
	case r.rotating <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("keyring: wait for another rotation: %w", ctx.Err())
	}
}

func (r *Ring) unlockRotation() { <-r.rotating }

// RotateIfDue rotates if the primary is older than the ring's period, and reports whether
// it added a version. Unlike [Ring.Primary] it waits for the store. A process that lives
// for seconds, such as a cron job, calls RotateIfDue after [Open]; in others, Primary and
// Run rotate. ctx bounds the call.
func (r *Ring) RotateIfDue(ctx context.Context) (bool, error) {
	if r.opts.ReadOnly {
		return false, ErrReadOnly
	}
	r.rotation.mu.Lock()
	due := r.wantsRotation()
	r.rotation.mu.Unlock()
	if !due {
		return false, nil
	}
	return r.rotateByAge(ctx)
}

// rotateInBackground runs one attempt. It may outlive the call that began it, and ends after
// rotationTimeout.
func (r *Ring) rotateInBackground(ctx context.Context, a *attempt) {
	ctx, cancel := context.WithTimeout(ctx, rotationTimeout)
	defer cancel()
	old := r.doc.State().primaryKey.id
	_, err := r.rotateByAge(ctx)
	switch {
	case err != nil:
		r.opts.Logger.LogAttrs(ctx, slog.LevelError, "keyring: rotation failed, old primary stays in use",
			slog.String("ring", r.ID()), slog.String("primary", old), slog.Any("error", err))
	case r.doc.State().primaryKey.id != old:
		r.opts.Logger.LogAttrs(ctx, slog.LevelInfo, "keyring: primary rotated",
			slog.String("ring", r.ID()), slog.String("old", old), slog.String("primary", r.doc.State().primaryKey.id))
	}
	r.rotation.mu.Lock()
	defer r.rotation.mu.Unlock()
	r.rotation.running = nil
	r.rotation.err, r.rotation.resume = err, time.Now().Add(rotationPause)
	a.err = err
	close(a.done)
}

// rotateByAge loads the document, and rotates if its primary is still due: another process
// may have rotated. It reports whether this process added a version.
func (r *Ring) rotateByAge(ctx context.Context) (bool, error) {
	if err := r.lockRotation(ctx); err != nil {
		return false, err
	}
	defer r.unlockRotation()
	_, made, err := r.rotate(ctx, func(d *draft) bool { return r.isDue(&d.metadata) })
	if made {
		r.rotation.mu.Lock()
		r.rotation.made = r.opts.Now()
		r.rotation.mu.Unlock()
	}
	return made, err
}
