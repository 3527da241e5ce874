package keyring_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/internal/testbed/fakeclock"
	"github.com/blobseal/blobseal/keyring"
)

// watched is a hooked store that can watch, and whose watches can be broken.
type watched struct {
	*hooked
	begun atomic.Int64 // number of watches that began
	err   atomic.Pointer[error]

	mu     sync.Mutex
	break_ context.CancelCauseFunc // of the running watch
}

func newWatched() *watched { return &watched{hooked: newHooked()} }

// fail breaks the running watch, and makes later ones fail at once until it is called with
// nil.
func (w *watched) fail(err error) {
	w.err.Store(&err)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.break_ != nil && err != nil {
		w.break_(err)
	}
}

func (w *watched) Watch(ctx context.Context, changed func()) error {
	w.begun.Add(1)
	if err := w.err.Load(); err != nil && *err != nil {
		return *err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	w.mu.Lock()
	w.break_ = cancel
	w.mu.Unlock()
	w.Store.(keyring.Watcher).Watch(ctx, changed)
	return context.Cause(ctx)
}

// running starts Run, and returns a function that ends it and waits for it.
func running(t *testing.T, ring *keyring.Ring) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- ring.Run(ctx) }()
	return func() {
		cancel()
		require.ErrorIs(t, <-ended, context.Canceled)
		synctest.Wait() // a goroutine that is left would keep the bubble from ending
	}
}

// All replicas learn of a change within a quarter of a second of hearing of it. They do not
// load at the same moment, and load once for any number of changes.
func TestRunHearsOfChanges(t *testing.T) {
	fakeclock.Test(t, func(t *testing.T) {
		shared := keyring.NewMemStore()
		ring := create(t, shared, nil)
		const replicas = 20
		var mu sync.Mutex
		var loads []time.Time
		loaded := func() []time.Time { // since the last call
			mu.Lock()
			defer mu.Unlock()
			l := loads
			loads = nil
			return l
		}
		var all []*keyring.Ring
		for range replicas {
			store := newWatched()
			store.Store = shared
			r := reopen(t, store)
			store.set(func(context.Context) error {
				mu.Lock()
				defer mu.Unlock()
				loads = append(loads, time.Now())
				return nil
			}, nil)
			all = append(all, r)
			defer running(t, r)()
		}
		time.Sleep(time.Second) // they load once when the watch begins
		require.Len(t, loaded(), replicas)

		start := time.Now()
		rotate(t, ring)
		time.Sleep(250 * time.Millisecond)
		for _, r := range all {
			require.Equal(t, ring.Versions(), r.Versions())
		}
		times := loaded()
		require.Len(t, times, replicas)
		distinct := make(map[time.Duration]bool)
		for _, at := range times {
			distinct[at.Sub(start).Truncate(10*time.Millisecond)] = true
		}
		require.Greater(t, len(distinct), replicas/3, "loads are spread")

		for range 100 {
			rotate(t, ring)
		}
		time.Sleep(time.Second)
		require.Equal(t, ring.Versions(), all[0].Versions())
		require.LessOrEqual(t, len(loaded()), 2*replicas, "many changes are one load")
	})
}

// Run logs a watch that breaks, and begins it again, less and less often. Meanwhile the ring
// learns of changes by interval, and in the end it has missed none.
func TestRunWhileTheWatchIsBroken(t *testing.T) {
	fakeclock.Test(t, func(t *testing.T) {
		log, lines := newLogger()
		store := newWatched()
		ring := create(t, store, &keyring.Options{RefreshInterval: 10 * time.Minute, Logger: log})
		other := reopen(t, store.Store)
		defer running(t, ring)()
		synctest.Wait()
		require.EqualValues(t, 1, store.begun.Load())

		store.fail(errDown)
		time.Sleep(time.Hour)
		require.InDelta(t, 60+6, store.begun.Load(), 30, "attempts in an hour")
		require.Contains(t, lines.String(), "watch of the store broke")
		require.Contains(t, lines.String(), errDown.Error())
		require.Contains(t, lines.String(), ring.ID())
		require.NotContains(t, lines.String(), "refresh failed")

		rotate(t, other)
		time.Sleep(12 * time.Minute)
		require.Equal(t, other.Versions(), ring.Versions(), "found by interval")

		rotate(t, other)
		store.fail(nil)
		time.Sleep(time.Minute + time.Second) // the longest pause, and the spread
		require.Equal(t, other.Versions(), ring.Versions(), "found when the watch began again")
		rotate(t, other)
		time.Sleep(time.Second)
		require.Equal(t, other.Versions(), ring.Versions(), "heard")

		// Run also pauses if the server breaks watches as soon as they have begun.
		before := store.begun.Load()
		for range 6000 {
			time.Sleep(10 * time.Millisecond)
			store.fail(errDown)
			store.fail(nil)
		}
		require.LessOrEqual(t, store.begun.Load()-before, int64(2*60))
	})
}

func TestRunWithStoreThatCannotWatch(t *testing.T) {
	fakeclock.Test(t, func(t *testing.T) {
		log, lines := newLogger()
		store := newWatched()
		store.fail(errors.ErrUnsupported)
		create(t, store, nil)
		ring := create(t, store, &keyring.Options{Logger: log})
		other := reopen(t, store.Store)
		stop := running(t, ring)
		rotate(t, other)
		time.Sleep(72*time.Second + time.Millisecond)
		require.Equal(t, other.Versions(), ring.Versions())
		time.Sleep(time.Hour)
		require.EqualValues(t, 1, store.begun.Load())
		require.Empty(t, lines.String())
		stop()
	})
}

// Run retries a failed refresh soon, and logs the beginning and the end of an outage.
func TestRunThroughAnOutage(t *testing.T) {
	fakeclock.Test(t, func(t *testing.T) {
		log, lines := newLogger()
		store := newHooked()
		ring := create(t, store, &keyring.Options{RefreshInterval: time.Hour, Logger: log})
		other := reopen(t, store.Store)
		stop := running(t, ring)
		time.Sleep(2 * time.Hour)
		store.down()
		time.Sleep(2 * time.Hour)
		require.Contains(t, lines.String(), "refresh failed")
		before := store.loads.Load()
		time.Sleep(10 * time.Hour)
		require.InDelta(t, 10, store.loads.Load()-before, 5, "no more often than by interval in the end")

		store.up()
		id := rotate(t, other)
		time.Sleep(72 * time.Minute)
		require.Equal(t, id, primary(t, ring))
		require.Equal(t, 1, strings.Count(lines.String(), "refresh works again"))

		// Run recovers from one failure within seconds.
		store.set(func(context.Context) error {
			store.up()
			return errDown
		}, nil)
		before = store.loads.Load()
		for store.loads.Load() == before {
			time.Sleep(100 * time.Millisecond)
		}
		rotate(t, other)
		time.Sleep(2 * time.Second)
		require.Equal(t, other.Versions(), ring.Versions())
		require.Equal(t, 2, strings.Count(lines.String(), "refresh works again"))
		stop()
	})
}

// A load that hangs delays Run for a while, not for ever.
func TestRunWithLoadThatHangs(t *testing.T) {
	fakeclock.Test(t, func(t *testing.T) {
		store := newHooked()
		ring := create(t, store, nil)
		other := reopen(t, store.Store)
		stop := running(t, ring)
		store.set(func(ctx context.Context) error {
			<-ctx.Done()
			return errors.New("deaf")
		}, nil)
		before := store.loads.Load()
		for store.loads.Load() == before {
			time.Sleep(time.Second)
		}
		store.up()
		rotate(t, other)
		time.Sleep(keyring.LoadTimeout + 2*time.Second)
		require.Equal(t, other.Versions(), ring.Versions())
		stop()
	})
}

// A ring that refuses to seal because the store is down seals again as soon as Run finds the
// store up, not a minute after the last attempt to rotate.
func TestRunEndsARefusal(t *testing.T) {
	fakeclock.Test(t, func(t *testing.T) {
		store := newHooked()
		ring := create(t, store, &keyring.Options{Period: time.Minute, HardAge: 2 * time.Minute, RefreshInterval: time.Second})
		stop := running(t, ring)
		for i := range 10 {
			time.Sleep(10 * time.Second)
			store.down()
			time.Sleep(2*time.Minute + time.Duration(i)*7*time.Second) // at various distances from the last attempt
			_, err := ring.Primary(t.Context())
			require.ErrorIs(t, err, keyring.ErrTooOld)
			store.up()
			time.Sleep(1500 * time.Millisecond)
			_, err = ring.Primary(t.Context())
			require.NoError(t, err)
		}
		stop()
	})
}
