package localkms_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/internal/testbed/fakeclock"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/keyring/keyringtest"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/localkms"
)

// clockStore is a store with a clock.
type clockStore struct {
	keyring.Store
	clock *keyringtest.Clock
}

func (s clockStore) Now(context.Context) (time.Time, error) { return s.clock.Now(), nil }

// openWithClock opens a service whose store has a clock, and another process whose own
// clock is off.
func openWithClock(t *testing.T, off time.Duration) (right, wrong *service) {
	store := clockStore{keyring.NewMemStore(), keyringtest.NewClock()}
	right = open(t, store, func(o *localkms.Options) { o.Now = store.clock.Now })
	right.clock = store.clock
	wrong = open(t, store, func(o *localkms.Options) {
		o.Now = func() time.Time { return store.clock.Now().Add(off) }
	})
	return right, wrong
}

func requireClockError(t *testing.T, err error) {
	t.Helper()
	require.ErrorIs(t, err, kms.ErrUnavailable)
	var differ *keyring.ClockError
	require.ErrorAs(t, err, &differ)
	require.ErrorContains(t, err, differ.Process.UTC().Format(time.RFC3339))
	require.ErrorContains(t, err, differ.Store.UTC().Format(time.RFC3339))
}

// TestAWrongClockPostponesNoRotation: a use by a process a year ahead does not rotate a
// key, nor move its schedule.
func TestAWrongClockPostponesNoRotation(t *testing.T) {
	s, ahead := openWithClock(t, 365*day)
	info, err := s.CreateKey(t.Context(), &localkms.CreateKeyInput{RotationDays: 90})
	require.NoError(t, err)
	_, err = ahead.GenerateDataKey(t.Context(), info.ID, nil)
	require.NoError(t, err)
	require.NoError(t, s.Refresh(t.Context()))
	require.Equal(t, info.Rotation, s.describe(info.ID).Rotation)
	s.clock.Advance(91 * day)
	s.encrypt(info.ID, "x", nil)
	require.Equal(t, 2, s.describe(info.ID).Rotation.Versions)
}

// TestAWrongClockDeletesNoKeyEarly: the days of a deletion count by the store's clock,
// and by that a key is deleted.
func TestAWrongClockDeletesNoKeyEarly(t *testing.T) {
	for name, off := range map[string]time.Duration{"ahead": 365 * day, "behind": -365 * day} {
		t.Run(name, func(t *testing.T) {
			s, wrong := openWithClock(t, off)
			id := s.key()
			s.clock.Advance(400 * day) // nobody changes anything
			when, err := wrong.ScheduleKeyDeletion(t.Context(), id, 30)
			require.NoError(t, err)
			require.Equal(t, s.clock.Now().Add(30*day), when)
			_, err = wrong.GenerateDataKey(t.Context(), id, nil) // would delete it by its own clock
			require.Error(t, err)
			wrong.restart()

			require.NoError(t, s.Refresh(t.Context()))
			require.Equal(t, localkms.PendingDeletion, s.describe(id).State)
			require.NoError(t, s.CancelKeyDeletion(t.Context(), id))
			_, err = s.ScheduleKeyDeletion(t.Context(), id, 7)
			require.NoError(t, err)
			s.clock.Advance(8 * day)
			s.restart()
			_, err = s.DescribeKey(t.Context(), id)
			require.ErrorIs(t, err, kms.ErrNotFound)
		})
	}
}

// TestAWrongClockOnlyTakesAway: what gives power waits until the clock is set.
func TestAWrongClockOnlyTakesAway(t *testing.T) {
	s, wrong := openWithClock(t, -11*time.Minute)
	ctx, id := t.Context(), s.key()
	g, err := s.CreateGrant(ctx, id, &localkms.CreateGrantInput{Grantee: "g", Operations: []kms.Operation{kms.OpDecrypt}})
	require.NoError(t, err)
	require.NoError(t, wrong.Refresh(ctx))
	_, err = wrong.CreateKey(ctx, nil)
	requireClockError(t, err)
	_, err = wrong.RotateKey(ctx, id)
	requireClockError(t, err)
	requireClockError(t, wrong.Tag(ctx, id, map[string]string{"a": "b"}))
	require.NoError(t, wrong.RevokeGrant(ctx, id, g.ID))
	require.NoError(t, wrong.DisableKey(ctx, id))
	requireClockError(t, wrong.EnableKey(ctx, id))
	require.NoError(t, s.Refresh(ctx))
	require.Equal(t, localkms.Disabled, s.describe(id).State)
	list, err := s.ListGrants(ctx, id)
	require.NoError(t, err)
	require.Empty(t, list)
}

// TestAClockAheadForgetsNoRemoval: without a clock of the store, a process 20 years ahead
// lets go of no mark. The watermark that takes its place would undo grants that a
// failover lost.
func TestAClockAheadForgetsNoRemoval(t *testing.T) {
	ctx, s := t.Context(), open(t, nil, nil)
	id := s.key()
	grant := func(s *service) string {
		g, err := s.CreateGrant(ctx, id, &localkms.CreateGrantInput{Grantee: "g", Operations: []kms.Operation{kms.OpDecrypt}})
		require.NoError(t, err)
		return g.ID
	}
	removed := grant(s)
	s.clock.Advance(time.Hour)
	before := s.Document()
	kept := grant(s)
	_, version, err := s.store.Load(ctx)
	require.NoError(t, err)
	_, err = s.store.Swap(ctx, version, before) // the failover loses it
	require.NoError(t, err)

	ahead := open(t, s.store, nil)
	ahead.clock.Advance(time.Hour)
	ahead.clock.Advance(time.Minute) // the mark is removed later than the lost grant was made
	require.NoError(t, ahead.RevokeGrant(ctx, id, removed))
	ahead.clock.Advance(20 * 365 * day)
	require.NoError(t, ahead.Tag(ctx, id, map[string]string{"a": "b"}))
	require.NoError(t, s.Refresh(ctx))
	list, err := s.ListGrants(ctx, id)
	require.NoError(t, err)
	require.Len(t, list, 1)
	require.Equal(t, kept, list[0].ID)
}

// TestDisablingAgainHolds although the key was disabled already, against an enabling that
// the store had lost by then.
func TestDisablingAgainHolds(t *testing.T) {
	ctx, one := t.Context(), open(t, nil, nil)
	id := one.key()
	require.NoError(t, one.DisableKey(ctx, id))
	before := one.Document()
	require.NoError(t, one.EnableKey(ctx, id))
	_, version, err := one.store.Load(ctx)
	require.NoError(t, err)
	_, err = one.store.Swap(ctx, version, before)
	require.NoError(t, err)

	two := open(t, one.store, nil)
	require.NoError(t, two.DisableKey(ctx, id))
	for _, s := range []*service{one, two, open(t, one.store, nil)} {
		require.NoError(t, s.Refresh(ctx))
		require.Equal(t, localkms.Disabled, s.describe(id).State)
	}
	require.NoError(t, one.EnableKey(ctx, id), "by someone who knows of both")
	require.Equal(t, localkms.Enabled, one.describe(id).State)
}

// TestAVersionThatTheStoreLacks encrypts for a grace that is shorter than MaxStaleness,
// while the store cannot be healed.
func TestAVersionThatTheStoreLacks(t *testing.T) {
	for name, rotate := range map[string]bool{"version": true, "key": false} {
		t.Run(name, func(t *testing.T) {
			fakeclock.Test(t, func(t *testing.T) {
				ctx := t.Context()
				store := &readOnly{Store: keyring.NewMemStore()}
				s := open(t, store, func(o *localkms.Options) { o.MaxStaleness = 10 * time.Minute })
				other, id := s.key(), ""
				if rotate {
					id = s.key()
				}
				before := s.Document()
				if rotate {
					_, err := s.RotateKey(ctx, id)
					require.NoError(t, err)
				} else {
					id = s.key()
				}
				_, version, err := store.Load(ctx)
				require.NoError(t, err)
				_, err = store.Swap(ctx, version, before)
				require.NoError(t, err)
				store.on.Store(true)

				require.ErrorIs(t, s.Refresh(ctx), keyring.ErrRollback)
				kept := s.encrypt(id, "x", nil)
				time.Sleep(30 * time.Second)
				_, err = s.GenerateDataKey(ctx, id, nil)
				require.ErrorIs(t, err, kms.ErrUnavailable)
				require.ErrorIs(t, err, keyring.ErrRollback)
				require.ErrorContains(t, err, id)
				failed, ok := errors.AsType[*kms.KeyError](err)
				require.True(t, ok, "%v", err)
				require.Equal(t, kms.OpGenerateDataKey, failed.Op)
				_, err = s.GenerateDataKeyWithoutPlaintext(ctx, id, nil)
				require.ErrorIs(t, err, keyring.ErrRollback)
				_, err = s.Encrypt(ctx, id, []byte("x"), nil)
				require.ErrorIs(t, err, keyring.ErrRollback)
				_, err = s.ReEncrypt(ctx, &localkms.ReEncryptInput{Ciphertext: kept, SourceKeyID: id, KeyID: id})
				require.ErrorIs(t, err, keyring.ErrRollback)
				s.decrypts(kept, "x", nil)
				s.encrypt(other, "x", nil) // of which the store lacks nothing

				store.on.Store(false)
				require.NoError(t, s.Refresh(ctx))
				s.encrypt(id, "x", nil)
				synctest.Wait()
			})
		})
	}
}

// readOnly is a store that refuses writes while it is on.
type readOnly struct {
	keyring.Store
	on atomic.Bool
}

func (s *readOnly) Swap(ctx context.Context, version string, data []byte) (string, error) {
	if s.on.Load() {
		return "", errDown
	}
	return s.Store.Swap(ctx, version, data)
}

// TestAScheduleFromTheFuture: without a clock of the store, a process a year ahead rotates
// a key once, and the others begin its period again. They do not rotate it in turn.
func TestAScheduleFromTheFuture(t *testing.T) {
	for name, off := range map[string]time.Duration{"ahead": 365 * day, "behind": -365 * day} {
		t.Run(name, func(t *testing.T) {
			s := open(t, nil, nil)
			info, err := s.CreateKey(t.Context(), &localkms.CreateKeyInput{RotationDays: 90})
			require.NoError(t, err)
			wrong := open(t, s.store, nil)
			wrong.clock.Advance(off)
			for range 5 {
				wrong.restart()
				wrong.encrypt(info.ID, "x", nil)
				s.restart()
				s.encrypt(info.ID, "x", nil)
			}
			rotation := s.describe(info.ID).Rotation
			require.Equal(t, 2, rotation.Versions)
			require.False(t, rotation.Next.After(s.clock.Now().Add(90*day)), "%v", rotation.Next)

			s.clock.Advance(91 * day)
			s.restart()
			s.encrypt(info.ID, "x", nil)
			require.Equal(t, 3, s.describe(info.ID).Rotation.Versions, "rotation goes on by the right clocks")
			require.NoError(t, wrong.Refresh(t.Context()))
			require.NoError(t, s.Refresh(t.Context()), "neither takes the other's dates for a rollback")
		})
	}
}
