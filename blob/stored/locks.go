package stored

import (
	"context"
	"runtime"
	"sync"
	"weak"
)

// Locks make the writers of one key take turns, and tell a writer whether the key
// was written since it began to watch. They work within a process only. The zero
// Locks is ready, and is safe for concurrent use.
type Locks struct {
	mu   sync.Mutex
	keys map[string]*keyLock
}

// shared are the locks of every inner bucket that is in use. A weak pointer keeps
// neither the bucket nor its entry alive.
var shared sync.Map // from weak.Pointer[T] to *Locks

// LocksOf returns the locks of the bucket at inner, which are the same for every call
// with that pointer: two encrypted buckets over one inner bucket then take turns.
func LocksOf[T any](inner *T) *Locks {
	key := weak.Make(inner)
	locks, loaded := shared.LoadOrStore(key, new(Locks))
	if !loaded {
		runtime.AddCleanup(inner, func(key weak.Pointer[T]) { shared.Delete(key) }, key)
	}
	return locks.(*Locks)
}

type keyLock struct {
	token   chan struct{} // its holder may change the key
	refs    int           // guarded by Locks.mu
	changes uint64        // guarded by token and Locks.mu
}

// Watch is a watch on one key. Use it from one goroutine.
type Watch struct {
	Key string

	locks *Locks
	lock  *keyLock
	seen  uint64
}

// Watch begins to watch key. Call [Watch.End] when done.
func (l *Locks) Watch(key string) *Watch {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := l.keys[key]
	if k == nil {
		if l.keys == nil {
			l.keys = make(map[string]*keyLock)
		}
		k = &keyLock{token: make(chan struct{}, 1)}
		l.keys[key] = k
	}
	k.refs++
	return &Watch{Key: key, locks: l, lock: k, seen: k.changes}
}

// End ends the watch.
func (w *Watch) End() {
	w.locks.mu.Lock()
	defer w.locks.mu.Unlock()
	if w.lock.refs--; w.lock.refs == 0 {
		delete(w.locks.keys, w.Key)
	}
}

// Change runs fn, which may write or delete the key, while no other call of
// Change or [Locks.Commit] runs for that key. changed tells fn whether one ran
// since the watch began. If ctx ends while Change waits, Change returns ctx's
// error without running fn. If there is nothing to wait for, fn runs even if ctx
// has ended.
func (w *Watch) Change(ctx context.Context, fn func(changed bool) error) error {
	select {
	case w.lock.token <- struct{}{}:
	default:
		select {
		case w.lock.token <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	defer func() { <-w.lock.token }()
	w.locks.mu.Lock()
	changed := w.lock.changes != w.seen
	w.lock.changes++ // even if fn fails: a failed commit may have happened
	w.locks.mu.Unlock()
	return fn(changed)
}

// Commit runs fn, which writes or deletes key, as [Watch.Change] does.
func (l *Locks) Commit(ctx context.Context, key string, fn func() error) error {
	w := l.Watch(key)
	defer w.End()
	return w.Change(ctx, func(bool) error { return fn() })
}
