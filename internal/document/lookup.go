package document

import (
	"context"
	"fmt"
	"maps"
	"time"
)

const (
	missInterval = time.Second // between loads after misses when the burst is used up
	missedLimit  = 4096        // ids that are remembered as missing
)

// Lookup returns a state that found accepts. If found accepts none, Lookup returns a state
// that it loaded after the call began. Callers who miss at the same time share a load. After
// Options.MissBurst loads there is one a second; callers wait for it, and look again
// whenever the document changes.
//
// If a load does not find id, Lookup does not load again for id for a second. After a
// load failed, Lookup does not load for any id for a second, and returns that load's
// error. ctx bounds only the wait.
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

// addWanted notes that a caller waits for the load because of id.
func (l *load) addWanted(id string) {
	if l.wanted == nil {
		l.wanted = make(map[string]struct{})
	}
	if len(l.wanted) < missedLimit {
		l.wanted[id] = struct{}{}
	}
}

// remember keeps the ids that a load was made for, until the document changes. Ids that
// the load found do no harm: Lookup finds them before it looks here.
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

// loadAfterMiss loads, or waits for a load. done is true when the load of that ticket or
// a later one has ended, or a load would find nothing new. Until then, the caller looks
// again and calls again.
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
			return false, fmt.Errorf("load %v ago: %w", age.Round(time.Millisecond), last.err)
		}
	}
	if l.running == nil && l.turn == nil {
		if err := r.takeTurn(ctx, now); err != nil {
			l.mu.Unlock()
			return false, err
		}
	}
	wait, changed := l.turn, l.changed
	if l.running != nil {
		wait = l.running.done
		if l.running.number >= ticket {
			l.running.addWanted(id)
		}
	}
	l.mu.Unlock()
	if wait == nil { // the caller's own turn ended without a load
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

// takeTurn waits until the rate of loads after misses allows one, and begins it. It begins
// none if another load began meanwhile, or the document changed. The caller holds loads.mu;
// takeTurn releases it while it waits.
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
