// Package follow keeps what a process knows of a store up to date: by interval,
// and soon after the store tells of a change.
package follow

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

const (
	retryPause = time.Second // after a refresh or a watch that failed; then twice that, and so on
	retryLimit = time.Minute // the longest pause before a watch is tried again
)

// Options say how to follow a store.
type Options struct {
	// Interval is the time between refreshes, give or take a fifth.
	Interval time.Duration

	// Spread is the time over which those who hear of one change refresh, so that
	// they do not all come to the store at one moment.
	Spread time.Duration

	// Watch calls changed once it has begun to watch, and from then on after every
	// change, until ctx ends or it no longer can. [errors.ErrUnsupported] means
	// that it never can, and so does nil for the function.
	Watch func(ctx context.Context, changed func()) error

	// Broken hears of each watch that broke, the how many-th in a row that is.
	Broken func(failures int, err error)
}

// Run calls refresh until ctx ends, and returns ctx's error: every Interval, and
// within Spread of hearing of a change. failures tells refresh how many before it
// failed in a row; after one that did, the next comes sooner than after an
// interval, and so does a watch that broke, each after a pause that grows from
// about a second.
//
// There is one refresh at a time, which bounds its own time. One that begins
// after a change was heard of stands for all that were. Nothing goes on once Run
// has returned.
func Run(ctx context.Context, o Options, refresh func(ctx context.Context, failures int) error) error {
	changed := make(chan struct{}, 1)
	var watching sync.WaitGroup
	defer watching.Wait()
	if o.Watch != nil {
		watching.Go(func() {
			o.watch(ctx, func() {
				select {
				case changed <- struct{}{}:
				default: // one is waiting to be seen
				}
			})
		})
	}
	for failures := 0; ; {
		interval := o.Interval
		if failures > 0 {
			interval = min(interval, backOff(failures))
		}
		timer := time.NewTimer(interval - interval/5 + rand.N(2*(interval/5)+1))
		select {
		case <-timer.C:
		case <-changed:
			timer.Reset(rand.N(o.Spread))
			select {
			case <-timer.C:
			case <-ctx.Done():
			}
			select {
			case <-changed: // the refresh that follows begins after that one, too
			default:
			}
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := refresh(ctx, failures); err != nil {
			failures++
		} else {
			failures = 0
		}
	}
}

// watch has changed called when there is a change, until ctx ends or Watch says
// that it cannot watch.
func (o *Options) watch(ctx context.Context, changed func()) {
	for failures := 0; ; {
		var begun atomic.Bool
		err := o.Watch(ctx, func() {
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
		pause := min(backOff(failures), retryLimit)
		pause = pause/2 + rand.N(pause/2) // those that lost one server do not come back as one
		o.Broken(failures, err)
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// backOff is how long to wait after so many failures in a row.
func backOff(failures int) time.Duration { return retryPause << min(failures-1, 20) }
