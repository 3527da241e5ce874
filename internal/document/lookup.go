package document

import (
	"context"
	"fmt"
	"maps"
	"time"
)

const (
	missInterval = time.Second // between loads after a miss once the burst is used up
	missedLimit  = 4096        // ids that are remembered as missing
)

// Lookup returns a state in which found is true, or else one that was loaded after
// the call and in which it is false; the caller looks again. Callers who miss at
// once share a load. After a burst of Options.MissBurst there is one load a second,
// for which callers wait, looking again whenever the document changes.
//
// An id that a load did not bring is not looked for again for a second. Nor is any
// id for a second after a load failed: the error tells why that one did. ctx bounds
// the wait alone.
func (r *Replica[S, O]) Lookup(ctx context.Context, id string, found func(S) bool) (state S, err error) {
	ticket := r.loads.ticket()
	for {
		if s := r.State(); found(s) {
			return s, nil
		}
		done, err := r.loadAfterMiss(ctx, ticket, id)
		if err != nil {
			return state, err
		}
		if done {
			return r.State(), nil
		}
	}
}

// wants notes that a caller waits for the load because of id.
func (l *load) wants(id string) {
	if l.wanted == nil {
		l.wanted = make(map[string]struct{})
	}
	if len(l.wanted) < missedLimit {
		l.wanted[id] = struct{}{}
	}
}

// remember keeps ids that a load was made for, until the document changes. Those
// that it found do no harm there: they are found before they are looked for here.
func (l *loads) remember(ids map[string]struct{}) {
	if len(l.missed)+len(ids) > missedLimit {
		l.missed = nil
	}
	if l.missed == nil {
		l.missed = ids
		return
	}
	maps.Copy(l.missed, ids)
}

// loadAfterMiss loads, or waits for a load. done tells that the load of that ticket,
// or a later one, took place, or need not. Callers who are told otherwise look again
// and call again.
func (r *Replica[S, O]) loadAfterMiss(ctx context.Context, ticket uint64, id string) (done bool, err error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	l := &r.loads
	l.mu.Lock()
	now := time.Now()
	if last := l.last; last != nil {
		_, missed := l.missed[id]
		switch age := now.Sub(last.ended); {
		case last.number >= ticket, missed && last.err == nil && age < missInterval:
			l.mu.Unlock()
			return true, last.err
		case last.err != nil && l.running == nil && age < missInterval:
			l.mu.Unlock()
			return false, fmt.Errorf("%v ago: %w", age.Round(time.Millisecond), last.err)
		}
	}
	if l.running == nil && l.turn == nil {
		if err := r.takeTurn(ctx, now); err != nil { // unlocks meanwhile
			l.mu.Unlock()
			return false, err
		}
	}
	wait, changed := l.turn, l.changed
	if l.running != nil {
		wait = l.running.done
		if l.running.number >= ticket {
			l.running.wants(id)
		}
	}
	l.mu.Unlock()
	if wait == nil { // a turn that ended, or that the document's change ended
		return false, nil
	}
	select {
	case <-wait:
		return false, nil
	case <-changed:
		return false, nil
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

// takeTurn begins a load, once the rate of loads after a miss allows. It returns
// without one if another load began, or the document changed. The caller holds
// loads.mu, before and after.
func (r *Replica[S, O]) takeTurn(ctx context.Context, now time.Time) error {
	l := &r.loads
	if l.free.Before(now) {
		l.free = now
	}
	if wait := l.free.Sub(now) - time.Duration(r.opts.MissBurst-1)*missInterval; wait > 0 {
		turn, changed := make(chan struct{}), l.changed
		l.turn = turn
		l.mu.Unlock()
		var err error
		myTurn := false
		select {
		case <-time.After(wait):
			myTurn = true
		case <-changed:
		case <-ctx.Done():
			err = ctx.Err()
		}
		l.mu.Lock()
		l.turn = nil
		close(turn)
		if !myTurn {
			return err
		}
	}
	if l.running == nil {
		l.free = l.free.Add(missInterval)
		r.beginLoad(ctx)
	}
	return nil
}
