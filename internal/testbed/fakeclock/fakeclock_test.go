package fakeclock_test

import (
	"crypto/rand"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/internal/testbed/fakeclock"
)

const childEnv = "BUBBLE_TEST_CHILD"

// Many goroutines at once want random bytes, and none are left over from before.
func TestRandomBytesInFIPSMode(t *testing.T) {
	if os.Getenv(childEnv) == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestRandomBytesInFIPSMode$")
		cmd.Env = append(os.Environ(), childEnv+"=1", "GODEBUG=fips140=on")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		return
	}
	fakeclock.Test(t, func(t *testing.T) {
		start := time.Now()
		var mu sync.Mutex
		seen := map[[16]byte]bool{}
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				time.Sleep(time.Hour)
				var b [16]byte
				rand.Read(b[:])
				runtime.GC()
				mu.Lock()
				defer mu.Unlock()
				seen[b] = true
			})
		}
		wg.Wait()
		require.Len(t, seen, 50)
		require.Equal(t, time.Hour, time.Since(start))
	})
}
