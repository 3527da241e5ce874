package localkms_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/internal/bubble"
	"github.com/blobseal/blobseal/internal/seeds"
	"github.com/blobseal/blobseal/internal/visibility"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/localkms"
)

// TestVisibility has processes use, disable and enable keys at random, over a slow store,
// and checks when each change was visible to all of them: within RefreshInterval and the
// time of a load. With failovers that lose changes, no key serves after its disabling was
// acknowledged and the store had time to heal.
func TestVisibility(t *testing.T) {
	seeds.Run(t, 4, func(t *testing.T, seed uint64) {
		for _, failovers := range []bool{false, true} {
			bubble.Test(t, func(t *testing.T) { runVisibility(t, seed, failovers) })
		}
	})
}

// runVisibility is long because it runs a fleet, its users and its failovers at once.
func runVisibility(t *testing.T, seed uint64, failovers bool) {
	const (
		interval = time.Second
		slowest  = 200 * time.Millisecond
		length   = time.Minute
	)
	ctx, random := t.Context(), rand.New(rand.NewPCG(seed, 0))
	store := visibility.NewStore(keyring.NewMemStore(), seed, slowest)
	var h visibility.History
	var processes []*localkms.Client
	var keys []string
	var working sync.WaitGroup
	over := make(chan struct{})
	defer func() {
		close(over)
		working.Wait()
		time.Sleep(time.Minute) // until loads that are under way have ended
	}()
	for i := range 4 {
		service, err := openOrCreate(ctx, store, keyRoot(t, 1), &localkms.Options{Logger: quiet, RefreshInterval: interval})
		require.NoError(t, err)
		client, err := service.Client("", "")
		require.NoError(t, err)
		processes = append(processes, client)
		if i == 0 {
			for range 3 {
				info, err := client.CreateKey(ctx, nil)
				require.NoError(t, err)
				keys = append(keys, info.ID)
			}
		}
		if i%2 == 0 || failovers { // without Run, only who is used heals
			working.Go(func() { runUntil(over, service.Run) })
		}
	}
	end := time.Now().Add(length)
	for i, c := range processes {
		r := rand.New(rand.NewPCG(random.Uint64(), 0))
		working.Go(func() {
			for time.Now().Before(end) {
				time.Sleep(time.Duration(r.Int64N(int64(200 * time.Millisecond))))
				key := pick(r, keys)
				began := time.Now()
				switch n := r.IntN(40); {
				case n < 2:
					act := c.DisableKey
					if n == 0 {
						act = c.EnableKey
					}
					change := visibility.Change{Key: key, Serves: n == 0, Began: began}
					if act(ctx, key) == nil {
						change.Acked = time.Now()
					}
					h.Change(change)
				default:
					_, err := c.Encrypt(ctx, key, []byte("x"), nil)
					if err == nil || errors.Is(err, kms.ErrDisabled) {
						h.Use(visibility.Use{Process: fmt.Sprint("process ", i), Key: key, Served: err == nil, Began: began, Ended: time.Now()})
					}
				}
			}
		})
	}
	bound := interval + slowest
	if failovers {
		for time.Now().Before(end) {
			time.Sleep(10*time.Second + time.Duration(random.Int64N(int64(time.Second))))
			require.NoError(t, store.LoseWrites(ctx, 1+random.IntN(3)))
		}
		bound = 3*interval + 10*slowest // to learn of it, to heal, and to learn of that
	}
	time.Sleep(time.Until(end) + time.Second)
	require.NoError(t, h.CheckServed(bound))
	if !failovers { // an enabling of what the store had lost by then does not hold
		require.NoError(t, h.CheckRefused(bound))
	}
	require.Greater(t, h.Len(), 500)
}
