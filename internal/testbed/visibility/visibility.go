// Package visibility checks what the processes of a fleet did with keys against what was
// acknowledged to those who enabled and disabled them.
package visibility

import (
	"fmt"
	"sync"
	"time"
)

// Change is one act of enabling or disabling a key.
type Change struct {
	Key    string
	Serves bool      // it enables the key
	Began  time.Time // when the caller asked
	Acked  time.Time // when the caller was told that it happened; zero if nobody knows whether it did
}

// Use is one use of a key that succeeded, or was refused because the key is disabled.
type Use struct {
	Process      string
	Key          string
	Served       bool
	Began, Ended time.Time
}

// History is what happened. Its methods may be called concurrently. A key serves until a
// change says otherwise.
type History struct {
	mu      sync.Mutex
	changes map[string][]Change
	uses    []Use
}

// Change adds a change.
func (h *History) Change(c Change) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.changes == nil {
		h.changes = make(map[string][]Change)
	}
	h.changes[c.Key] = append(h.changes[c.Key], c)
}

// Use adds a use.
func (h *History) Use(u Use) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.uses = append(h.uses, u)
}

// Len returns the number of uses.
func (h *History) Len() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.uses)
}

// CheckServed returns an error if a key served although it was disabled: the disabling was
// acknowledged longer than bound ago, and nobody can have enabled the key since.
func (h *History) CheckServed(bound time.Duration) error { return h.check(bound, true) }

// CheckRefused returns an error if a key was refused although it was enabled: the enabling
// was acknowledged longer than bound ago, and nobody can have disabled the key since.
func (h *History) CheckRefused(bound time.Duration) error { return h.check(bound, false) }

func (h *History) check(bound time.Duration, served bool) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, u := range h.uses {
		if u.Served != served {
			continue
		}
		for _, c := range h.changes[u.Key] {
			if c.Serves == served || c.Acked.IsZero() || u.Began.Sub(c.Acked) <= bound {
				continue
			}
			if !h.undone(c, u) {
				return fmt.Errorf("visibility: %s of %s at %s, served: %t, but %v before it was acknowledged that it serves: %t",
					u.Key, u.Process, u.Began.Format(time.StampMilli), u.Served, u.Began.Sub(c.Acked), c.Serves)
			}
		}
	}
	return nil
}

// undone reports whether a change of the other kind can have followed c before u ended.
func (h *History) undone(c Change, u Use) bool {
	for _, other := range h.changes[u.Key] {
		isBefore := !other.Acked.IsZero() && !other.Acked.After(c.Began)
		if other.Serves != c.Serves && !isBefore && !other.Began.After(u.Ended) {
			return true
		}
	}
	return false
}
