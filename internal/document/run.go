package document

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
	retryPause = time.Second // after a refresh or a watch that failed; doubled each time
	retryLimit = time.Minute // the longest pause before a watch is tried again
)

// Run refreshes the replica every Options.Interval, and within Options.Spread of
// hearing of a change if the store is a [Watcher], until ctx ends, and returns
// ctx's error. After each refresh it calls then, which bounds its own time;
// recovered tells that the refresh succeeded after some that failed.
//
// Failures are logged, and Run goes on: a refresh that failed, and a watch that
// broke, are tried again after a pause that grows from about a second. There is one
// refresh at a time; one that begins after a change covers all changes so far.
// Except for a load, nothing goes on after Run has returned.
func (r *Replica[S, O]) Run(ctx context.Context, then func(ctx context.Context, recovered bool)) error {
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
		if err := r.waitToRefresh(ctx, failures, changed); err != nil {
			return err
		}
		err := r.Refresh(ctx)
		recovered := err == nil && failures > 0
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			failures++
			r.log(ctx, slog.LevelError, "refresh failed, old document stays in use",
				slog.Int("failures", failures), slog.Any("error", err))
		case recovered:
			r.log(ctx, slog.LevelInfo, "refresh works again",
				slog.Int("failures", failures), slog.Uint64("generation", r.State().Generation()))
			failures = 0
		}
		then(ctx, recovered)
	}
}

// waitToRefresh waits until the next refresh of Run is due.
func (r *Replica[S, O]) waitToRefresh(ctx context.Context, failures int, changed <-chan struct{}) error {
	interval := r.opts.Interval
	if failures > 0 {
		interval = min(interval, pauseAfter(failures))
	}
	select {
	case <-time.After(interval - interval/5 + rand.N(2*(interval/5)+1)):
	case <-changed:
		select {
		case <-time.After(rand.N(r.opts.Spread)):
		case <-ctx.Done():
		}
		select {
		case <-changed: // the refresh begins after this change, too
		default:
		}
	case <-ctx.Done():
	}
	return ctx.Err()
}

// watch calls changed when there is a change, until ctx ends or the store says that
// it cannot watch.
func (r *Replica[S, O]) watch(ctx context.Context, w Watcher, changed func()) {
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
		r.log(ctx, slog.LevelWarn, "watch of the store broke, changes are seen by interval until it is back",
			slog.Int("failures", failures), slog.Any("error", err))
		pause := min(pauseAfter(failures), retryLimit)
		pause = pause/2 + rand.N(pause/2) // processes that lost one server do not come back at once
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
	}
}

// pauseAfter returns how long to wait after so many failures in a row.
func pauseAfter(failures int) time.Duration { return retryPause << min(failures-1, 20) }
