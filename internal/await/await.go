// Package await bounds the waits of tests. A wait that never ends otherwise ends with
// the whole test binary, and does not say what it waited for.
package await

import (
	"testing"
	"time"
)

// Longest is how long a wait may take. No machine is so slow.
const Longest = 2 * time.Minute

// Value returns the next value of a channel, or the zero value of a closed one. The test
// fails if there is none in time; what says what it waited for.
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
