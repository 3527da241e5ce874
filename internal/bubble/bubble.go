// Package bubble runs tests under a clock of their own, also in FIPS 140 mode.
package bubble

import (
	"crypto/fips140"
	"math/rand/v2"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
)

// Test is [synctest.Test]. In FIPS 140 mode Go seeds its random source, whenever it
// wants another one, from how much time things take, which in a bubble is none, and
// panics; so f has a source that needs no seed from there. t must not be parallel.
func Test(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	if fips140.Enabled() {
		cryptotest.SetGlobalRandom(t, rand.Uint64())
	}
	synctest.Test(t, f)
}
