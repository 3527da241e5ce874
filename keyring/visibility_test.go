package keyring_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/internal/bubble"
	"github.com/blobseal/blobseal/internal/seeds"
	"github.com/blobseal/blobseal/internal/visibility"
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
			bubble.Test(t, func(t *testing.T) { runVisibility(t, seed, failovers) })
		}
	})
}

// visible is a run of TestVisibility.
type visible struct {
	t         *testing.T
	failovers bool
	history   visibility.History

	mu  sync.Mutex
	ids []string // of versions whose rotation was acknowledged; the first is old
}

func runVisibility(t *testing.T, seed uint64, failovers bool) {
	const (
		interval = time.Second
		slowest  = 200 * time.Millisecond
		length   = 30 * time.Second
	)
	ctx, random := t.Context(), rand.New(rand.NewPCG(seed, 0))
	store := visibility.NewStore(keyring.NewMemStore(), seed, slowest)
	v := &visible{t: t, failovers: failovers}
	var working sync.WaitGroup
	running, stop := context.WithCancel(context.Background())
	defer func() {
		stop()
		working.Wait()
		time.Sleep(time.Minute) // until loads that are under way have ended
	}()
	end := time.Now().Add(length)
	for i := range 4 {
		open := keyring.Open
		if i == 0 {
			open = keyring.Create
		}
		ring, err := open(ctx, store, keyRoot(t, 1), &keyring.Options{RefreshInterval: interval, Logger: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		if i == 0 {
			for range 2 {
				v.ids = append(v.ids, primary(t, ring))
				rotate(t, ring)
			}
		}
		r := rand.New(rand.NewPCG(random.Uint64(), 0))
		working.Go(func() { ring.Run(running) })
		working.Go(func() {
			for time.Now().Before(end) {
				time.Sleep(time.Duration(r.Int64N(int64(200 * time.Millisecond))))
				v.act(r, fmt.Sprint("process ", i), ring)
			}
		})
	}
	bound := interval + interval/5 + 2*slowest
	if failovers {
		for time.Now().Before(end) {
			time.Sleep(10*time.Second + time.Duration(random.Int64N(int64(time.Second))))
			require.NoError(t, store.LoseWrites(ctx, 1+random.IntN(3)))
		}
		bound = 3*interval + 10*slowest // to learn of it, to heal, and to learn of that
	}
	time.Sleep(time.Until(end) + time.Second)
	require.NoError(t, v.history.CheckServed(bound))
	if !failovers { // an enabling of what the store had lost by then does not hold
		require.NoError(t, v.history.CheckRefused(bound))
	}
	require.Greater(t, v.history.Len(), 500)
}

// act has a process do one random thing.
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
		v.history.Change(change)
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
			v.history.Use(visibility.Use{Process: process, Key: id, Served: err == nil, Began: began, Ended: time.Now()})
		}
	}
}
