package keyring_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/internal/testbed/fakeclock"
	"github.com/blobseal/blobseal/keyring"
)

func TestUnknownKeyIsLookedForOnce(t *testing.T) {
	ctx := t.Context()
	store := newHooked()
	ring := create(t, store, nil)
	other := reopen(t, store.Store)
	id := rotate(t, other)
	loads := store.loads.Load()
	key, err := ring.Key(ctx, id)
	require.NoError(t, err)
	require.Equal(t, id, key.ID())
	require.Equal(t, loads+1, store.loads.Load())
	_, err = ring.Key(ctx, id)
	require.NoError(t, err)
	require.Equal(t, loads+1, store.loads.Load())

	missing := ring.ID() + ".00000000"
	_, err = ring.Key(ctx, missing)
	require.ErrorIs(t, err, keyring.ErrUnknownKey)
	require.ErrorContains(t, err, missing)
	require.NotErrorIs(t, err, keyring.ErrStore)
	require.Equal(t, loads+2, store.loads.Load())
}

func TestForeignKeyIsNotLookedFor(t *testing.T) {
	store := newHooked()
	ring := create(t, store, nil)
	foreign := create(t, keyring.NewMemStore(), nil)
	loads := store.loads.Load()
	for id, says := range map[string]string{
		primary(t, foreign):          "another ring",
		"":                           "not a key id",
		"x":                          "not a key id",
		ring.ID():                    "not a key id",
		ring.ID() + ".0":             "not a key id",
		ring.ID() + ".0000000G":      "not a key id",
		ring.ID() + ".ABCDEF01":      "not a key id",
		strings.Repeat("long", 1000): "not a key id",
	} {
		_, err := ring.Key(t.Context(), id)
		require.ErrorIs(t, err, keyring.ErrUnknownKey)
		require.NotErrorIs(t, err, keyring.ErrStore)
		require.ErrorContains(t, err, says)
		require.Less(t, len(err.Error()), 200)
	}
	require.Equal(t, loads, store.loads.Load())
}

// TestMissesAreRateLimited is long because it is one history of one ring.
func TestMissesAreRateLimited(t *testing.T) {
	fakeclock.Test(t, func(t *testing.T) {
		store := newHooked()
		ring := create(t, store, nil)
		before := store.loads.Load()
		start := time.Now()
		miss := func(i int) {
			_, err := ring.Key(t.Context(), fmt.Sprintf("%s.%08x", ring.ID(), i))
			require.ErrorIs(t, err, keyring.ErrUnknownKey)
			require.NotErrorIs(t, err, keyring.ErrStore)
		}
		for i := range keyring.MissBurst {
			miss(i)
		}
		require.Zero(t, time.Since(start), "a burst does not wait")
		require.EqualValues(t, keyring.MissBurst, store.loads.Load()-before)
		for i := range keyring.MissBurst {
			miss(i)
		}
		require.Zero(t, time.Since(start), "ids that were just looked for do not wait")
		for i := range 5 {
			miss(keyring.MissBurst + i)
			require.Equal(t, time.Duration(i+1)*time.Second, time.Since(start))
		}
		require.EqualValues(t, keyring.MissBurst+5, store.loads.Load()-before)

		// A flood from many goroutines for ten seconds is ten loads more.
		before = store.loads.Load()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second+time.Millisecond)
		defer cancel()
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				for ctx.Err() == nil {
					_, err := ring.Key(ctx, fmt.Sprintf("%s.%08x", ring.ID(), i))
					require.ErrorIs(t, err, keyring.ErrUnknownKey)
					time.Sleep(time.Millisecond)
				}
			})
		}
		wg.Wait()
		require.EqualValues(t, 10, store.loads.Load()-before)

		time.Sleep((keyring.MissBurst + 1) * time.Second)
		start = time.Now()
		for i := range keyring.MissBurst {
			miss(2000 + i)
		}
		require.Zero(t, time.Since(start), "the burst comes back")

		// Callers who give up do not use up the loads of others.
		for range 50 {
			impatient, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
			_, err := ring.Key(impatient, ring.ID()+".ffffffff")
			require.ErrorIs(t, err, context.DeadlineExceeded)
			cancel()
		}
		start = time.Now()
		miss(1000)
		require.Equal(t, 500*time.Millisecond, time.Since(start))
	})
}

// A load that began after the miss answers it: callers who miss while a load runs share the
// next one.
func TestMissesShareLoads(t *testing.T) {
	fakeclock.Test(t, func(t *testing.T) {
		store := newHooked()
		ring := create(t, store, nil)
		other := reopen(t, store.Store)
		before := store.loads.Load()
		gate := make(chan struct{})
		store.set(func(context.Context) error { <-gate; return nil }, nil)

		missing := func(i int) string { return fmt.Sprintf("%s.%08x", ring.ID(), i) }
		var wg sync.WaitGroup
		wg.Go(func() {
			_, err := ring.Key(t.Context(), missing(1000))
			require.ErrorIs(t, err, keyring.ErrUnknownKey)
		})
		synctest.Wait() // it loads, and what it finds is old by now
		var id string
		rotated := make(chan struct{})
		for i := range 50 {
			wg.Go(func() {
				if i%2 == 0 {
					_, err := ring.Key(t.Context(), missing(i))
					require.ErrorIs(t, err, keyring.ErrUnknownKey)
					return
				}
				<-rotated
				key, err := ring.Key(t.Context(), id)
				require.NoError(t, err)
				require.Equal(t, id, key.ID())
			})
		}
		synctest.Wait()
		id = rotate(t, other)
		close(rotated)
		synctest.Wait()
		close(gate)
		wg.Wait()
		require.EqualValues(t, 2, store.loads.Load()-before)
	})
}

func TestMissWhileTheStoreFails(t *testing.T) {
	fakeclock.Test(t, func(t *testing.T) {
		store := newHooked()
		ring := create(t, store, nil)
		id := rotate(t, reopen(t, store.Store))
		store.down()
		before := store.loads.Load()
		for range 10 { // one load, and the rest of the second without
			_, err := ring.Key(t.Context(), id)
			require.ErrorIs(t, err, keyring.ErrUnknownKey)
			require.ErrorIs(t, err, keyring.ErrStore)
			require.ErrorIs(t, err, errDown)
			require.ErrorContains(t, err, id)
			require.EqualValues(t, 1, store.loads.Load()-before)
			time.Sleep(99 * time.Millisecond)
		}
		_, err := ring.Key(t.Context(), primary(t, ring))
		require.NoError(t, err, "known keys do not care")
		time.Sleep(time.Second)
		_, err = ring.Key(t.Context(), id)
		require.ErrorIs(t, err, errDown)
		require.EqualValues(t, 2, store.loads.Load()-before)
		store.up()
		time.Sleep(time.Second)
		_, err = ring.Key(t.Context(), id)
		require.NoError(t, err)
	})
}

// If the store panics in a load, no caller takes that for a missing key.
func TestMissWhileTheStorePanics(t *testing.T) {
	fakeclock.Test(t, func(t *testing.T) {
		store := newHooked()
		ring := create(t, store, nil)
		for i := range keyring.MissBurst { // so that the next has to wait
			_, err := ring.Key(t.Context(), fmt.Sprintf("%s.%08x", ring.ID(), i))
			require.ErrorIs(t, err, keyring.ErrUnknownKey)
		}
		id := rotate(t, reopen(t, store.Store))
		store.set(func(context.Context) error { panic("driver") }, nil)
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				_, err := ring.Key(t.Context(), id)
				require.ErrorIs(t, err, keyring.ErrUnknownKey)
				require.ErrorIs(t, err, keyring.ErrStore)
				require.ErrorContains(t, err, "panic: driver")
			})
		}
		wg.Wait()
		store.up()
		time.Sleep(time.Second)
		_, err := ring.Key(t.Context(), id)
		require.NoError(t, err)
	})
}

// A document that does not open does not prove that a key is missing.
func TestMissWhileTheDocumentIsDamaged(t *testing.T) {
	store := newHooked()
	ring := create(t, store, nil)
	overwrite(t, store.Store, []byte("damaged"))
	_, err := ring.Key(t.Context(), ring.ID()+".00000000")
	require.ErrorIs(t, err, keyring.ErrUnknownKey)
	require.ErrorIs(t, err, keyring.ErrStore)
	require.ErrorIs(t, err, keyring.ErrDamaged)
}

// If the ctx of one caller ends, the others do not fail.
func TestMissWhoseLeaderGivesUp(t *testing.T) {
	fakeclock.Test(t, func(t *testing.T) {
		store := newHooked()
		ring := create(t, store, nil)
		id := rotate(t, reopen(t, store.Store))
		store.set(func(ctx context.Context) error {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(5 * time.Second):
				return nil
			}
		}, nil)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var wg sync.WaitGroup
		wg.Go(func() {
			_, err := ring.Key(ctx, id)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.ErrorIs(t, err, keyring.ErrUnknownKey)
			require.ErrorIs(t, err, keyring.ErrStore)
		})
		synctest.Wait()
		for range 3 {
			wg.Go(func() {
				key, err := ring.Key(t.Context(), id)
				require.NoError(t, err)
				require.Equal(t, id, key.ID())
			})
		}
		wg.Go(func() { // a follower that gives up as well
			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			defer cancel()
			start := time.Now()
			_, err := ring.Key(ctx, id)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.Equal(t, 500*time.Millisecond, time.Since(start))
		})
		wg.Wait()
	})
}
