package localkms_test

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/internal/testbed/captured"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/cache"
	"github.com/blobseal/blobseal/kms/localkms"
)

// watched is a store that can watch, whose watches can be broken and whose loads
// fail or hang when told to.
type watched struct {
	keyring.Store
	begun atomic.Int64 // number of watches that began
	load  atomic.Pointer[func(context.Context) error]

	mu     sync.Mutex
	err    error // of watches
	cancel context.CancelCauseFunc
	loads  []time.Time
}

// fail breaks the watch that is under way and has those that follow fail at
// once, until it is called with nil.
func (w *watched) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.err = err
	if w.cancel != nil && err != nil {
		w.cancel(err)
	}
}

func (w *watched) Watch(ctx context.Context, changed func()) error {
	w.begun.Add(1)
	w.mu.Lock()
	if w.err != nil {
		defer w.mu.Unlock()
		return w.err
	}
	ctx, w.cancel = context.WithCancelCause(ctx)
	w.mu.Unlock()
	w.Store.(keyring.Watcher).Watch(ctx, changed)
	return context.Cause(ctx)
}

func (w *watched) Load(ctx context.Context) ([]byte, string, error) {
	w.mu.Lock()
	w.loads = append(w.loads, time.Now())
	w.mu.Unlock()
	if f := w.load.Load(); f != nil {
		if err := (*f)(ctx); err != nil {
			return nil, "", err
		}
	}
	return w.Store.Load(ctx)
}

// onLoad has f decide what becomes of loads; nil lets them be.
func (w *watched) onLoad(f func(context.Context) error) {
	if f == nil {
		w.load.Store(nil)
	} else {
		w.load.Store(&f)
	}
}

// take returns the times of the loads since the last call.
func (w *watched) take() []time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	loads := w.loads
	w.loads = nil
	return loads
}

// replica opens the service in store again, by the clock of the bubble, and runs it
// until the test ends. It then waits for it, and whatever it left behind would
// keep the bubble from ending.
func replica(t *testing.T, store keyring.Store, change func(*localkms.Options)) *service {
	t.Helper()
	s := open(t, store, func(o *localkms.Options) {
		o.Now = time.Now
		if change != nil {
			change(o)
		}
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.ErrorIs(t, <-ended, context.Canceled)
		synctest.Wait()
	})
	return s
}

func refreshHourly(o *localkms.Options) { o.RefreshInterval = time.Hour }

// What one process changes is in force in all others within a tenth of a second,
// through a warm cache too, although they would ask for it by themselves in an hour.
// They do not ask at one moment, and ask once for any number of changes. The test is
// long because it is one history of one fleet.
func TestRunHearsOfChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		admin := open(t, nil, func(o *localkms.Options) { o.Now = time.Now })
		id, kept := admin.key(), admin.key()
		const replicas = 20
		var all []*service
		var stores []*watched
		var caches []kms.Client
		for range replicas {
			store := &watched{Store: admin.store}
			r := replica(t, store, refreshHourly)
			all, stores = append(all, r), append(stores, store)
			caches = append(caches, cache.New(r.Client, nil))
		}
		time.Sleep(time.Second) // they load once when the watch begins
		loads := func() (all []time.Time) {
			for _, s := range stores {
				all = append(all, s.take()...)
			}
			return all
		}
		loads()
		use := func(p string, c kms.Client) error {
			_, err := c.GenerateDataKey(as(t, p), id, kms.Context{"a": "b"})
			return err
		}
		everywhere := func(p string, want error) {
			t.Helper()
			time.Sleep(100 * time.Millisecond)
			for i := range all {
				for _, c := range []kms.Client{all[i], caches[i]} {
					if err := use(p, c); want == nil {
						require.NoError(t, err)
					} else {
						isKind(t, want, err)
					}
				}
			}
		}
		everywhere("user", nil)

		start := time.Now()
		require.NoError(t, admin.DisableKey(t.Context(), id))
		everywhere("user", kms.ErrDisabled)
		times := loads()
		require.Len(t, times, replicas)
		distinct := make(map[time.Duration]bool)
		for _, at := range times {
			require.Less(t, at.Sub(start), 100*time.Millisecond)
			distinct[at.Sub(start).Truncate(4*time.Millisecond)] = true
		}
		require.Greater(t, len(distinct), replicas/3, "loads are spread")

		require.NoError(t, admin.EnableKey(t.Context(), id))
		everywhere("user", nil)
		require.NoError(t, admin.PutKeyPolicy(as(t, "admin"), id, `
			permit (principal == Principal::"admin", action, resource);
			permit (principal == Principal::"other", action, resource);`, nil))
		everywhere("user", kms.ErrDenied)
		everywhere("other", nil)
		grant, err := admin.CreateGrant(as(t, "admin"), id, &localkms.CreateGrantInput{
			Grantee: "user", Operations: []kms.Operation{kms.OpGenerateDataKey}})
		require.NoError(t, err)
		everywhere("user", nil)
		require.NoError(t, admin.RevokeGrant(as(t, "admin"), id, grant.ID))
		everywhere("user", kms.ErrDenied)
		_, err = admin.ScheduleKeyDeletion(as(t, "admin"), id, 7)
		require.NoError(t, err)
		everywhere("other", kms.ErrPendingDeletion)

		loads()
		for range 100 {
			_, err := admin.RotateKey(t.Context(), kept)
			require.NoError(t, err)
		}
		time.Sleep(100 * time.Millisecond)
		for _, r := range all {
			require.Equal(t, admin.Stats().Generation, r.Stats().Generation)
		}
		require.LessOrEqual(t, len(loads()), 2*replicas, "many changes are one load")
	})
}

// A watch that breaks is reported and begun again, less and less often. Meanwhile
// changes are seen by interval, and afterwards nothing was missed.
func TestRunWhileTheWatchIsBroken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var said captured.Buffer
		admin := open(t, nil, func(o *localkms.Options) { o.Now = time.Now })
		id := admin.key()
		store := &watched{Store: admin.store}
		r := replica(t, store, func(o *localkms.Options) {
			o.RefreshInterval, o.Logger = 10*time.Minute, textLogger(&said)
		})
		synctest.Wait()
		require.EqualValues(t, 1, store.begun.Load())

		store.fail(errDown)
		time.Sleep(time.Hour)
		require.InDelta(t, 60+6, store.begun.Load(), 30, "attempts in an hour")
		require.Contains(t, said.String(), "watch of the store broke")
		require.Contains(t, said.String(), errDown.Error())
		require.NotContains(t, said.String(), "refresh failed")

		require.NoError(t, admin.DisableKey(t.Context(), id))
		time.Sleep(10 * time.Minute)
		require.Equal(t, admin.Stats().Generation, r.Stats().Generation, "found by interval")

		require.NoError(t, admin.EnableKey(t.Context(), id))
		store.fail(nil)
		time.Sleep(time.Minute + 100*time.Millisecond) // the longest pause, and the spread
		require.Equal(t, admin.Stats().Generation, r.Stats().Generation, "found when the watch began again")
		require.NoError(t, admin.DisableKey(t.Context(), id))
		time.Sleep(100 * time.Millisecond)
		require.Equal(t, admin.Stats().Generation, r.Stats().Generation, "heard")
	})
}

func TestRunWithAStoreThatCannotWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var said captured.Buffer
		admin := open(t, nil, func(o *localkms.Options) { o.Now = time.Now })
		id := admin.key()
		store := &watched{Store: admin.store}
		store.fail(errors.ErrUnsupported)
		r := replica(t, store, func(o *localkms.Options) { o.Logger = textLogger(&said) })
		require.NoError(t, admin.DisableKey(t.Context(), id))
		time.Sleep(time.Second)
		require.Equal(t, admin.Stats().Generation, r.Stats().Generation)
		time.Sleep(time.Hour)
		require.EqualValues(t, 1, store.begun.Load())
		require.Empty(t, said.String())
	})
}

// A change whose load fails is not forgotten until the next interval, and an
// outage is reported at its end as well.
func TestRunThroughAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var said captured.Buffer
		admin := open(t, nil, func(o *localkms.Options) { o.Now = time.Now })
		id := admin.key()
		store := &watched{Store: admin.store}
		r := replica(t, store, func(o *localkms.Options) {
			o.RefreshInterval, o.Logger = time.Hour, textLogger(&said)
		})
		time.Sleep(time.Second)
		store.onLoad(func(context.Context) error { return errDown })
		require.NoError(t, admin.DisableKey(t.Context(), id))
		time.Sleep(5 * time.Second)
		require.Contains(t, said.String(), "refresh failed")
		require.NotEqual(t, admin.Stats().Generation, r.Stats().Generation)
		store.onLoad(nil)
		time.Sleep(10 * time.Second)
		require.Equal(t, admin.Stats().Generation, r.Stats().Generation)
		require.Equal(t, 1, strings.Count(said.String(), "refresh works again"))
	})
}

// A load that hangs holds Run up for a while, not for ever, and nobody else.
func TestRunWithALoadThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		admin := open(t, nil, func(o *localkms.Options) { o.Now = time.Now })
		id := admin.key()
		store := &watched{Store: admin.store}
		r := replica(t, store, nil)
		time.Sleep(time.Second)
		store.onLoad(func(ctx context.Context) error {
			<-ctx.Done()
			return errors.New("deaf")
		})
		store.take()
		time.Sleep(time.Second)
		require.Len(t, store.take(), 1, "Run is in it")
		began := time.Now()
		_, err := r.GenerateDataKey(t.Context(), id, nil)
		require.NoError(t, err)
		require.Zero(t, time.Since(began))
		store.onLoad(nil)
		require.NoError(t, admin.DisableKey(t.Context(), id))
		time.Sleep(11 * time.Second) // until it gives that one up, and the next
		require.Equal(t, admin.Stats().Generation, r.Stats().Generation)
	})
}

// Intervals of any length are waited for, and not computed beyond what a
// duration holds.
func TestRunSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		admin := open(t, nil, func(o *localkms.Options) { o.Now = time.Now })
		store := &watched{Store: admin.store}
		store.fail(errors.ErrUnsupported)
		replica(t, store, func(o *localkms.Options) {
			o.RefreshInterval, o.Logger = math.MaxInt64, slog.New(slog.DiscardHandler)
		})
		store.take()
		time.Sleep(1000 * time.Hour)
		require.Empty(t, store.take())
	})
}
