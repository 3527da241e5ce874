package keyring_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/internal/testbed/fakeclock"
	"github.com/blobseal/blobseal/keyring"
)

// clockStore is a store with a clock, which is right unless it is off.
type clockStore struct {
	keyring.Store
	off time.Duration
	err error
}

func (s clockStore) Now(context.Context) (time.Time, error) {
	return time.Now().Add(s.off), s.err
}

// requireClockError requires the error of a process whose clock is off.
func requireClockError(t *testing.T, err error, off time.Duration) {
	t.Helper()
	var differ *keyring.ClockError
	require.ErrorAs(t, err, &differ)
	require.Equal(t, off, differ.Process.Sub(differ.Store))
	require.ErrorContains(t, err, differ.Process.UTC().Format(time.RFC3339))
	require.ErrorContains(t, err, differ.Store.UTC().Format(time.RFC3339))
}

// A process whose clock is a year off adds no version, neither because of age nor by Rotate.
func TestWrongClockRotatesNothing(t *testing.T) {
	for name, off := range map[string]time.Duration{"ahead": 365 * day, "behind": -365 * day, "a little ahead": 11 * time.Minute} {
		t.Run(name, func(t *testing.T) {
			fakeclock.Test(t, func(t *testing.T) {
				store := clockStore{Store: newHooked()}
				ring := create(t, store, nil)
				id := primary(t, ring)
				wrong, err := keyring.Open(t.Context(), store, keyRoot(t, 1), &keyring.Options{Now: skewed(off)})
				require.NoError(t, err)
				_, err = wrong.Rotate(t.Context())
				requireClockError(t, err, off)
				_, _ = wrong.Primary(t.Context())
				synctest.Wait()
				require.NoError(t, ring.Refresh(t.Context()))
				require.Len(t, ring.Versions(), 1)

				time.Sleep(90 * day)
				next, _ := primaryNow(t, t.Context(), ring)
				require.NotEqual(t, id, next, "rotation goes on by the right clocks")
				_, err = keyring.Create(t.Context(), clockStore{Store: keyring.NewMemStore()}, keyRoot(t, 1), &keyring.Options{Now: skewed(off)})
				requireClockError(t, err, off)
			})
		})
	}
}

// The error past HardAge names the clock as its reason.
func TestWrongClockIsNamed(t *testing.T) {
	fakeclock.Test(t, func(t *testing.T) {
		store := clockStore{Store: newHooked()}
		create(t, store, nil)
		ahead, err := keyring.Open(t.Context(), store, keyRoot(t, 1), &keyring.Options{Now: skewed(365 * day)})
		require.NoError(t, err)
		_, err = ahead.Primary(t.Context())
		require.ErrorIs(t, err, keyring.ErrTooOld)
		requireClockError(t, err, 365*day)
		_, err = ahead.RotateIfDue(t.Context())
		requireClockError(t, err, 365*day)
	})
}

// A process with a wrong clock disables a version at once, and the quarantine counts by the
// store's clock. A change with a condition, such as the end of a quarantine, is refused.
func TestWrongClockDisablesByTheStores(t *testing.T) {
	for name, off := range map[string]time.Duration{"ahead": 20 * 365 * day, "behind": -8 * day} {
		t.Run(name, func(t *testing.T) {
			fakeclock.Test(t, func(t *testing.T) {
				store := clockStore{Store: newHooked()}
				ring := create(t, store, nil)
				id := primary(t, ring)
				rotate(t, ring)
				time.Sleep(30 * day) // nobody changes the ring, so that its dates do not show the time
				wrong, err := keyring.Open(t.Context(), store, keyRoot(t, 1), &keyring.Options{Now: skewed(off)})
				require.NoError(t, err)
				info, err := wrong.SetState(t.Context(), id, keyring.Disabled)
				require.NoError(t, err)
				require.True(t, info.Changed.Equal(time.Now()), "%v", info.Changed)
				_, err = wrong.SetStateIf(t.Context(), id, keyring.Destroyed, func(keyring.Version) error { return nil })
				requireClockError(t, err, off)
				require.NoError(t, ring.Refresh(t.Context()))
				require.Equal(t, keyring.Disabled, state(t, ring, id))
				set(t, wrong, id, keyring.Destroyed)
			})
		})
	}
}

// If the store has a clock, a date that a wrong clock wrote does not affect the dates of
// later changes.
func TestDateFromTheFutureIsNotPassedOn(t *testing.T) {
	fakeclock.Test(t, func(t *testing.T) {
		inner := newHooked()
		ring := create(t, inner, nil)
		first := primary(t, ring)
		ahead, err := keyring.Open(t.Context(), inner, keyRoot(t, 1), &keyring.Options{Now: skewed(20 * 365 * day)})
		require.NoError(t, err)
		rotate(t, ahead) // when the store had no clock
		ring, err = keyring.Open(t.Context(), clockStore{Store: inner}, keyRoot(t, 1), nil)
		require.NoError(t, err)
		info, err := ring.SetState(t.Context(), first, keyring.Disabled)
		require.NoError(t, err)
		require.True(t, info.Changed.Equal(time.Now()), "%v", info.Changed)
	})
}

// If the clock of the store cannot be read, nothing is changed. A store whose Now returns
// ErrUnsupported is a store without a clock.
func TestStoreClockThatFails(t *testing.T) {
	store := newHooked()
	ring := create(t, clockStore{Store: store, err: errors.ErrUnsupported}, nil)
	rotate(t, ring)
	failing := reopen(t, clockStore{Store: store, err: errDown})
	_, err := failing.Rotate(t.Context())
	require.ErrorIs(t, err, keyring.ErrStore)
	require.ErrorIs(t, err, errDown)
	_, err = failing.SetState(t.Context(), ring.Versions()[0].ID, keyring.Disabled)
	require.ErrorIs(t, err, errDown)
}

// A file store's clock is that of the file system, and reading it leaves nothing behind.
func TestFileStoreClock(t *testing.T) {
	dir := t.TempDir()
	store, err := keyring.NewFileStore(filepath.Join(dir, "ring"))
	require.NoError(t, err)
	now, err := store.(keyring.Clock).Now(t.Context())
	require.NoError(t, err)
	require.WithinDuration(t, time.Now(), now, time.Minute)
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, entries)
	_, err = keyring.Create(t.Context(), store, keyRoot(t, 1), &keyring.Options{Now: func() time.Time { return time.Now().Add(-365 * day) }})
	var differ *keyring.ClockError
	require.ErrorAs(t, err, &differ)
	_, _, err = store.Load(t.Context())
	require.ErrorIs(t, err, keyring.ErrNotExist)
}
