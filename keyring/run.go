package keyring

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

const (
	refreshTimeout = 10 * time.Second       // of one refresh in the background
	refreshSpread  = 250 * time.Millisecond // over which the replicas that hear of a change load it
	retryPause     = time.Second            // after a refresh or a watch that failed; then twice that, and so on
	retryLimit     = time.Minute            // the longest pause before a watch is tried again
)

// Run refreshes the ring every RefreshInterval and rotates it in time, until
// ctx ends, and returns ctx's error. If the store is a [Watcher], Run also
// refreshes within a quarter of a second of hearing of a change; the processes
// that hear of it spread their loads over that time.
//
// What fails goes to the Logger, and Run goes on: a refresh that failed is tried
// again sooner than after an interval, and so is a watch, each after a pause that
// grows from about a second. Once a refresh works again, a rotation that is due is
// tried at once.
//
// One Run for each Ring is enough, and any number of processes may each have
// theirs. Without it a ring still rotates and finds new versions when it is
// used, but learns of disabled and destroyed ones only when told to refresh.
func (r *Ring) Run(ctx context.Context) error {
	changed := make(chan struct{}, 1)
	var watching sync.WaitGroup
	defer watching.Wait()
	if w, ok := r.store.(Watcher); ok {
		watching.Go(func() {
			r.watch(ctx, w, func() {
				select {
				case changed <- struct{}{}:
				default: // one is waiting to be seen
				}
			})
		})
	}
	for failures := 0; ; {
		interval := r.opts.RefreshInterval
		if failures > 0 {
			interval = min(interval, backOffTime(failures))
		}
		timer := time.NewTimer(interval - interval/5 + rand.N(2*(interval/5)+1))
		select {
		case <-timer.C:
		case <-changed:
			timer.Reset(rand.N(refreshSpread))
			select {
			case <-timer.C:
			case <-ctx.Done():
			}
			select {
			case <-changed: // the load that follows begins after that one, too
			default:
			}
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		failures = r.refreshInBackground(ctx, failures)
		if a, _, _ := r.beginRotation(ctx); a != nil {
			select {
			case <-a.done:
			case <-ctx.Done():
			}
		}
	}
}

// refreshInBackground is one refresh of Run, after so many that failed in a row.
// It returns how many then did.
func (r *Ring) refreshInBackground(ctx context.Context, failures int) int {
	bounded, cancel := context.WithTimeout(ctx, refreshTimeout)
	defer cancel()
	err := r.Refresh(bounded)
	switch {
	case ctx.Err() != nil:
		return failures
	case err != nil:
		r.log.LogAttrs(ctx, slog.LevelError, "keyring: refresh failed, old document stays in use",
			slog.String("ring", r.ID()), slog.Int("failures", failures+1), slog.Any("error", err))
		return failures + 1
	case failures > 0:
		r.log.LogAttrs(ctx, slog.LevelInfo, "keyring: refresh works again",
			slog.String("ring", r.ID()), slog.Int("failures", failures), slog.Uint64("generation", r.Generation()))
		r.rotation.retryNow()
	}
	return 0
}

// watch has changed called when the store's document changes, until ctx ends or
// the store says that it cannot watch.
func (r *Ring) watch(ctx context.Context, w Watcher, changed func()) {
	for failures := 0; ; {
		var begun atomic.Bool
		err := w.Watch(ctx, func() {
			begun.Store(true)
			changed()
		})
		if ctx.Err() != nil || errors.Is(err, errors.ErrUnsupported) {
			return
		}
		if begun.Load() {
			failures = 0
		}
		failures++
		pause := min(backOffTime(failures), retryLimit)
		pause = pause/2 + rand.N(pause/2) // replicas that lost one server do not come back as one
		r.log.LogAttrs(ctx, slog.LevelWarn, "keyring: watch of the store broke, changes are seen by interval until it is back",
			slog.String("ring", r.ID()), slog.Int("failures", failures), slog.Any("error", err))
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// backOffTime is how long to wait after so many failures in a row.
func backOffTime(failures int) time.Duration { return retryPause << min(failures-1, 20) }
