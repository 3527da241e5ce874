// Package seeds runs tests of random histories. A seed determines a history.
package seeds

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"
)

// StressTime returns how long a test continues: for BLOBSEAL_STRESS, such as 2h, or else
// for usual.
func StressTime(t testing.TB, usual time.Duration) time.Duration {
	t.Helper()
	text := os.Getenv("BLOBSEAL_STRESS")
	if text == "" {
		return usual
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("BLOBSEAL_STRESS: %v", err)
	}
	return d
}

// Run runs a test with at least that many random seeds, and with more for [StressTime]. A
// failure prints its seed; to repeat it, set BLOBSEAL_SEED.
func Run(t *testing.T, least int, test func(t *testing.T, seed uint64)) {
	t.Helper()
	if text := os.Getenv("BLOBSEAL_SEED"); text != "" {
		seed, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatalf("BLOBSEAL_SEED: %v", err)
		}
		test(t, seed)
		return
	}
	limit := StressTime(t, 0)
	for i, begin := 0, time.Now(); i < least || time.Since(begin) < limit; i++ {
		seed := rand.Uint64()
		passed := t.Run("seed", func(t *testing.T) {
			defer func() {
				if t.Failed() {
					t.Logf("BLOBSEAL_SEED=%d", seed)
				}
			}()
			test(t, seed)
		})
		if !passed {
			return
		}
	}
}
