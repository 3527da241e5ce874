package keyringtest_test

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/keyring/keyringtest"
)

// TestStore: without faults, a Store fulfils the contract.
func TestStore(t *testing.T) {
	keyringtest.Run(t, func(*testing.T) keyring.Store { return keyringtest.NewStore() }, keyringtest.Capabilities{Watches: true})
}

// TestStoreFails: as many calls fail as a test asked for.
func TestStoreFails(t *testing.T) {
	ctx := t.Context()
	errDown := errors.New("down")
	s := keyringtest.NewStore()
	v1, err := s.Swap(ctx, "", []byte("one"))
	require.NoError(t, err)

	s.FailLoads(errDown, 1)
	_, _, err = s.Load(ctx)
	require.ErrorIs(t, err, errDown)
	s.FailSwaps(keyring.ErrConflict, 1)
	_, err = s.Swap(ctx, v1, []byte("two"))
	require.ErrorIs(t, err, keyring.ErrConflict)
	data, version, err := s.Load(ctx)
	require.NoError(t, err)
	require.Equal(t, "one", string(data))
	require.Equal(t, v1, version)

	s.LoseAnswers(errDown, 1)
	_, err = s.Swap(ctx, "wrong", []byte("two"))
	require.ErrorIs(t, err, keyring.ErrConflict, "only a swap that succeeds has an answer to lose")
	_, err = s.Swap(ctx, v1, []byte("two"))
	require.ErrorIs(t, err, errDown)
	data, _, err = s.Load(ctx)
	require.NoError(t, err)
	require.Equal(t, "two", string(data))
	require.Equal(t, 3, s.Loads())
	require.Equal(t, 4, s.Swaps())

	s.FailLoads(errDown, -1)
	for range 3 {
		_, _, err = s.Load(ctx)
		require.ErrorIs(t, err, errDown)
	}
	s.FailLoads(nil, 0)
	_, _, err = s.Load(ctx)
	require.NoError(t, err)
}

// TestNewRing makes rings in one line, each with its own root, which age by the test's clock.
func TestNewRing(t *testing.T) {
	require.NotEqual(t, keyringtest.NewRing(t, nil).ID(), keyringtest.NewRing(t, nil).ID())

	clock := keyringtest.NewClock()
	ring := keyringtest.NewRing(t, &keyring.Options{Period: time.Hour, Now: clock.Now})
	require.Equal(t, clock.Now(), ring.Versions()[0].Created.UTC())
	clock.Advance(time.Hour)
	rotated, err := ring.RotateIfDue(t.Context())
	require.NoError(t, err)
	require.True(t, rotated)
}
