package keyring_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/internal/testbed/fakeclock"
	"github.com/blobseal/blobseal/keyring"
)

// state returns what the ring knows of a version.
func state(t testing.TB, ring *keyring.Ring, id string) keyring.State {
	t.Helper()
	for _, v := range ring.Versions() {
		if v.ID == id {
			return v.State
		}
	}
	require.Fail(t, "no such version", id)
	return ""
}

func set(t testing.TB, ring *keyring.Ring, id string, to keyring.State) {
	t.Helper()
	_, err := ring.SetState(t.Context(), id, to)
	require.NoError(t, err)
}

// A failover loses the latest writes, and two groups of processes continue from different
// documents. When these merge, no version is lost, and none that was disabled or destroyed
// comes back.
func TestCampsMerge(t *testing.T) {
	ctx := t.Context()
	log, lines := newLogger()
	store := keyring.NewMemStore()
	one := create(t, store, &keyring.Options{Logger: log})
	var ids []string
	for range 4 {
		ids = append(ids, rotate(t, one))
	}
	two := reopen(t, store)
	failover := document(t, store)

	// The store loses the changes of the first process.
	set(t, one, ids[0], keyring.Destroyed)
	set(t, one, ids[1], keyring.Disabled)
	lost := rotate(t, one)
	key, err := one.Primary(ctx)
	require.NoError(t, err)
	sealed, err := key.Seal([]byte("data key"), nil)
	require.NoError(t, err)

	overwrite(t, store, failover)
	set(t, two, ids[1], keyring.Disabled) // both disable it
	set(t, two, ids[1], keyring.Enabled)  // and one enables it again
	set(t, two, ids[2], keyring.Disabled)
	require.NoError(t, two.SetPeriod(ctx, time.Hour))
	made := []string{rotate(t, two), rotate(t, two), rotate(t, two)}

	require.NoError(t, one.Refresh(ctx))
	require.NoError(t, two.Refresh(ctx))
	fresh := reopen(t, store)
	require.Contains(t, lines.String(), "store had lost changes")
	require.Equal(t, one.Versions(), fresh.Versions())
	require.Equal(t, two.Versions(), fresh.Versions())
	require.Equal(t, keyring.Destroyed, state(t, fresh, ids[0]))
	require.Equal(t, keyring.Disabled, state(t, fresh, ids[1]), "the first camp's disabling was not undone by the second")
	require.Equal(t, keyring.Disabled, state(t, fresh, ids[2]))
	require.Equal(t, keyring.Enabled, state(t, fresh, lost))
	require.Equal(t, made[2], primary(t, fresh))
	require.Equal(t, time.Hour, fresh.Period())
	key, err = fresh.Key(ctx, lost)
	require.NoError(t, err)
	opened, err := key.Open(sealed, nil)
	require.NoError(t, err)
	require.Equal(t, "data key", string(opened))

	_, version, err := store.Load(ctx)
	require.NoError(t, err)
	for _, r := range []*keyring.Ring{one, two, fresh, one} {
		require.NoError(t, r.Refresh(ctx))
	}
	_, again, err := store.Load(ctx)
	require.NoError(t, err)
	require.Equal(t, version, again, "healing ends")

	set(t, two, ids[1], keyring.Enabled) // by an administrator who sees all marks
	require.NoError(t, one.Refresh(ctx))
	require.Equal(t, keyring.Enabled, state(t, one, ids[1]))
}

// Disabling a disabled version holds, even against an enabling that the store had lost
// before.
func TestDisablingAgainHolds(t *testing.T) {
	store := keyring.NewMemStore()
	one := create(t, store, nil)
	id := primary(t, one)
	rotate(t, one)
	set(t, one, id, keyring.Disabled)
	before := document(t, store)
	set(t, one, id, keyring.Enabled)
	overwrite(t, store, before)

	two := reopen(t, store)
	set(t, two, id, keyring.Disabled)
	require.NoError(t, one.Refresh(t.Context()))
	require.NoError(t, two.Refresh(t.Context()))
	require.Equal(t, keyring.Disabled, state(t, two, id))
	require.Equal(t, keyring.Disabled, state(t, reopen(t, store), id))
}

// Two backups, neither of them complete, restore a ring that no process knows any more.
func TestMergeBackups(t *testing.T) {
	ctx := t.Context()
	store := keyring.NewMemStore()
	ring := create(t, store, nil)
	first := primary(t, ring)
	base := document(t, store)
	one := rotate(t, ring)
	set(t, ring, first, keyring.Disabled)
	backup := document(t, store)
	other := stored(t, base)
	two := rotate(t, reopen(t, other))

	ring = reopen(t, other)
	require.NoError(t, ring.Merge(ctx, backup))
	require.Equal(t, keyring.Disabled, state(t, ring, first))
	for _, id := range []string{one, two} {
		_, err := reopen(t, other).Key(ctx, id)
		require.NoError(t, err)
	}
	before := ring.Stats().Generation
	for _, data := range [][]byte{base, backup, document(t, other)} {
		require.NoError(t, ring.Merge(ctx, data))
	}
	require.Equal(t, before, ring.Stats().Generation, "nothing to add")

	foreign := keyring.NewMemStore()
	create(t, foreign, nil)
	require.ErrorIs(t, ring.Merge(ctx, document(t, foreign)), keyring.ErrOtherRing)
	require.ErrorIs(t, ring.Merge(ctx, backup[:50]), keyring.ErrDamaged)
	require.NoError(t, ring.ChangeRoot(ctx, keyRoot(t, 2)))
	require.ErrorIs(t, ring.Merge(ctx, backup), keyring.ErrRoot)
}

// If the store loses a change of the root, the same call repeats it, even after another
// process has written under the old root.
func TestChangeRootThatWasLost(t *testing.T) {
	ctx := t.Context()
	store := keyring.NewMemStore()
	ring := create(t, store, nil)
	other := reopen(t, store)
	before := document(t, store)
	require.NoError(t, ring.ChangeRoot(ctx, keyRoot(t, 2)))

	overwrite(t, store, before)
	require.NoError(t, ring.Refresh(ctx), "this process knows the older document")
	_, err := keyring.Open(ctx, store, keyRoot(t, 2), nil)
	require.NoError(t, err)

	overwrite(t, store, before)
	id := rotate(t, other)
	require.ErrorIs(t, ring.Refresh(ctx), keyring.ErrRoot, "the old root was left for a reason")
	require.NoError(t, ring.ChangeRoot(ctx, keyRoot(t, 2)))
	fresh, err := keyring.Open(ctx, store, keyRoot(t, 2), nil)
	require.NoError(t, err)
	require.Equal(t, id, primary(t, fresh))
}

// While the store lacks the primary and cannot be healed, the ring seals under it only for a
// short grace.
func TestPrimaryThatTheStoreLacks(t *testing.T) {
	for name, lose := range map[string]func(t *testing.T, store *hooked, before []byte){
		"older document": func(t *testing.T, store *hooked, before []byte) { overwrite(t, store.Store, before) },
		"no document":    func(_ *testing.T, store *hooked, _ []byte) { store.Store = keyring.NewMemStore() },
	} {
		t.Run(name, func(t *testing.T) {
			fakeclock.Test(t, func(t *testing.T) {
				store := newHooked()
				ring := create(t, store, nil)
				before, kept := document(t, store), store.Store
				id := rotate(t, ring)
				after := document(t, store)
				readOnly := func(context.Context, func() error) error { return errDown }
				store.set(nil, readOnly)
				lose(t, store, before)
				require.Error(t, ring.Refresh(t.Context()))
				_, err := ring.Primary(t.Context())
				require.NoError(t, err)
				time.Sleep(keyring.LostGrace)
				_, err = ring.Primary(t.Context())
				require.ErrorIs(t, err, keyring.ErrRollback)
				require.ErrorContains(t, err, id)
				_, err = ring.Key(t.Context(), id)
				require.NoError(t, err, "it still opens")
				require.Equal(t, after, ring.Document(), "and can be saved")

				store.up()
				store.Store = kept
				require.NoError(t, ring.Refresh(t.Context()))
				require.Equal(t, after, document(t, store))
				_, err = ring.Primary(t.Context())
				require.NoError(t, err)
			})
		})
	}
}

// A ring whose versions are destroyed never fills up: tombstones are removed in time, and no
// process brings back the versions that they named.
func TestTombstonesArePruned(t *testing.T) {
	fakeclock.Test(t, func(t *testing.T) {
		store := keyring.NewMemStore()
		now := time.Now()
		ring := create(t, store, &keyring.Options{Now: func() time.Time { return now }})
		kept := primary(t, ring)
		first := rotate(t, ring)
		rotate(t, ring)
		old := reopen(t, stored(t, document(t, store)))
		ancient := document(t, store)
		set(t, ring, first, keyring.Destroyed)
		for range 50 * 4 { // fifty years
			now = now.Add(90 * day)
			destroy := primary(t, ring)
			rotate(t, ring)
			set(t, ring, destroy, keyring.Destroyed)
		}
		require.Less(t, len(ring.Versions()), 10)
		require.Equal(t, keyring.Enabled, state(t, ring, kept))
		_, err := ring.Key(t.Context(), first)
		require.ErrorIs(t, err, keyring.ErrUnknownKey)

		// A process that slept meanwhile still has the version, and learns that the ring changed.
		_, err = old.Key(t.Context(), first)
		require.NoError(t, err)
		versions := len(ring.Versions())
		overwrite(t, store, ancient)
		require.NoError(t, ring.Refresh(t.Context()))
		require.Len(t, reopen(t, store).Versions(), versions)
		_, err = reopen(t, store).Key(t.Context(), first)
		require.ErrorIs(t, err, keyring.ErrUnknownKey)
	})
}
