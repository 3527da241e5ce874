package chunked

import (
	"errors"
	"sync/atomic"
)

// errInUse is the error of a stream that two calls entered, or that a panic
// left in the middle of a call.
var errInUse = errors.New("sse: stream is in use by another call, or its source or destination panicked (start a new stream)")

// guard admits one call at a time to a stream's memory. A call that finds
// another one inside marks the guard doubtful and must touch nothing. A call
// that panics never leaves, so the next call finds the guard occupied. Once
// doubtful, a guard admits nobody.
type guard struct{ state atomic.Uint32 }

const (
	guardFree = iota
	guardOccupied
	guardDoubtful
)

// enter reports whether the caller may touch the stream.
func (g *guard) enter() bool {
	if g.state.CompareAndSwap(guardFree, guardOccupied) {
		return true
	}
	g.state.Store(guardDoubtful)
	return false
}

// leave ends the call that entered. It reports whether the call was alone.
func (g *guard) leave() bool { return g.state.CompareAndSwap(guardOccupied, guardFree) }
