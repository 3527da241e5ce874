// Package seeds runs tests of random histories, each of which follows from a seed.
package seeds

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"
)

// Run runs a test for that many random seeds, and as many more as there is time for:
// BLOBSEAL_STRESS, such as 2h, is how long. A failure prints the seed. BLOBSEAL_SEED runs
// the test for one seed again.
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
	var limit time.Duration
	if text := os.Getenv("BLOBSEAL_STRESS"); text != "" {
		var err error
		if limit, err = time.ParseDuration(text); err != nil {
			t.Fatalf("BLOBSEAL_STRESS: %v", err)
		}
	}
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
