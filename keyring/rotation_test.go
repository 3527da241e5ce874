package keyring_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/internal/testbed/fakeclock"
	"github.com/blobseal/blobseal/keyring"
)

const day = 24 * time.Hour

// primaryNow calls Primary, and returns the id and how long the call took.
func primaryNow(t *testing.T, ctx context.Context, ring *keyring.Ring) (string, time.Duration) {
	t.Helper()
	start := time.Now()
	key, err := ring.Primary(ctx)
	require.NoError(t, err)
	return key.ID(), time.Since(start)
}

func TestRotationAtUse(t *testing.T) {
	fakeclock.Test(t, func(t *testing.T) {
		log, lines := newLogger()
		store := newHooked()
		ring := create(t, store, &keyring.Options{Logger: log})
		old := primary(t, ring)
		time.Sleep(90*day - time.Millisecond)
		id, _ := primaryNow(t, t.Context(), ring)
		require.Equal(t, old, id)
		require.EqualValues(t, 1, store.swaps.Load())

		time.Sleep(2 * time.Millisecond)
		id, took := primaryNow(t, t.Context(), ring)
		require.NotEqual(t, old, id)
		require.Zero(t, took)
		require.Equal(t, id, primary(t, reopen(t, store)), "it was stored before it was given out")
		require.Contains(t, lines.String(), "primary rotated")
		require.Contains(t, lines.String(), "old="+old)
		_, err := ring.Key(t.Context(), old)
		require.NoError(t, err)
		again, _ := primaryNow(t, t.Context(), ring)
		require.Equal(t, id, again)
	})
}

// slow takes five seconds, or until ctx ends.
func slow(ctx context.Context) error {
	select {
	case <-time.After(5 * time.Second):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// A slow store delays a caller of Primary only for a moment.
func TestRotationWithSlowStore(t *testing.T) {
	fakeclock.Test(t, func(t *testing.T) {
		store := newHooked()
		ring := create(t, store, nil)
		old := primary(t, ring)
		time.Sleep(90 * day)
		store.set(slow, nil)
		// When the ctx of the caller ends, the rotation continues.
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		before := store.loads.Load()
		id, took := primaryNow(t, ctx, ring)
		require.Equal(t, old, id)
		require.Equal(t, keyring.RotationWait, took)
		for range 100 {
			id, took := primaryNow(t, ctx, ring)
			require.Equal(t, old, id)
			require.Zero(t, took, "others do not wait")
		}
		require.EqualValues(t, 1, store.loads.Load()-before, "one attempt at a time")
		time.Sleep(5 * time.Second)
		id, took = primaryNow(t, t.Context(), ring)
		require.NotEqual(t, old, id)
		require.Zero(t, took)
	})
}

func TestRotationWaitEndsWithCtx(t *testing.T) {
	fakeclock.Test(t, func(t *testing.T) {
		store := newHooked()
		ring := create(t, store, nil)
		old := primary(t, ring)
		time.Sleep(90 * day)
		store.set(func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }, nil)
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		id, took := primaryNow(t, ctx, ring)
		require.Equal(t, old, id)
		require.Equal(t, 100*time.Millisecond, took)
		time.Sleep(keyring.RotationTimeout) // the attempt ends by itself
		synctest.Wait()
	})
}

// After a failure, the ring logs it, keeps the old primary, and does not try again for a while.
func TestRotationWithFailingStore(t *testing.T) {
	fakeclock.Test(t, func(t *testing.T) {
		log, lines := newLogger()
		store := newHooked()
		ring := create(t, store, &keyring.Options{Logger: log})
		old := primary(t, ring)
		store.down()
		time.Sleep(90 * day)
		before := store.loads.Load()
		for range 10 {
			id, took := primaryNow(t, t.Context(), ring)
			require.Equal(t, old, id)
			require.Zero(t, took)
			time.Sleep(keyring.RotationPause/10 - time.Millisecond)
		}
		require.EqualValues(t, 1, store.loads.Load()-before)
		require.Equal(t, 1, strings.Count(lines.String(), "rotation failed"))
		require.Contains(t, lines.String(), errDown.Error())
		require.Contains(t, lines.String(), ring.ID())
		time.Sleep(20 * time.Millisecond)
		primaryNow(t, t.Context(), ring)
		require.EqualValues(t, 2, store.loads.Load()-before)
		store.up()
		time.Sleep(keyring.RotationPause)
		id, _ := primaryNow(t, t.Context(), ring)
		require.NotEqual(t, old, id)
	})
}

func TestHardAge(t *testing.T) {
	for name, c := range map[string]struct {
		opts keyring.Options
		age  time.Duration
	}{
		"default": {keyring.Options{}, 360 * day},
		"given":   {keyring.Options{HardAge: 100 * day}, 100 * day},
		"period":  {keyring.Options{Period: day, HardAge: day}, day},
	} {
		t.Run(name, func(t *testing.T) {
			fakeclock.Test(t, func(t *testing.T) {
				store := newHooked()
				ring := create(t, store, &c.opts)
				old := primary(t, ring)
				store.down()
				time.Sleep(c.age - time.Millisecond)
				id, _ := primaryNow(t, t.Context(), ring)
				require.Equal(t, old, id)
				time.Sleep(time.Millisecond)
				for range 3 { // with an attempt, and between attempts
					_, err := ring.Primary(t.Context())
					require.ErrorIs(t, err, keyring.ErrTooOld)
					require.ErrorIs(t, err, keyring.ErrStore)
					require.ErrorIs(t, err, errDown)
					require.ErrorContains(t, err, old)
					time.Sleep(40 * time.Second)
				}
				_, err := ring.Key(t.Context(), old)
				require.NoError(t, err, "it still opens")

				// Callers wait for a slow store, because there is no other primary.
				store.set(slow, nil)
				time.Sleep(keyring.RotationPause)
				var wg sync.WaitGroup
				for range 5 {
					wg.Go(func() {
						id, took := primaryNow(t, t.Context(), ring)
						require.NotEqual(t, old, id)
						require.Equal(t, 5*time.Second, took)
					})
				}
				wg.Go(func() {
					ctx, cancel := context.WithTimeout(t.Context(), time.Second)
					defer cancel()
					_, err := ring.Primary(ctx)
					require.ErrorIs(t, err, keyring.ErrTooOld)
					require.ErrorIs(t, err, context.DeadlineExceeded)
				})
				wg.Wait()
				require.Len(t, ring.Versions(), 2)
			})
		})
	}
}

// A store that hangs and ignores ctx delays only callers past the hard age, and those not
// for ever.
func TestRotationWithStoreThatHangs(t *testing.T) {
	fakeclock.Test(t, func(t *testing.T) {
		store := newHooked()
		ring := create(t, store, &keyring.Options{HardAge: 100 * day})
		hang := make(chan struct{})
		store.set(func(context.Context) error { <-hang; return errDown }, nil)
		time.Sleep(90 * day)
		_, took := primaryNow(t, t.Context(), ring)
		require.Equal(t, keyring.RotationWait, took)
		time.Sleep(9 * day)
		_, took = primaryNow(t, t.Context(), ring)
		require.Zero(t, took)
		time.Sleep(2 * day)
		_, err := ring.Primary(t.Context())
		require.ErrorIs(t, err, keyring.ErrTooOld)
		require.ErrorIs(t, err, keyring.ErrStore)
		close(hang)
		synctest.Wait()
	})
}

// Two replicas that rotate because of age make one version, whether one rotates before the
// other or both at once.
func TestReplicasRotateOnce(t *testing.T) {
	fakeclock.Test(t, func(t *testing.T) {
		store := newHooked()
		ring, replica := create(t, store, nil), reopen(t, store)
		time.Sleep(90 * day)
		id, _ := primaryNow(t, t.Context(), ring)
		other, _ := primaryNow(t, t.Context(), replica)
		require.Equal(t, id, other)
		require.Len(t, replica.Versions(), 2)

		time.Sleep(90 * day)
		var wg sync.WaitGroup
		arrived := make(chan struct{}, 2)
		both := make(chan struct{})
		store.set(nil, func(_ context.Context, swap func() error) error {
			arrived <- struct{}{}
			<-both
			return swap()
		})
		ids := make([]string, 2)
		for i, r := range []*keyring.Ring{ring, replica} {
			wg.Go(func() { ids[i], _ = primaryNow(t, t.Context(), r) })
		}
		<-arrived
		<-arrived // both have loaded, and hold a new version to write
		go func() {
			for range arrived { // the loser's next, if any
			}
		}()
		close(both)
		wg.Wait()
		require.Equal(t, ids[0], ids[1])
		require.NotEqual(t, id, ids[0])
		require.Len(t, reopen(t, store).Versions(), 3)
		close(arrived)
	})
}

func TestClockThatMovesBackwards(t *testing.T) {
	fakeclock.Test(t, func(t *testing.T) {
		store := newHooked()
		ring := create(t, store, nil)
		old := primary(t, ring)
		offset := -1000 * day
		ring.SetClock(func() time.Time { return time.Now().Add(offset) })
		id, _ := primaryNow(t, t.Context(), ring)
		require.NotEqual(t, old, id, "by this clock the primary is from the future")
		again, _ := primaryNow(t, t.Context(), ring)
		require.Equal(t, id, again)
		keys := ring.Versions()
		require.True(t, keys[1].Created.Before(keys[0].Created))
		require.Equal(t, id, primary(t, reopen(t, store)))
		_, err := ring.SetState(t.Context(), old, keyring.Disabled)
		require.NoError(t, err)

		offset = -100_000 * day // before 1970
		rotate(t, ring)
		require.Equal(t, int64(0), ring.Versions()[2].Created.Unix())
		primaryNow(t, t.Context(), ring)

		// The clock is right again: the primary is seen to be old, and replaced.
		offset = 0
		next, _ := primaryNow(t, t.Context(), ring)
		require.NotEqual(t, id, next)
		require.Len(t, ring.Versions(), 5)
		again, _ = primaryNow(t, t.Context(), ring)
		require.Equal(t, next, again)
	})
}

func TestSetPeriodMakesThePrimaryOld(t *testing.T) {
	fakeclock.Test(t, func(t *testing.T) {
		store := newHooked()
		ring, replica := create(t, store, nil), reopen(t, store)
		time.Sleep(2 * day)
		require.NoError(t, replica.SetPeriod(t.Context(), day))
		old := primary(t, ring)
		id, _ := primaryNow(t, t.Context(), ring)
		require.Equal(t, old, id, "it does not know yet")
		require.NoError(t, ring.Refresh(t.Context()))
		id, _ = primaryNow(t, t.Context(), ring)
		require.NotEqual(t, old, id)
	})
}

func TestRun(t *testing.T) {
	fakeclock.Test(t, func(t *testing.T) {
		log, lines := newLogger()
		store := newHooked()
		ring := create(t, store, &keyring.Options{Period: day, RefreshInterval: 10 * time.Minute, Logger: log})
		other := reopen(t, store.Store)
		first := primary(t, ring)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- ring.Run(ctx) }()

		id := rotate(t, other)
		_, err := other.SetState(ctx, first, keyring.Disabled)
		require.NoError(t, err)
		time.Sleep(12*time.Minute + time.Millisecond)
		require.Equal(t, other.Versions(), ring.Versions(), "what others did is known within the interval and a fifth")

		time.Sleep(day)
		require.NotEqual(t, id, primary(t, ring), "it rotates with no one asking")
		require.Len(t, ring.Versions(), 3)

		before := store.loads.Load()
		time.Sleep(10 * time.Hour)
		require.InDelta(t, 60, store.loads.Load()-before, 15)

		store.down()
		time.Sleep(day)
		require.Contains(t, lines.String(), "refresh failed")
		require.Contains(t, lines.String(), "rotation failed")
		require.Contains(t, lines.String(), errDown.Error())
		old := primary(t, ring)
		store.up()
		time.Sleep(time.Hour)
		require.NotEqual(t, old, primary(t, ring), "it goes on after failures")

		cancel()
		require.ErrorIs(t, <-ended, context.Canceled)
	})
}

func TestRunEndsWhileTheStoreHangs(t *testing.T) {
	fakeclock.Test(t, func(t *testing.T) {
		store := newHooked()
		ring := create(t, store, &keyring.Options{Period: time.Minute})
		store.set(func(ctx context.Context) error { <-ctx.Done(); return errors.New("deaf") }, nil)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		require.ErrorIs(t, ring.Run(ctx), context.DeadlineExceeded)
		time.Sleep(keyring.RotationTimeout)
		synctest.Wait()
	})
}
