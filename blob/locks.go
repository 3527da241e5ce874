package blob

import (
	"context"
	"sync"
)

// keyLocks serialises what changes one key through one Bucket, and tells who
// watches a key that it was changed meanwhile. gocloud has no portable
// conditional overwrite; within a process, this is one.
type keyLocks struct {
	mu   sync.Mutex
	keys map[string]*keyLock
}

type keyLock struct {
	token   chan struct{} // who holds it may change the key
	refs    int           // guarded by keyLocks.mu
	changes uint64        // guarded by token and keyLocks.mu
}

// watched is a key that is being watched. It is for one goroutine.
type watched struct {
	locks *keyLocks
	key   string
	lock  *keyLock
	seen  uint64
}

// watch begins to watch a key. The caller must end it.
func (l *keyLocks) watch(key string) *watched {
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
	return &watched{locks: l, key: key, lock: k, seen: k.changes}
}

// end ends the watch.
func (w *watched) end() {
	w.locks.mu.Lock()
	defer w.locks.mu.Unlock()
	if w.lock.refs--; w.lock.refs == 0 {
		delete(w.locks.keys, w.key)
	}
}

// change runs fn, which may change the key, while nobody else of this Bucket
// does. changed tells fn whether somebody did since the watch began. Waiting ends
// with ctx, whose error is returned without fn having run; where there is nothing
// to wait for, fn runs, whatever ctx is.
func (w *watched) change(ctx context.Context, fn func(changed bool) error) error {
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
	w.lock.changes++ // whatever fn returns: a failed commit may have happened
	w.locks.mu.Unlock()
	return fn(changed)
}

// commit runs fn, which writes or deletes key.
func (l *keyLocks) commit(ctx context.Context, key string, fn func() error) error {
	w := l.watch(key)
	defer w.end()
	return w.change(ctx, func(bool) error { return fn() })
}
