package keyring

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

const (
	rotationTimeout = 30 * time.Second       // of one attempt in the background
	rotationPause   = time.Minute            // after an attempt that failed
	rotationWait    = 250 * time.Millisecond // for a healthy store to deliver the new primary
)

// Primary returns the version that seals new data keys.
//
// Once it is older than the ring's period, Primary rotates in the background:
// one attempt at a time, each of at most 30 seconds, and none for a minute after
// one that failed, unless Run finds that the store works again. The call that begins an attempt waits for it, but at most a
// quarter of a second and ctx, and then goes on with the old primary; others do
// not wait. Failures go to the Logger.
//
// Past HardAge the old primary is refused: calls wait for the attempt, as far
// as ctx lets them, and fail with [ErrTooOld] and the reason.
func (r *Ring) Primary(ctx context.Context) (*Key, error) {
	s := r.doc.State()
	if s.age(r.opts.Now()) < r.rotateAge(&s.metadata) {
		return s.primary, nil
	}
	return r.aged(ctx)
}

// hardAge is the age from which a primary is refused.
func (r *Ring) hardAge(m *metadata) time.Duration {
	if r.opts.HardAge != 0 {
		return r.opts.HardAge
	}
	return hardPeriods * m.period
}

// rotateAge is the age from which a primary is rotated.
func (r *Ring) rotateAge(m *metadata) time.Duration { return min(m.period, r.hardAge(m)) }

// aged is Primary for a primary that wants rotating.
func (r *Ring) aged(ctx context.Context) (*Key, error) {
	attempt, begun, err := r.beginRotation(ctx)
	s := r.doc.State()
	hard := s.age(r.opts.Now()) >= r.hardAge(&s.metadata)
	if attempt != nil && (begun || hard) {
		wait := rotationWait
		if hard {
			wait = rotationTimeout + time.Second
		}
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-attempt.done:
			err = attempt.err
		case <-ctx.Done():
			err = ctx.Err()
		case <-timer.C:
			err = fmt.Errorf("%w: no answer yet", ErrStore)
		}
		s = r.doc.State()
	}
	age := s.age(r.opts.Now())
	if age < r.hardAge(&s.metadata) {
		return s.primary, nil
	}
	if err == nil { // another process made the primary, and its clock is far behind
		err = fmt.Errorf("%w: rotated, and still too old", ErrStore)
	}
	return nil, fmt.Errorf("%w: %s is %v old: %w", ErrTooOld, s.primary.id, age.Round(time.Second), err)
}

// rotation is what a ring knows of its rotation by age.
type rotation struct {
	mu      sync.Mutex
	running *attempt
	resume  time.Time // no attempt before, after one that failed
	err     error     // of the last attempt
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

// beginRotation begins an attempt, if the primary wants it, none is running and
// the last did not fail a moment ago. It returns the attempt that is running,
// whether this call began it, and the last error if there is none.
func (r *Ring) beginRotation(ctx context.Context) (a *attempt, begun bool, err error) {
	r.rotation.mu.Lock()
	defer r.rotation.mu.Unlock()
	if a := r.rotation.running; a != nil {
		return a, false, nil
	}
	if s := r.doc.State(); s.age(r.opts.Now()) < r.rotateAge(&s.metadata) {
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

// rotateInBackground is one attempt. It outlives the call that began it, by at
// most rotationTimeout.
func (r *Ring) rotateInBackground(ctx context.Context, a *attempt) {
	ctx, cancel := context.WithTimeout(ctx, rotationTimeout)
	defer cancel()
	old := r.doc.State().primary.id
	info, err := r.rotateByAge(ctx)
	switch {
	case err != nil:
		r.log.LogAttrs(ctx, slog.LevelError, "keyring: rotation failed, old primary stays in use",
			slog.String("ring", r.ID()), slog.String("primary", old), slog.Any("error", err))
	case info.ID != old:
		r.log.LogAttrs(ctx, slog.LevelInfo, "keyring: primary rotated",
			slog.String("ring", r.ID()), slog.String("old", old), slog.String("primary", info.ID))
	}
	r.rotation.mu.Lock()
	defer r.rotation.mu.Unlock()
	r.rotation.running = nil
	r.rotation.err, r.rotation.resume = err, time.Now().Add(rotationPause)
	a.err = err
	close(a.done)
}

// rotateByAge loads the document, and rotates if its primary is still too old:
// another process may have done it.
func (r *Ring) rotateByAge(ctx context.Context) (Info, error) {
	if err := r.lockRotation(ctx); err != nil {
		return Info{}, err
	}
	defer r.unlockRotation()
	return r.rotate(ctx, func(d *draft) bool {
		return d.age(r.opts.Now()) >= r.rotateAge(&d.metadata)
	})
}
