package localkms

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms"
)

// Loads after a miss: this many at once, then one in each interval.
const (
	missBurst    = 20
	missInterval = time.Second
)

// loads is what a service knows of its loads of the document.
type loads struct {
	lock   chan struct{} // held by the one call that loads
	good   atomic.Int64  // when the last load that succeeded began; since start
	seen   atomic.Int64  // when one ended last, in Unix milliseconds of the wall clock
	failed atomic.Pointer[failedLoad]
	next   atomic.Int64 // no load because of age before, after one that failed

	turn chan struct{} // held by the one call that may load after a miss
	free time.Time     // when the next such load would be if there were no burst; guarded by turn
}

// failedLoad is the last load that failed.
type failedLoad struct {
	began time.Time
	err   error
}

func (l *loads) init() { l.lock, l.turn = make(chan struct{}, 1), make(chan struct{}, 1) }

// load gets the document from the store and opens it.
func (s *Service) load(ctx context.Context) (*snapshot, error) {
	known := s.current.Load()
	data, version, err := s.store.Load(ctx)
	switch {
	case err == nil:
	case errors.Is(err, keyring.ErrNotExist), errors.Is(err, keyring.ErrDamaged):
		return nil, err
	default:
		return nil, unavailable(ctx, "load", err)
	}
	if known != nil && version == known.storeVersion {
		return known, nil
	}
	snap, err := openDocument(ctx, s.root, data, version, known)
	if err != nil {
		return nil, err
	}
	if known != nil {
		outdated := s.now() >= s.loads.seen.Load()+MinDeletionDays*day
		if err := known.accept(snap, outdated); err != nil {
			return nil, err
		}
	}
	return snap, nil
}

// install makes snap the snapshot, unless a later one is there. began is when
// it was known to be what the store holds.
func (s *Service) install(snap *snapshot, began time.Time) {
	for {
		old := s.current.Load()
		if old != nil && (old.generation > snap.generation || old.generation == snap.generation && old.storeVersion == snap.storeVersion) ||
			s.current.CompareAndSwap(old, snap) {
			break
		}
	}
	s.loads.seen.Store(s.now())
	good := int64(began.Sub(s.start))
	for {
		old := s.loads.good.Load()
		if old >= good || s.loads.good.CompareAndSwap(old, good) {
			return
		}
	}
}

// age is how old the knowledge of the store is, by the monotonic clock.
func (s *Service) age(now time.Time) time.Duration {
	return now.Sub(s.start) - time.Duration(s.loads.good.Load())
}

// fresh returns a snapshot that is young enough to use a key by, and does first
// what is due.
func (s *Service) fresh(ctx context.Context) (*snapshot, error) {
	if err := ended(ctx); err != nil {
		return nil, err
	}
	now := time.Now() // once: it is a good part of what a cached use costs
	if s.age(now) >= s.opts.RefreshInterval {
		if err := s.refreshAged(ctx, now); err != nil {
			return nil, err
		}
	}
	if snap := s.current.Load(); s.wall(now) < snap.due {
		return snap, nil
	}
	s.maintain(ctx, usePatience)
	return s.current.Load(), nil
}

// usePatience is how long a call that uses a key waits for what it could do
// without: a load because of age, or what is due.
const usePatience = time.Second

// patient bounds ctx by wait, and by half of the time that ctx has left, so that
// something can still be done after it.
func patient(ctx context.Context, wait time.Duration) (context.Context, context.CancelFunc) {
	if deadline, ok := ctx.Deadline(); ok {
		wait = min(wait, time.Until(deadline)/2)
	}
	return context.WithTimeout(ctx, wait)
}

// refreshAged loads the document because of its age. While one call does, others
// go on with what there is, and so does that call if the store fails or takes
// its time. Once the document is too stale all wait, and a failure is one.
func (s *Service) refreshAged(ctx context.Context, now time.Time) error {
	since := now.Add(-s.opts.RefreshInterval)
	if s.age(now) >= s.opts.MaxStaleness {
		return s.reloadSince(ctx, since, now)
	}
	if now.Sub(s.start) < time.Duration(s.loads.next.Load()) {
		return nil // the store failed a moment ago
	}
	select {
	case s.loads.lock <- struct{}{}:
	default:
		return nil
	}
	defer func() { <-s.loads.lock }()
	bounded, cancel := patient(ctx, usePatience)
	defer cancel()
	err := s.reloadLocked(bounded, since, now)
	if err == nil {
		return nil
	}
	if err := ended(ctx); err != nil {
		return err
	}
	s.loads.next.Store(int64(time.Since(s.start) + min(s.opts.RefreshInterval, missInterval)))
	s.log.LogAttrs(ctx, slog.LevelError, "localkms: refresh failed, old document stays in use", slog.Any("error", err))
	return nil
}

func (s *Service) lockLoads(ctx context.Context) error {
	select {
	case s.loads.lock <- struct{}{}:
		return nil
	case <-ctx.Done():
		return unavailable(ctx, "load", ctx.Err())
	}
}

// reload sees to it that the snapshot is one that was loaded after since. Calls
// that wait for the same share one load. Failures are kms.ErrUnavailable.
func (s *Service) reload(ctx context.Context, since time.Time) error {
	return s.reloadSince(ctx, since, since)
}

// reloadAfterMiss is reload for a caller that did not find what was asked for.
// Of those loads there are not many in a second, and callers wait for their turn;
// other loads do not wait for them.
func (s *Service) reloadAfterMiss(ctx context.Context) error {
	since := time.Now()
	l := &s.loads
	select {
	case l.turn <- struct{}{}:
	case <-ctx.Done():
		return unavailable(ctx, "load", ctx.Err())
	}
	defer func() { <-l.turn }()
	if known, err := s.loaded(since, since); known {
		return err
	}
	now := time.Now()
	if l.free.Before(now) {
		l.free = now
	}
	if wait := l.free.Sub(now) - (missBurst-1)*missInterval; wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return unavailable(ctx, "load", ctx.Err())
		}
	}
	l.free = l.free.Add(missInterval)
	return s.reloadSince(ctx, since, since)
}

func (s *Service) reloadSince(ctx context.Context, since, asked time.Time) error {
	if err := s.lockLoads(ctx); err != nil {
		return err
	}
	defer func() { <-s.loads.lock }()
	return s.reloadLocked(ctx, since, asked)
}

// loaded reports whether a load that began after since succeeded, or one that
// began after asked failed, and how.
func (s *Service) loaded(since, asked time.Time) (known bool, err error) {
	if time.Duration(s.loads.good.Load()) > since.Sub(s.start) {
		return true, nil
	}
	if f := s.loads.failed.Load(); f != nil && f.began.After(asked) {
		return true, f.err
	}
	return false, nil
}

// reloadLocked loads the document unless that is known already.
func (s *Service) reloadLocked(ctx context.Context, since, asked time.Time) error {
	if known, err := s.loaded(since, asked); known {
		return err
	}
	began := time.Now()
	snap, err := s.load(ctx)
	if err != nil {
		if !errors.Is(err, kms.ErrUnavailable) {
			err = unavailable(ctx, "load", err)
		}
		if ctx.Err() == nil { // or else it is this caller's failure alone
			s.loads.failed.Store(&failedLoad{began, err})
		}
		return err
	}
	s.install(snap, began)
	return nil
}

// swap seals a draft as the document that follows base, and puts it into the
// store in place of that version. It fails with [ErrFull] if the document is too
// large: by the whole limit for a draft that takes power away, and otherwise by
// the limit without its reserve. A draft that does not grow the document is never
// too large.
func (s *Service) swap(ctx context.Context, version string, base *snapshot, d *draft) (*snapshot, error) {
	next := &snapshot{header: base.header, dek: base.dek, contents: d.contents}
	next.generation++
	data, err := next.header.seal(next.dek, &next.contents)
	if err != nil {
		return nil, err
	}
	if limit := s.limitFor(d); len(data) > limit && len(data) > base.size {
		return nil, fmt.Errorf("%w: document would have %d bytes, at most %d (delete keys, grants or policies)", ErrFull, len(data), limit)
	}
	next.size, next.sum = len(data), sumOf(data)
	next.storeVersion, err = s.store.Swap(ctx, version, data)
	switch {
	case err == nil:
		return next.finish(), nil
	case errors.Is(err, keyring.ErrConflict):
		return nil, err
	case errors.Is(err, keyring.ErrFull):
		return nil, fmt.Errorf("%w: the store refused a document of %d bytes: %w", ErrFull, len(data), err)
	default:
		return nil, unavailable(ctx, "swap", err)
	}
}

// limitFor returns the size of the largest document that a draft may grow to.
func (s *Service) limitFor(d *draft) int {
	if d.takesAway {
		return s.limit
	}
	return s.limit - s.limit/reserveShare
}

// lockWriter waits for the right to replace the document. It belongs to one call
// of this Service at a time; other processes are held off by compare-and-swap.
func (s *Service) lockWriter(ctx context.Context) error {
	select {
	case s.writer <- struct{}{}:
		return nil
	case <-ctx.Done():
		return unavailable(ctx, "lock", ctx.Err())
	}
}

// update loads the document, lets edit change it, and replaces it, again and
// again until no other process came between. It calls commit before it stores
// anything; an error of edit or of commit ends the call.
func (s *Service) update(ctx context.Context, edit func(*draft) error, commit func() error) error {
	if err := ended(ctx); err != nil {
		return err
	}
	if err := s.lockWriter(ctx); err != nil {
		return err
	}
	defer func() { <-s.writer }()
	for attempt := 0; ; attempt++ {
		if err := s.reload(ctx, time.Now()); err != nil {
			return err
		}
		base := s.current.Load()
		d := base.draft(s.now())
		if err := edit(d); err != nil {
			return err
		}
		if err := commit(); err != nil {
			return err
		}
		if !d.changed {
			return nil
		}
		began := time.Now()
		next, err := s.swap(ctx, base.storeVersion, base, d)
		if err == nil {
			s.install(next, began)
			return nil
		}
		if !errors.Is(err, keyring.ErrConflict) {
			return err
		}
		if err := backOff(ctx, attempt); err != nil {
			return err
		}
	}
}

// backOff waits a random while, longer after more attempts, but at most half a second.
func backOff(ctx context.Context, attempt int) error {
	limit := min(5*time.Millisecond<<min(attempt, 10), 500*time.Millisecond)
	timer := time.NewTimer(rand.N(limit))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: %w: %w", kms.ErrUnavailable, keyring.ErrConflict, ctx.Err())
	}
}
