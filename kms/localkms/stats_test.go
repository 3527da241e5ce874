package localkms_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/localkms"
)

// TestStats: the statistics count loads and rotations, by schedule and on demand.
func TestStats(t *testing.T) {
	store := &swapless{faultyStore: faultyStore{Store: keyring.NewMemStore()}}
	s := open(t, store, nil)
	id := s.key()
	before := s.Stats()
	require.WithinDuration(t, time.Now(), before.Refreshed, time.Hour)

	require.NoError(t, s.Refresh(t.Context()))
	require.Equal(t, before.Refreshes+1, s.Stats().Refreshes)
	_, err := s.RotateKey(t.Context(), id)
	require.NoError(t, err)
	require.NoError(t, s.EnableKeyRotation(t.Context(), id, localkms.MinRotationDays))
	s.clock.Advance(localkms.MinRotationDays * 24 * time.Hour)
	s.encrypt(id, "text", nil) // rotates what is due
	require.EqualValues(t, 2, s.Stats().Rotations)
	require.Zero(t, s.Stats().RotationFailures)

	store.refuse.Store(true)
	_, err = s.RotateKey(t.Context(), id)
	require.ErrorIs(t, err, kms.ErrUnavailable)
	_, err = s.RotateKey(t.Context(), "no such key")
	require.ErrorIs(t, err, kms.ErrNotFound)
	require.EqualValues(t, 1, s.Stats().RotationFailures, "a refusal is no failure")
	s.clock.Advance(localkms.MinRotationDays * 24 * time.Hour)
	s.encrypt(id, "text", nil)
	require.EqualValues(t, 2, s.Stats().RotationFailures)
	require.EqualValues(t, 2, s.Stats().Rotations)
}
