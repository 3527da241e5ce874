package keyring_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/internal/testbed/await"
	"github.com/blobseal/blobseal/internal/testbed/fakeclock"
	"github.com/blobseal/blobseal/keyring"
)

func TestSetState(t *testing.T) {
	ctx := t.Context()
	store := newHooked()
	now := time.Date(2026, 1, 2, 3, 4, 5, 6e6, time.UTC)
	ring := create(t, store, &keyring.Options{Now: func() time.Time { return now }})
	first := primary(t, ring)
	second := rotate(t, ring)
	created := ring.Versions()[0].Created

	swaps := store.swaps.Load()
	for _, step := range []struct {
		state keyring.State
		wrote bool
		same  bool // the state, although something was written
		err   error
		key   error
	}{
		{state: keyring.Enabled},
		{state: keyring.Disabled, wrote: true, key: keyring.ErrDisabled},
		{state: keyring.Disabled, wrote: true, same: true, key: keyring.ErrDisabled},
		{state: keyring.Enabled, wrote: true},
		{state: keyring.Disabled, wrote: true, key: keyring.ErrDisabled},
		{state: keyring.Destroyed, wrote: true, key: keyring.ErrDestroyed},
		{state: keyring.Destroyed, key: keyring.ErrDestroyed},
		{state: keyring.Enabled, err: keyring.ErrDestroyed, key: keyring.ErrDestroyed},
		{state: keyring.Disabled, err: keyring.ErrDestroyed, key: keyring.ErrDestroyed},
	} {
		now = now.Add(time.Hour)
		info, err := ring.SetState(ctx, first, step.state)
		if step.err != nil {
			require.ErrorIs(t, err, step.err)
			require.ErrorContains(t, err, first)
			require.Zero(t, info)
		} else {
			require.NoError(t, err)
			require.Equal(t, ring.Versions()[0], info)
			require.Equal(t, first, info.ID)
			require.Equal(t, step.state, info.State)
			require.Equal(t, created, info.Created)
			require.Equal(t, step.wrote && !step.same, info.Changed.Equal(now))
		}
		if step.wrote {
			swaps++
		}
		require.Equal(t, swaps, store.swaps.Load(), "writes")

		for _, r := range []*keyring.Ring{ring, reopen(t, store)} {
			key, err := r.Key(ctx, first)
			if step.key == nil {
				require.NoError(t, err)
				require.Equal(t, first, key.ID())
			} else {
				require.ErrorIs(t, err, step.key)
				require.ErrorContains(t, err, first)
			}
		}
	}

	for _, state := range []keyring.State{keyring.Disabled, keyring.Destroyed} {
		_, err := ring.SetState(ctx, second, state)
		require.ErrorIs(t, err, keyring.ErrPrimary)
	}
	_, err := ring.SetState(ctx, second, keyring.Enabled)
	require.NoError(t, err)
	for _, state := range []keyring.State{"", "Enabled", "enabled ", "1", "state 4"} {
		_, err := ring.SetState(ctx, second, state)
		require.Error(t, err)
	}
	for _, id := range []string{"", "x", ring.ID() + ".00000000", create(t, keyring.NewMemStore(), nil).Versions()[0].ID} {
		_, err := ring.SetState(ctx, id, keyring.Disabled)
		require.ErrorIs(t, err, keyring.ErrUnknownKey)
	}
	require.Equal(t, swaps, store.swaps.Load(), "writes")
}

func TestDestroyedKeyBytesAreGone(t *testing.T) {
	store := keyring.NewMemStore()
	ring := create(t, store, nil)
	first := primary(t, ring)
	rotate(t, ring)
	before, err := keyring.MasterKeys(t.Context(), keyRoot(t, 1), document(t, store))
	require.NoError(t, err)
	require.Contains(t, before, first)
	_, err = ring.SetState(t.Context(), first, keyring.Destroyed)
	require.NoError(t, err)
	after, err := keyring.MasterKeys(t.Context(), keyRoot(t, 1), document(t, store))
	require.NoError(t, err)
	require.NotContains(t, after, first)
	require.Len(t, after, 1)
}

func TestSetPeriod(t *testing.T) {
	store := newHooked()
	ring := create(t, store, nil)
	for _, p := range []time.Duration{0, -1, time.Second, time.Hour + 1, 3650*day + time.Second} {
		require.ErrorIs(t, ring.SetPeriod(t.Context(), p), keyring.ErrInvalid)
	}
	for _, p := range []time.Duration{time.Minute, 3650 * day, 30 * 24 * time.Hour} {
		require.NoError(t, ring.SetPeriod(t.Context(), p))
		require.Equal(t, p, ring.Period())
		require.Equal(t, p, reopen(t, store).Period())
	}
	swaps := store.swaps.Load()
	require.NoError(t, ring.SetPeriod(t.Context(), 30*24*time.Hour))
	require.Equal(t, swaps, store.swaps.Load(), "no change is no write")
}

func TestChangeRoot(t *testing.T) {
	ctx := t.Context()
	store := newHooked()
	ring := create(t, store, nil)
	replica := reopen(t, store)
	stale := reopen(t, store)
	key, err := ring.Primary(ctx)
	require.NoError(t, err)

	require.NoError(t, ring.ChangeRoot(ctx, keyRoot(t, 2)))
	_, err = keyring.Open(ctx, store, keyRoot(t, 1), nil)
	require.ErrorIs(t, err, keyring.ErrRoot)
	again, err := keyring.Open(ctx, store, keyRoot(t, 2), nil)
	require.NoError(t, err)
	require.Equal(t, ring.Versions(), again.Versions())
	after, err := again.Key(ctx, key.ID())
	require.NoError(t, err)
	require.Equal(t, key.KEK(), after.KEK(), "the same master keys")

	// The ring keeps working. The same call tells another process of the root.
	rotate(t, ring)
	require.NoError(t, ring.Refresh(ctx))
	require.ErrorIs(t, replica.Refresh(ctx), keyring.ErrRoot)
	_, err = replica.Rotate(ctx)
	require.ErrorIs(t, err, keyring.ErrRoot)
	_, err = replica.Primary(ctx)
	require.NoError(t, err, "it goes on with what it had")
	swaps := store.swaps.Load()
	require.NoError(t, replica.ChangeRoot(ctx, keyRoot(t, 2)))
	require.Equal(t, swaps, store.swaps.Load(), "nothing to write")
	require.Equal(t, ring.Versions(), replica.Versions())
	rotate(t, replica)

	// Wrong roots change nothing.
	require.ErrorIs(t, stale.ChangeRoot(ctx, keyRoot(t, 3)), keyring.ErrRoot)
	require.Error(t, stale.ChangeRoot(ctx, nil))
	for name, root := range map[string]*fakeRoot{
		"cannot encrypt": {AEADWithContext: keyRoot(t, 3), encrypt: func(context.Context) error { return errDown }},
		"cannot decrypt": {AEADWithContext: keyRoot(t, 3), decrypt: func(context.Context) error { return errDown }},
	} {
		swaps := store.swaps.Load()
		err := ring.ChangeRoot(ctx, root)
		require.ErrorIs(t, err, errDown, name)
		require.Equal(t, swaps, store.swaps.Load(), name)
		rotate(t, ring)
		_, err = keyring.Open(ctx, store, keyRoot(t, 2), nil)
		require.NoError(t, err, name)
	}
}

// After an error of the store, the document may be under either root. The ring opens both,
// and the call may be repeated.
func TestChangeRootWithUncertainEnd(t *testing.T) {
	ctx := t.Context()
	for _, happened := range []bool{false, true} {
		t.Run(fmt.Sprint("happened ", happened), func(t *testing.T) {
			store := newHooked()
			ring := create(t, store, nil)
			store.set(nil, func(_ context.Context, swap func() error) error {
				if happened {
					require.NoError(t, swap())
				}
				return errDown
			})
			require.ErrorIs(t, ring.ChangeRoot(ctx, keyRoot(t, 2)), errDown)
			store.up()
			require.NoError(t, ring.Refresh(ctx))
			id := rotate(t, ring)
			root := keyRoot(t, 1)
			if happened {
				root = keyRoot(t, 2)
			}
			again, err := keyring.Open(ctx, store, root, nil)
			require.NoError(t, err)
			require.Equal(t, id, primary(t, again))
			before := store.swaps.Load()
			require.NoError(t, ring.ChangeRoot(ctx, keyRoot(t, 2)))
			require.Equal(t, happened, store.swaps.Load() == before, "what is done is left as it is")
			_, err = keyring.Open(ctx, store, keyRoot(t, 2), nil)
			require.NoError(t, err)
		})
	}
}

// While one goroutine changes the root back and forth, refreshes never meet a document that
// they cannot open.
func TestChangeRootWhileRefreshing(t *testing.T) {
	ctx := t.Context()
	ring := create(t, keyring.NewMemStore(), nil)
	done := make(chan struct{})
	var wg sync.WaitGroup
	errs := make([]error, 3)
	for i := range errs {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if err := ring.Refresh(ctx); err != nil {
					errs[i] = err
					return
				}
			}
		})
	}
	var err error
	for i := 0; i < 100 && err == nil; i++ {
		err = ring.ChangeRoot(ctx, keyRoot(t, byte(0x80+i)))
	}
	close(done)
	wg.Wait()
	require.NoError(t, err)
	require.NoError(t, errors.Join(errs...))
}

// After a conflict, an operation loads the document again and starts over.
func TestConflicts(t *testing.T) {
	ctx := t.Context()
	store := newHooked()
	ring := create(t, store, nil)
	first := primary(t, ring)
	other := reopen(t, store.Store)
	between := func(act func()) {
		var once sync.Once
		store.set(nil, func(_ context.Context, swap func() error) error {
			once.Do(act)
			return swap()
		})
	}

	between(func() { rotate(t, other) })
	id := rotate(t, ring)
	require.Equal(t, primary(t, other), id, "the other's version is the result")
	require.Len(t, ring.Versions(), 2)

	between(func() { require.NoError(t, other.SetPeriod(ctx, time.Hour)) })
	id = rotate(t, ring)
	require.NotEqual(t, primary(t, other), id, "the other did something else")
	require.Len(t, ring.Versions(), 3)
	require.Equal(t, time.Hour, ring.Period())

	between(func() { _, err := other.SetState(ctx, first, keyring.Disabled); require.NoError(t, err) })
	info, err := ring.SetState(ctx, first, keyring.Disabled)
	require.NoError(t, err)
	require.Equal(t, keyring.Disabled, info.State)

	between(func() { _, err := other.SetState(ctx, first, keyring.Destroyed); require.NoError(t, err) })
	_, err = ring.SetState(ctx, first, keyring.Enabled)
	require.ErrorIs(t, err, keyring.ErrDestroyed)

	between(func() { require.NoError(t, other.ChangeRoot(ctx, keyRoot(t, 2))) })
	require.NoError(t, ring.ChangeRoot(ctx, keyRoot(t, 2)))

	// Conflicts that never end, until ctx does.
	store.set(nil, func(context.Context, func() error) error { return keyring.ErrConflict })
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	_, err = ring.Rotate(short)
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

// holdSwap closes entered when a Swap begins, and holds the Swap until release.
func holdSwap(store *hooked) (entered, release chan struct{}) {
	entered, release = make(chan struct{}), make(chan struct{})
	store.set(nil, func(_ context.Context, swap func() error) error {
		close(entered)
		<-release
		return swap()
	})
	return entered, release
}

func TestRotationsOfOneRingThatMeetMakeOneVersion(t *testing.T) {
	fakeclock.Test(t, func(t *testing.T) {
		store := newHooked()
		ring := create(t, store, nil)
		entered, release := holdSwap(store)
		var ids [5]string
		var wg sync.WaitGroup
		wg.Go(func() { ids[0] = rotate(t, ring) })
		<-entered
		for i := range ids[1:] {
			wg.Go(func() { ids[i+1] = rotate(t, ring) })
		}
		synctest.Wait() // until they wait for their turn
		close(release)
		wg.Wait()
		for _, id := range ids {
			require.Equal(t, ids[0], id)
		}
		require.Len(t, ring.Versions(), 2)
		store.up()
		require.NotEqual(t, ids[0], rotate(t, ring))
	})
}

func TestWaitingForTheTurnEndsWithCtx(t *testing.T) {
	store := newHooked()
	ring := create(t, store, nil)
	entered, release := holdSwap(store)
	var wg sync.WaitGroup
	wg.Go(func() { rotate(t, ring) })
	await.Value(t, entered, "Rotate to write")
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := ring.Rotate(ended)
	require.ErrorIs(t, err, context.Canceled)
	_, err = ring.SetState(ended, primary(t, ring), keyring.Enabled)
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, ring.SetPeriod(ended, time.Hour), context.Canceled)
	require.ErrorIs(t, ring.ChangeRoot(ended, keyRoot(t, 2)), context.Canceled)
	close(release)
	wg.Wait()
}
