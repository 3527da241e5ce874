package document

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// loads tracks the loads of a replica.
type loads struct {
	mu      sync.Mutex
	changed chan struct{} // closed and replaced when a changed document is adopted
	begun   uint64        // number of loads that began
	running *load
	last    *load  // the latest that ended
	good    uint64 // number of loads that succeeded
	bad     uint64 // number of loads that failed

	turn   chan struct{}       // closed when the caller who waits to load after a miss stops waiting; nil if none waits
	free   time.Time           // when the next load after a miss could begin if bursts were not allowed
	missed map[string]struct{} // ids that were looked for in the current document by loading it

	resume time.Time // after a failure, Fresh does not load an old document again before
}

// load is one load of the document, shared by all who want it.
type load struct {
	number uint64
	timer  *time.Timer
	wanted map[string]struct{} // ids for which callers wait for it
	done   chan struct{}       // closed at the end, after the fields below are set
	ended  time.Time
	err    error
}

// Loads returns how many loads of an open replica succeeded and how many failed.
func (r *Replica[S, O]) Loads() (good, bad uint64) {
	r.loads.mu.Lock()
	defer r.loads.mu.Unlock()
	return r.loads.good, r.loads.bad
}

// announce wakes callers who wait after a miss, so that they look again.
func (l *loads) announce() {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.changed)
	l.changed = make(chan struct{})
	l.missed = nil
}

// ticket returns the number of the first load that begins after the call.
func (l *loads) ticket() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.begun + 1
}

// current returns the number of the load that runs. If none runs, it returns the number
// of the next one.
func (l *loads) current() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.running != nil {
		return l.running.number
	}
	return l.begun + 1
}

// Refresh loads the document. Callers who ask while a load runs share the next
// one. ctx bounds the wait.
//
// A document that lacks what this process knows is healed: see the package
// documentation. If that fails, the error is [ErrRollback]. A document of another
// identity is [ErrOtherRing]. After an error the replica keeps its state.
func (r *Replica[S, O]) Refresh(ctx context.Context) error { return r.awaitLoad(ctx, r.loads.ticket()) }

// awaitLoad waits for the load of that number or a later one, and returns its error.
func (r *Replica[S, O]) awaitLoad(ctx context.Context, number uint64) error {
	for {
		if err := ctx.Err(); err != nil {
			return StoreError(ctx, "load", err)
		}
		r.loads.mu.Lock()
		if last := r.loads.last; last != nil && last.number >= number {
			r.loads.mu.Unlock()
			return last.err
		}
		running := r.loads.running
		if running == nil {
			running = r.beginLoad(ctx)
		}
		r.loads.mu.Unlock()
		select {
		case <-running.done:
		case <-ctx.Done():
			return StoreError(ctx, "load", ctx.Err())
		}
	}
}

// Fresh returns a state that is at most Options.MaxAge old, if the store answers. When
// the state is older, one caller waits for a load, for at most Options.Patience; the
// others get the old state at once, and so does that caller if the load fails. When the
// state is older than Options.MaxStaleness, all callers wait, and if the load fails, so
// does Fresh.
func (r *Replica[S, O]) Fresh(ctx context.Context) (state S, err error) {
	now := time.Now()
	if now.Sub(r.Verified()) < r.opts.MaxAge {
		return r.State(), nil
	}
	if now.Sub(r.Verified()) < r.opts.MaxStaleness {
		return r.freshIfQuick(ctx, now)
	}
	for now.Sub(r.Verified()) >= r.opts.MaxStaleness {
		if err := r.awaitLoad(ctx, r.loads.current()); err != nil {
			return state, err
		}
	}
	return r.State(), nil
}

// freshIfQuick is Fresh for a state that is old, but not too old.
func (r *Replica[S, O]) freshIfQuick(ctx context.Context, now time.Time) (state S, err error) {
	r.loads.mu.Lock()
	if r.loads.running != nil || now.Before(r.loads.resume) {
		r.loads.mu.Unlock()
		return r.State(), nil
	}
	running := r.beginLoad(ctx)
	r.loads.mu.Unlock()
	wait := r.opts.Patience
	if deadline, ok := ctx.Deadline(); ok {
		wait = min(wait, deadline.Sub(now)/2) // leave time to do something with the answer
	}
	select {
	case <-running.done:
		if running.err != nil {
			r.loads.mu.Lock()
			r.loads.resume = time.Now().Add(min(r.opts.MaxAge, missInterval))
			r.loads.mu.Unlock()
			r.log(ctx, slog.LevelError, "refresh failed, old document stays in use", slog.Any("error", running.err))
		}
	case <-time.After(wait): // the load goes on
	case <-ctx.Done():
		return state, StoreError(ctx, "load", ctx.Err())
	}
	return r.State(), nil
}

// beginLoad begins a load in a goroutine. The load ends after LoadTimeout at the latest,
// or after EditTimeout more if it heals the document. The caller holds loads.mu, and no
// load is running.
func (r *Replica[S, O]) beginLoad(ctx context.Context) *load {
	r.loads.begun++
	l := &load{number: r.loads.begun, done: make(chan struct{})}
	r.loads.running = l
	// A store that ignores ctx blocks this goroutine, but not the callers.
	l.timer = time.AfterFunc(LoadTimeout+time.Second, func() {
		r.endLoad(l, fmt.Errorf("%w: load: no answer in %v", ErrStore, LoadTimeout))
	})
	go r.loadInBackground(context.WithoutCancel(ctx), l)
	return l
}

func (r *Replica[S, O]) loadInBackground(ctx context.Context, l *load) {
	err := fmt.Errorf("%w: load: goroutine ended", ErrStore) // stays if the store calls runtime.Goexit
	defer func() {
		if p := recover(); p != nil { // a store or root panicked, which must not end the process
			err = fmt.Errorf("%w: load: panic: %v", ErrStore, p)
		}
		r.endLoad(l, err)
	}()
	bounded, cancel := context.WithTimeout(ctx, LoadTimeout)
	defer cancel()
	heal, loadErr := r.loadOnce(bounded)
	err = loadErr
	if heal && !r.opts.ReadOnly {
		l.timer.Reset(EditTimeout + time.Second)
		err = r.heal(ctx, loadErr)
	}
}

func (r *Replica[S, O]) endLoad(l *load, err error) {
	r.loads.mu.Lock()
	defer r.loads.mu.Unlock()
	if r.loads.running != l {
		return // its timer ended it
	}
	l.timer.Stop()
	l.ended, l.err = time.Now(), err
	r.loads.running, r.loads.last = nil, l
	if err == nil {
		r.loads.good++
		r.loads.remember(l.wanted)
	} else {
		r.loads.bad++
	}
	close(l.done)
}

// loadOnce loads the document and adopts it. heal reports whether healing may cure the
// error.
func (r *Replica[S, O]) loadOnce(ctx context.Context) (heal bool, err error) {
	for {
		began := time.Now()
		known, keys := r.current.Load(), r.keys.Load()
		loaded, err := r.fetch(ctx)
		if errors.Is(err, ErrNotExist) {
			var none S
			r.diverge(none, err)
		}
		if err != nil {
			return false, err
		}
		switch {
		case loaded.sum == known.sum:
			loaded.state, loaded.root = known.state, known.root
		case !r.seen.has(loaded.sum):
			_, err := r.compare(ctx, keys.roots, loaded, known)
			if errors.Is(err, ErrRoot) && r.keys.Load() != keys {
				continue // ChangeRoot ran meanwhile
			}
			if err != nil {
				return errors.Is(err, ErrRollback), err
			}
		case r.current.Load() != known:
			continue // an edit replaced the document while it was being loaded
		default:
			return true, r.rolledBack(ctx, known, loaded)
		}
		r.adopt(loaded, began)
		return false, nil
	}
}

// rolledBack returns the [ErrRollback] of a document that this process had before the
// known one. It works without a root that opens the document.
func (r *Replica[S, O]) rolledBack(ctx context.Context, known, earlier *snapshot[S]) error {
	_, err := r.compare(ctx, r.keys.Load().all(), earlier, known)
	if !errors.Is(err, ErrRollback) {
		err = fmt.Errorf("%w: from before generation %d", ErrRollback, known.state.Generation())
		r.diverge(earlier.state, err)
	}
	return err
}
