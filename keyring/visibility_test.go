package keyring_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/internal/testbed/fakeclock"
	"github.com/blobseal/blobseal/internal/testbed/seeds"
	"github.com/blobseal/blobseal/internal/testbed/visibility"
	"github.com/blobseal/blobseal/keyring"
)

// TestVisibility has processes use, disable and enable versions at random, over a slow
// store, and checks when each change was visible to all of them: Run refreshes within
// RefreshInterval, give or take a fifth, and the time of a load. New versions are found at
// once. With failovers that lose changes, no version opens after its disabling was
// acknowledged and the store had time to heal.
func TestVisibility(t *testing.T) {
	seeds.Run(t, 2, func(t *testing.T, seed uint64) {
		for _, failovers := range []bool{false, true} {
			fakeclock.Test(t, func(t *testing.T) { runVisibility(t, seed, failovers) })
		}
	})
}

// visible is a run of TestVisibility.
type visible struct {
	t         *testing.T
	failovers bool
	fleet     visibility.Fleet

	mu  sync.Mutex
	ids []string // of versions whose rotation was acknowledged; the first is old
}

func runVisibility(t *testing.T, seed uint64, failovers bool) {
	v := &visible{t: t, failovers: failovers, fleet: visibility.Fleet{
		Store: visibility.NewStore(keyring.NewMemStore(), seed), Length: 30 * time.Second,
		Bound: visibility.Interval + visibility.Interval/5 + 200*time.Millisecond, // a refresh may be running
	}}
	v.fleet.Open = v.open
	v.fleet.Run(t, seed, failovers)
}

func (v *visible) open(i int) (func(*rand.Rand), func(context.Context) error) {
	open := keyring.Open
	if i == 0 {
		open = keyring.Create
	}
	ring, err := open(v.t.Context(), v.fleet.Store, keyRoot(v.t, 1), &keyring.Options{RefreshInterval: visibility.Interval})
	require.NoError(v.t, err)
	if i == 0 {
		for range 2 {
			v.ids = append(v.ids, primary(v.t, ring))
			rotate(v.t, ring)
		}
	}
	return func(r *rand.Rand) { v.act(r, visibility.Process(i), ring) }, ring.Run
}

// act makes a process do one random thing.
func (v *visible) act(r *rand.Rand, process string, ring *keyring.Ring) {
	ctx, began := v.t.Context(), time.Now()
	v.mu.Lock()
	id := v.ids[r.IntN(len(v.ids))]
	v.mu.Unlock()
	switch n := r.IntN(40); n {
	case 0, 1, 2:
		state := keyring.Disabled
		if n == 0 {
			state = keyring.Enabled
		}
		change := visibility.Change{Key: id, Serves: n == 0, Began: began}
		_, err := ring.SetState(ctx, id, state)
		switch {
		case err == nil:
			change.Acked = time.Now()
		case errors.Is(err, keyring.ErrPrimary):
			return
		}
		v.fleet.History.Change(change)
	case 3:
		if len(ring.Versions()) >= 5 {
			return
		}
		if info, err := ring.Rotate(ctx); err == nil {
			v.mu.Lock()
			v.ids = append(v.ids, info.ID)
			v.mu.Unlock()
		}
	default:
		_, err := ring.Key(ctx, id)
		if !v.failovers {
			require.NotErrorIs(v.t, err, keyring.ErrUnknownKey, "%s was acknowledged before", id)
		}
		if err == nil || errors.Is(err, keyring.ErrDisabled) {
			v.fleet.History.Use(visibility.Use{Process: process, Key: id, Served: err == nil, Began: began, Ended: time.Now()})
		}
	}
}
