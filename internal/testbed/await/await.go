// Package await bounds the waits of tests. Without a bound, a wait that never ends is ended
// by the timeout of the test binary, which does not say what the test waited for.
package await

import (
	"testing"
	"time"
)

// Longest is how long a wait may take. No machine is so slow.
const Longest = 2 * time.Minute

// Value returns the next value of a channel, or the zero value if the channel is closed. If
// no value comes in time, the test fails and names what it waited for.
func Value[T any](t testing.TB, from <-chan T, what string) T {
	t.Helper()
	select {
	case value := <-from:
		return value
	case <-time.After(Longest):
		t.Fatalf("waited %v for %s", Longest, what)
		panic("unreachable")
	}
}
