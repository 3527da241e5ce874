package blob

import "iter"

// hook is a call of a caller's Before hook that is under way. What it asks of our
// types is answered at once; at the first question for a type of the inner bucket
// it is held, until the inner bucket's request is there to answer. So the hook
// runs once, may change both, and what it set of ours can still go into the
// request of the inner bucket.
type hook struct {
	next   func() (any, bool)
	stop   func()
	asked  any  // what the hook waits for
	held   bool // whether it does
	answer bool
	ended  bool // nobody will answer any more
	err    error
}

// callHook calls fn, which may be nil, until it asks for what ours does not know.
func callHook(fn func(as func(any) bool) error, ours func(any) bool) *hook {
	h := &hook{stop: func() {}}
	if fn == nil {
		return h
	}
	h.next, h.stop = iter.Pull(func(yield func(any) bool) {
		defer func() { h.ended = true }()
		h.err = fn(func(i any) bool {
			if i == nil {
				return false
			}
			if ours(i) {
				return true
			}
			if h.ended || !yield(i) {
				h.ended = true
				return false
			}
			return h.answer
		})
	})
	h.asked, h.held = h.next()
	return h
}

// finish runs the rest of the hook and returns its error. It is the hook of the
// inner bucket's request.
func (h *hook) finish(inner func(any) bool) error {
	for h.held {
		h.answer = inner(h.asked)
		h.asked, h.held = h.next()
	}
	return h.err
}

// inner is finish, or nil if there is nothing left to ask the inner bucket.
func (h *hook) inner() func(func(any) bool) error {
	if !h.held {
		return nil
	}
	return h.finish
}
