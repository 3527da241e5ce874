package chunked

import (
	"errors"
	"sync/atomic"
)

// errInUse is the error of a stream that two calls entered at once, or in which a
// call panicked.
var errInUse = errors.New("sse: stream is in use by another call, or its source or destination panicked (start a new stream)")

// guard admits one call at a time to a stream's memory. A second call marks the
// guard doubtful and must touch nothing. A call that panics never leaves, so the
// next call finds the guard occupied. A doubtful guard admits no call.
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
