package keyring

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Refreshing after a miss: this many at once, then one in each interval.
const (
	missBurst    = 60
	missInterval = time.Second
)

// Key returns the enabled version with that id.
//
// An id of this ring that is not known makes the ring refresh: callers that
// miss at once share one load, which began after they asked; after a burst of
// 60 there is one load a second, for which callers wait. ctx bounds the wait
// alone: what is in memory is returned whatever ctx says.
//
// Its errors are [ErrUnknownKey], [ErrDisabled] and [ErrDestroyed], and name
// the id. If the ring could not refresh, the error is ErrUnknownKey, [ErrStore]
// and the reason, all three; and for a second it stays so, without asking.
func (r *Ring) Key(ctx context.Context, id string) (*Key, error) {
	if key := r.current.Load().keys[id]; key != nil {
		return key, nil
	}
	return r.seek(ctx, id)
}

// seek finds out why there is no such key, or gets it.
func (r *Ring) seek(ctx context.Context, id string) (*Key, error) {
	if _, err := r.parseKeyID(id); err != nil {
		return nil, err
	}
	ticket := r.misses.ticket()
	for {
		if key, err := r.known(id); key != nil || err != nil {
			return key, err
		}
		done, err := r.refreshAfterMiss(ctx, ticket)
		if err != nil {
			if !errors.Is(err, ErrStore) {
				err = fmt.Errorf("%w: %w", ErrStore, err)
			}
			return nil, fmt.Errorf("%w: %s: could not refresh: %w", ErrUnknownKey, id, err)
		}
		if done {
			key, err := r.known(id)
			if key == nil && err == nil {
				err = fmt.Errorf("%w: ring has no version %s", ErrUnknownKey, id)
			}
			return key, err
		}
	}
}

// known looks up an id in memory. All is nil if it is not there.
func (r *Ring) known(id string) (*Key, error) {
	s := r.current.Load()
	if key := s.keys[id]; key != nil {
		return key, nil
	}
	info, found := s.info(id)
	switch {
	case !found:
		return nil, nil
	case info.State == Disabled:
		return nil, fmt.Errorf("%w: %s", ErrDisabled, id)
	default:
		return nil, fmt.Errorf("%w: %s", ErrDestroyed, id)
	}
}

// parseKeyID refuses what cannot be an id of this ring.
func (r *Ring) parseKeyID(id string) (uint32, error) {
	ring, version, err := parseKeyID(id)
	if err != nil {
		return 0, err
	}
	if own := r.current.Load().ring; ring != own {
		return 0, fmt.Errorf("%w: %s belongs to another ring, this is %v", ErrUnknownKey, id, own)
	}
	return version, nil
}

// misses lets those who miss a key share loads, and not too many.
type misses struct {
	mu      sync.Mutex
	running chan struct{} // closed when the load that someone leads has ended; nil if no one does
	free    time.Time     // when the next load would be if there were no burst

	begun    uint64    // number of loads that began
	finished uint64    // the latest of them that ended, other than by its leader's ctx
	at       time.Time // when
	err      error     // and how
}

// ticket is the number of the first load that begins after the call: what an
// earlier one brings may be too old.
func (m *misses) ticket() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.begun + 1
}

// refreshAfterMiss refreshes, or waits for one who does. done tells that the
// load of that ticket, or a later one, took place, and err how it ended. Callers
// that are told otherwise look again and call again.
func (r *Ring) refreshAfterMiss(ctx context.Context, ticket uint64) (done bool, err error) {
	m := &r.misses
	m.mu.Lock()
	now := time.Now()
	switch {
	case m.finished >= ticket:
		defer m.mu.Unlock()
		return true, m.err
	case m.running != nil:
		running := m.running
		m.mu.Unlock()
		select {
		case <-running:
			return false, nil
		case <-ctx.Done():
			return false, ctx.Err()
		}
	case m.err != nil && now.Sub(m.at) < missInterval:
		defer m.mu.Unlock()
		return false, fmt.Errorf("%v ago: %w", now.Sub(m.at).Round(time.Millisecond), m.err)
	}
	running := make(chan struct{})
	m.running = running
	if m.free.Before(now) {
		m.free = now
	}
	wait := m.free.Sub(now) - (missBurst-1)*missInterval
	m.mu.Unlock()

	var load uint64 // zero until it begins
	defer func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if load != 0 && ctx.Err() == nil {
			m.finished, m.at, m.err = load, time.Now(), err
		}
		m.running = nil
		close(running)
	}()
	if wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
	m.mu.Lock()
	m.free = m.free.Add(missInterval)
	m.begun++
	load = m.begun
	m.mu.Unlock()
	err = errPanicked // unless Refresh returns
	err = r.Refresh(ctx)
	return true, err
}

// errPanicked is how a load ended that never did: those who share it must not
// take what they know for all that there is.
var errPanicked = fmt.Errorf("%w: it panicked", ErrStore)

// Refresh loads the document. If the store has none but the one that is known,
// that is all. ctx bounds the call.
//
// A document that is not a later one of the same ring is refused, with
// [ErrRollback] or [ErrOtherRing], and so is one that does not open. The ring
// goes on with what it had.
func (r *Ring) Refresh(ctx context.Context) error {
	for {
		before, roots := r.current.Load(), r.roots.Load()
		data, version, err := r.load(ctx)
		if err != nil {
			return err
		}
		if version == before.storeVersion {
			return nil
		}
		o, err := open(ctx, *roots, data, version)
		if errors.Is(err, ErrRoot) && r.roots.Load() != roots {
			continue // ChangeRoot came between
		}
		if err != nil {
			return err
		}
		if err := before.accept(o.snapshot); err != nil {
			return err
		}
		r.install(o.snapshot)
		return nil
	}
}
