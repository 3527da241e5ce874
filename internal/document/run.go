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
	retryPause = time.Second // after a refresh or a watch failed once; doubles with each failure
	retryLimit = time.Minute // the longest pause before a watch begins again
)

// Run refreshes the replica every Options.Interval until ctx ends, and returns ctx's
// error. If the store is a [Watcher], Run also refreshes within Options.Spread of hearing
// of a change. After each refresh, failed or not, it calls then, which bounds its own time.
// recovered is true for the first refresh that succeeds after failures.
//
// Run logs failures and goes on. It retries a failed refresh, and begins a broken watch
// again, after a pause that grows from about a second. One refresh runs at a time. After
// Run has returned, only a load may still run.
func (r *Replica[S, O]) Run(ctx context.Context, then func(ctx context.Context, recovered bool)) error {
	changed := make(chan struct{}, 1)
	var watching sync.WaitGroup
	defer watching.Wait()
	if w, ok := r.store.(Watcher); ok {
		watching.Go(func() {
			r.watch(ctx, w, func() {
				select {
				case changed <- struct{}{}:
				default: // a change is waiting already
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

// watch calls changed after each change, until ctx ends or the store says that it cannot
// watch.
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
		pause = pause/2 + rand.N(pause/2) // so that processes that lost one server do not all return at once
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
	}
}

// pauseAfter returns how long to wait after that many failures in a row.
func pauseAfter(failures int) time.Duration { return retryPause << min(failures-1, 20) }
