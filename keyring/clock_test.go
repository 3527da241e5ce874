package keyring_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/internal/testbed/fakeclock"
	"github.com/blobseal/blobseal/keyring"
)

// skewed returns the bubble's clock with an offset.
func skewed(by time.Duration) func() time.Time {
	return func() time.Time { return time.Now().Add(by) }
}

// A process whose clock is 20 years ahead rotates once. The others replace its version,
// which would otherwise serve for 20 years. The processes do not keep replacing each other's
// versions.
func TestVersionFromTheFuture(t *testing.T) {
	fakeclock.Test(t, func(t *testing.T) {
		log, lines := newLogger()
		store := newHooked()
		ring := create(t, store, &keyring.Options{Logger: log})
		ahead := create(t, store, &keyring.Options{Now: skewed(20 * 365 * day)})
		made, _ := primaryNow(t, t.Context(), ahead)
		require.NoError(t, ring.Refresh(t.Context()))
		require.Equal(t, made, primary(t, ring))

		id, _ := primaryNow(t, t.Context(), ring)
		require.NotEqual(t, made, id)
		require.Contains(t, lines.String(), "created in the future")
		for range 100 {
			require.NoError(t, ring.Refresh(t.Context()))
			require.NoError(t, ahead.Refresh(t.Context()))
			_, _ = ahead.Primary(t.Context())
			primaryNow(t, t.Context(), ring)
		}
		require.Len(t, ring.Versions(), 3)
		_, err := ahead.Primary(t.Context())
		require.ErrorIs(t, err, keyring.ErrTooOld, "its clock is the wrong one")
		require.ErrorContains(t, err, "check all clocks")

		time.Sleep(90 * day)
		synctest.Wait()
		next, _ := primaryNow(t, t.Context(), ring)
		require.NotEqual(t, id, next, "rotation goes on by the right clocks")
	})
}

// HardAge also applies to a version from the future, and counts from when it was first seen.
func TestHardAgeOfAVersionFromTheFuture(t *testing.T) {
	fakeclock.Test(t, func(t *testing.T) {
		store := newHooked()
		ring := create(t, store, nil)
		rotate(t, create(t, store, &keyring.Options{Now: skewed(20 * 365 * day)}))
		require.NoError(t, ring.Refresh(t.Context()))
		store.down()
		primaryNow(t, t.Context(), ring)
		time.Sleep(359 * day)
		primaryNow(t, t.Context(), ring)
		time.Sleep(2 * day)
		_, err := ring.Primary(t.Context())
		require.ErrorIs(t, err, keyring.ErrTooOld)
	})
}

// Clocks that differ a little, as they do everywhere, change nothing.
func TestVersionFromASlightlyFasterClock(t *testing.T) {
	fakeclock.Test(t, func(t *testing.T) {
		store := newHooked()
		ring := create(t, store, nil)
		id := rotate(t, create(t, store, &keyring.Options{Now: skewed(5 * time.Minute)}))
		require.NoError(t, ring.Refresh(t.Context()))
		got, _ := primaryNow(t, t.Context(), ring)
		require.Equal(t, id, got)
		require.Len(t, ring.Versions(), 2)
	})
}

// A process that lives for a second rotates a ring that is due, although its store takes
// longer than Primary waits.
func TestRotateIfDue(t *testing.T) {
	fakeclock.Test(t, func(t *testing.T) {
		store := newHooked()
		first := primary(t, create(t, store, &keyring.Options{Period: time.Minute}))
		store.set(func(context.Context) error { time.Sleep(400 * time.Millisecond); return nil }, nil)

		ring := reopen(t, store)
		rotated, err := ring.RotateIfDue(t.Context())
		require.NoError(t, err)
		require.False(t, rotated)
		time.Sleep(time.Minute)
		other := reopen(t, store)
		rotated, err = ring.RotateIfDue(t.Context())
		require.NoError(t, err)
		require.True(t, rotated)
		require.NotEqual(t, first, primary(t, ring))
		rotated, err = other.RotateIfDue(t.Context())
		require.NoError(t, err)
		require.False(t, rotated, "the other one did")
		require.Equal(t, ring.Versions(), other.Versions())

		time.Sleep(time.Minute)
		store.down()
		_, err = ring.RotateIfDue(t.Context())
		require.ErrorIs(t, err, errDown)
	})
}

// A condition is checked against the document that is replaced.
func TestSetStateIf(t *testing.T) {
	ctx := t.Context()
	store := newHooked()
	ring := create(t, store, nil)
	other := reopen(t, store.Store)
	id := primary(t, ring)
	rotate(t, ring)
	disabled, err := ring.SetState(ctx, id, keyring.Disabled)
	require.NoError(t, err)

	errChanged := errors.New("changed meanwhile")
	calls := 0
	unchanged := func(v keyring.Version) error {
		calls++
		if v != disabled {
			return errChanged
		}
		return nil
	}
	// Another process enables and disables the version between our load and our write.
	store.afterLoad(func() {
		require.NoError(t, other.Refresh(ctx))
		set(t, other, id, keyring.Enabled)
		time.Sleep(2 * time.Millisecond)
		set(t, other, id, keyring.Disabled)
	})
	_, err = ring.SetStateIf(ctx, id, keyring.Destroyed, unchanged)
	require.ErrorIs(t, err, errChanged)
	require.Equal(t, 2, calls)
	require.Equal(t, keyring.Disabled, state(t, reopen(t, store), id))

	require.NoError(t, ring.Refresh(ctx))
	_, disabled = keyring.Version{}, ring.Versions()[0]
	v, err := ring.SetStateIf(ctx, id, keyring.Destroyed, unchanged)
	require.NoError(t, err)
	require.Equal(t, keyring.Destroyed, v.State)
}

// A process whose clock is years ahead keeps tombstones of destroyed versions: the watermark
// that replaces a tombstone would also destroy the versions that a failover lost.
func TestClockAheadPrunesNothing(t *testing.T) {
	fakeclock.Test(t, func(t *testing.T) {
		store := newHooked()
		one := create(t, store, nil)
		two := reopen(t, store)
		failover := document(t, store)
		lost := rotate(t, one)

		overwrite(t, store, failover)
		destroyed := rotate(t, two)
		rotate(t, two)
		set(t, two, destroyed, keyring.Destroyed)
		ahead := create(t, store, &keyring.Options{Now: skewed(20 * 365 * day)})
		rotate(t, ahead)
		require.Equal(t, keyring.Destroyed, state(t, reopen(t, store), destroyed), "the tombstone stays")

		require.NoError(t, one.Refresh(t.Context()))
		_, err := reopen(t, store).Key(t.Context(), lost)
		require.NoError(t, err, "the lost version is back")
	})
}

// TestChangeByAClockThatIsBehind: a change is dated no earlier than the newest time in
// the document, so that a quarantine that counts from it does not end at once for
// processes whose clocks are right.
func TestChangeByAClockThatIsBehind(t *testing.T) {
	fakeclock.Test(t, func(t *testing.T) {
		store := newHooked()
		ring := create(t, store, nil)
		first := primary(t, ring)
		rotate(t, ring)
		rotated := ring.Versions()[1].Created
		behind, err := keyring.Open(t.Context(), store, keyRoot(t, 1), &keyring.Options{Now: skewed(-8 * day)})
		require.NoError(t, err)
		info, err := behind.SetState(t.Context(), first, keyring.Disabled)
		require.NoError(t, err)
		require.False(t, info.Changed.Before(rotated), "%v, and the ring was rotated %v", info.Changed, rotated)
	})
}
