package localkms_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/internal/testbed/fakeclock"
	"github.com/blobseal/blobseal/internal/testbed/seeds"
	"github.com/blobseal/blobseal/internal/testbed/visibility"
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
			fakeclock.Test(t, func(t *testing.T) { runVisibility(t, seed, failovers) })
		}
	})
}

func runVisibility(t *testing.T, seed uint64, failovers bool) {
	ctx := t.Context()
	fleet := &visibility.Fleet{
		Store: visibility.NewStore(keyring.NewMemStore(), seed), Length: time.Minute, Bound: visibility.Interval,
	}
	var keys []string
	fleet.Open = func(i int) (func(*rand.Rand), func(context.Context) error) {
		service, err := openOrCreate(ctx, fleet.Store, keyRoot(t, 1), &localkms.Options{Logger: quiet, RefreshInterval: visibility.Interval})
		require.NoError(t, err)
		c, err := service.Client("", "")
		require.NoError(t, err)
		if i == 0 {
			for range 3 {
				info, err := c.CreateKey(ctx, nil)
				require.NoError(t, err)
				keys = append(keys, info.ID)
			}
		}
		act := func(r *rand.Rand) {
			key, began := pick(r, keys), time.Now()
			if n := r.IntN(40); n < 2 {
				act := c.DisableKey
				if n == 0 {
					act = c.EnableKey
				}
				change := visibility.Change{Key: key, Serves: n == 0, Began: began}
				if act(ctx, key) == nil {
					change.Acked = time.Now()
				}
				fleet.History.Change(change)
				return
			}
			_, err := c.Encrypt(ctx, key, []byte("x"), nil)
			if err == nil || errors.Is(err, kms.ErrDisabled) {
				fleet.History.Use(visibility.Use{Process: visibility.Process(i), Key: key, Served: err == nil, Began: began, Ended: time.Now()})
			}
		}
		if i%2 == 0 || failovers { // without Run, only who is used heals
			return act, service.Run
		}
		return act, nil
	}
	fleet.Run(t, seed, failovers)
}
