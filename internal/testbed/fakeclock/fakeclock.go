// Package fakeclock runs tests in bubbles of testing/synctest, also in FIPS 140 mode.
package fakeclock

import (
	"crypto/fips140"
	"math/rand/v2"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
)

// Test is [synctest.Test]. In FIPS 140 mode Go seeds its random source from measured
// times, which are zero in a bubble, and panics. So Test gives f a source that needs no
// such seed. t must not be parallel.
func Test(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	if fips140.Enabled() {
		cryptotest.SetGlobalRandom(t, rand.Uint64())
	}
	synctest.Test(t, f)
}
