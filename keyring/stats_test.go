package keyring_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/keyring"
)

// TestStats: the statistics count loads and rotations, and say how old the ring's knowledge
// of the store is.
func TestStats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newHooked()
		ring := create(t, store, nil)
		opened := time.Now()
		require.Equal(t, keyring.Stats{Generation: 1, Refreshed: opened}, ring.Stats())

		time.Sleep(time.Minute)
		require.NoError(t, ring.Refresh(t.Context()))
		require.Equal(t, time.Duration(0), time.Since(ring.Stats().Refreshed))
		rotate(t, ring)
		time.Sleep(time.Minute)

		store.down()
		require.ErrorIs(t, ring.Refresh(t.Context()), keyring.ErrStore)
		_, err := ring.Rotate(t.Context())
		require.ErrorIs(t, err, keyring.ErrStore)
		stats := ring.Stats()
		require.Equal(t, time.Minute, time.Since(stats.Refreshed))
		stats.Refreshed = time.Time{}
		require.Equal(t, keyring.Stats{Generation: 2, Refreshes: 1, RefreshFailures: 1, Rotations: 1, RotationFailures: 1}, stats)
	})
}
