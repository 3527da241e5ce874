package follow_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/internal/follow"
)

var errDown = errors.New("down")

// follower is a Run under way, and what it did.
type follower struct {
	begun time.Time
	stop  func() // ends it, and waits

	mu  sync.Mutex
	at  []time.Duration // of refreshes
	err error           // of refreshes
}

// start starts a Run in the test's bubble.
func start(t *testing.T, o follow.Options) *follower {
	f := &follower{begun: time.Now()}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- follow.Run(ctx, o, func(_ context.Context, failures int) error {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.at = append(f.at, time.Since(f.begun))
			return f.err
		})
	}()
	f.stop = func() {
		t.Helper()
		cancel()
		require.ErrorIs(t, <-ended, context.Canceled)
	}
	return f
}

func (f *follower) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

// during waits, and returns when there were refreshes meanwhile.
func (f *follower) during(d time.Duration) []time.Duration {
	f.taken()
	time.Sleep(d)
	return f.taken()
}

func (f *follower) taken() []time.Duration {
	synctest.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	at := f.at
	f.at = nil
	return at
}

func TestInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, follow.Options{Interval: time.Minute})
		at := f.during(time.Hour)
		require.InDelta(t, 60, len(at), 15)
		distinct := make(map[time.Duration]bool)
		for i, last := 0, time.Duration(0); i < len(at); i++ {
			require.InDelta(t, time.Minute, at[i]-last, float64(12*time.Second))
			distinct[at[i]-last] = true
			last = at[i]
		}
		require.Greater(t, len(distinct), 40, "replicas that start together do not stay together")
		f.stop()
	})
}

// A refresh that failed is tried again after about 1, 2, 4 seconds, and so on, but
// after an interval at the latest.
func TestRefreshThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, follow.Options{Interval: 10 * time.Second})
		f.fail(errDown)
		at := f.during(time.Minute)
		require.GreaterOrEqual(t, len(at), 5)
		for i, want := range []time.Duration{10, 1, 2, 4, 8} {
			last := time.Duration(0)
			if i > 0 {
				last = at[i-1]
			}
			require.InDelta(t, want*time.Second, at[i]-last, float64(want*time.Second/5))
		}
		time.Sleep(10 * time.Hour)
		require.GreaterOrEqual(t, len(f.during(time.Hour)), 300, "no pause is longer than an interval")
		f.fail(nil)
		f.during(12 * time.Second)
		require.InDelta(t, 360, len(f.during(time.Hour)), 60)
		f.stop()
	})
}

func TestChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var changed func()
		var watches atomic.Int64
		f := start(t, follow.Options{Interval: time.Hour, Spread: time.Second,
			Watch: func(ctx context.Context, c func()) error {
				changed = c
				watches.Add(1)
				defer watches.Add(-1)
				c()
				<-ctx.Done()
				time.Sleep(time.Second) // Run waits for it
				return ctx.Err()
			},
		})
		require.Len(t, f.during(time.Second), 1, "when the watch begins")
		require.Empty(t, f.during(time.Minute))
		changed()
		changed()
		require.Len(t, f.during(time.Second), 1)
		for range 1000 {
			changed()
			time.Sleep(time.Millisecond)
		}
		require.LessOrEqual(t, len(f.during(time.Second)), 1)
		require.Empty(t, f.during(time.Minute))
		changed()
		f.stop() // while it waits to refresh
		require.Zero(t, watches.Load())
	})
}

// A watch that breaks is begun again after a while that grows, unless it had
// begun, and one that cannot be is not.
func TestWatchThatBreaks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var begins, cannot atomic.Bool
		broken := make(chan int, 10000)
		f := start(t, follow.Options{Interval: time.Hour, Spread: time.Second,
			Watch: func(_ context.Context, changed func()) error {
				if cannot.Load() {
					return errors.ErrUnsupported
				}
				if begins.Load() {
					changed()
				}
				return errDown
			},
			Broken: func(failures int, err error) {
				if errors.Is(err, errDown) {
					broken <- failures
				}
			},
		})
		during := func(d time.Duration) (failures []int) { // since the last call as well
			time.Sleep(d)
			synctest.Wait()
			for len(broken) > 0 {
				failures = append(failures, <-broken)
			}
			return failures
		}
		require.Equal(t, []int{1, 2, 3, 4}, during(15 * time.Second)[:4], "pauses of up to 1, 2, 4 and 8 seconds, and of half of that")
		during(100 * time.Hour)
		require.InDelta(t, 90, len(during(time.Hour)), 35, "a minute is the longest pause, half of one the shortest")

		begins.Store(true)
		during(time.Minute)
		again := during(time.Minute)
		require.InDelta(t, 90, len(again), 35, "a second, although it begins")
		for _, failures := range again {
			require.Equal(t, 1, failures)
		}
		require.NotEmpty(t, f.taken())

		cannot.Store(true)
		during(time.Minute)
		require.Empty(t, during(time.Hour))
		f.stop()
	})
}
