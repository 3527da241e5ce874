package keyring_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/internal/testbed/fakeclock"
	"github.com/blobseal/blobseal/internal/testbed/seeds"
	"github.com/blobseal/blobseal/keyring"
)

// TestHistories runs random histories of several processes that share a ring, with
// faults of the store, failovers that lose writes, wrong clocks, changes of the root and
// processes that end. In the end a new process opens everything that was sealed, and no
// version that was disabled or destroyed is back. See [seeds.Run] for how to repeat a
// history, or to run for hours.
func TestHistories(t *testing.T) {
	seeds.Run(t, 10, func(t *testing.T, seed uint64) {
		fakeclock.Test(t, func(t *testing.T) { runHistory(t, seed) })
	})
}

// history is a ring, the processes that share it, and the results of their calls.
type history struct {
	t         *testing.T
	rng       *rand.Rand
	store     *hooked
	root      byte // the current root
	attempted byte // the root of the last call of ChangeRoot
	processes []*keyring.Ring
	witness   *keyring.Ring // knows what the store lost, and lives until it has healed that
	documents [][]byte      // that the store held

	sealed    []sealedKey
	destroyed map[string]bool // by a call that succeeded
	doomed    map[string]bool // by a call that succeeded, or may have
	disabled  map[string]bool // by a call that succeeded, and nobody tried to enable it since
}

type sealedKey struct {
	id    string
	bytes []byte
}

func runHistory(t *testing.T, seed uint64) {
	h := &history{t: t, rng: rand.New(rand.NewPCG(seed, 0)), store: newHooked(), root: 1, attempted: 1,
		destroyed: map[string]bool{}, doomed: map[string]bool{}, disabled: map[string]bool{}}
	ring, err := keyring.Create(t.Context(), h.store, keyRoot(t, 0x81), nil)
	require.NoError(t, err)
	h.processes = append(h.processes, ring)
	for range 300 {
		h.step()
		data, _, err := h.store.Store.Load(t.Context())
		require.NoError(t, err)
		h.documents = append(h.documents, data)
		synctest.Wait()
	}
	h.finish()
}

// step makes one random thing happen.
func (h *history) step() {
	ring := h.processes[h.rng.IntN(len(h.processes))]
	switch h.rng.IntN(16) {
	case 0:
		h.open()
	case 1:
		h.end(ring)
	case 2:
		h.fail()
	case 3:
		h.failover()
	case 4:
		h.changeRoot(ring)
	case 5:
		ring.Rotate(h.ctx())
	case 6:
		ring.SetPeriod(h.ctx(), time.Duration(1+h.rng.IntN(100))*day)
	case 7, 8, 9:
		h.setState(ring)
	case 10, 11:
		h.refresh(ring)
	case 12:
		time.Sleep(time.Duration(h.rng.IntN(60*24)) * time.Hour)
	default:
		h.seal(ring)
	}
}

// ctx returns a ctx that ends soon, because the store may stay down.
func (h *history) ctx() context.Context {
	ctx, cancel := context.WithTimeout(h.t.Context(), 5*time.Second)
	context.AfterFunc(ctx, cancel)
	return ctx
}

// open starts a process, whose clock may be wrong.
func (h *history) open() {
	if len(h.processes) >= 5 {
		return
	}
	skew := []time.Duration{0, 0, 0, time.Minute, -5 * time.Minute, 300 * day, -300 * day}[h.rng.IntN(7)]
	ring, err := keyring.Open(h.ctx(), h.store, keyRoot(h.t, 0x80+h.root), &keyring.Options{Now: skewed(skew)})
	if err == nil {
		h.processes = append(h.processes, ring)
	}
}

// end ends a process, unless only that process knows what the store lost.
func (h *history) end(ring *keyring.Ring) {
	if len(h.processes) < 2 || ring == h.witness || !h.refresh(ring) {
		return
	}
	for i, r := range h.processes {
		if r == ring {
			h.processes = append(h.processes[:i], h.processes[i+1:]...)
			return
		}
	}
}

// fail makes the store fail in some way, or work again.
func (h *history) fail() {
	switch h.rng.IntN(5) {
	case 0:
		h.store.down()
	case 1: // reads fail
		h.store.set(func(context.Context) error { return errDown }, nil)
	case 2: // some writes happen, and some of those are acknowledged
		happens, says := h.rng.IntN(2) == 0, h.rng.IntN(2) == 0
		h.store.set(nil, func(_ context.Context, swap func() error) error {
			var err error
			if happens {
				err = swap()
			}
			if err == nil && !(happens && says) {
				err = errDown
			}
			return err
		})
	default:
		h.store.up()
	}
}

// failover makes the store go back to a document that it held. One process knows what is
// lost by that.
func (h *history) failover() {
	if len(h.documents) == 0 || h.witness != nil && !h.refresh(h.witness) {
		return
	}
	witness := h.processes[h.rng.IntN(len(h.processes))]
	if !h.refresh(witness) {
		return
	}
	h.witness = witness
	recent := h.documents[max(0, len(h.documents)-50):]
	overwrite(h.t, h.store.Store, recent[h.rng.IntN(len(recent))])
}

// changeRoot moves the ring to another root. The other processes are told later.
func (h *history) changeRoot(ring *keyring.Ring) {
	h.attempted++
	if ring.ChangeRoot(h.ctx(), keyRoot(h.t, 0x80+h.attempted)) == nil {
		h.root = h.attempted
	}
}

// refresh refreshes a process, and reports whether the store then holds all that it knows.
// If the root is wrong, it calls ChangeRoot with those that may be right, as an operator would.
func (h *history) refresh(ring *keyring.Ring) bool {
	err := ring.Refresh(h.ctx())
	for root := h.attempted; root > 0; root-- {
		if errors.Is(err, keyring.ErrRoot) {
			if err = ring.ChangeRoot(h.ctx(), keyRoot(h.t, 0x80+root)); err == nil {
				h.root = root
			}
		}
	}
	if err != nil {
		return false
	}
	if ring == h.witness {
		h.witness = nil
	}
	return true
}

func (h *history) setState(ring *keyring.Ring) {
	versions := ring.Versions()
	v := versions[h.rng.IntN(len(versions))]
	to := []keyring.State{keyring.Enabled, keyring.Disabled, keyring.Disabled, keyring.Destroyed}[h.rng.IntN(4)]
	if to == keyring.Destroyed && h.rng.IntN(3) > 0 {
		to = keyring.Disabled
	}
	switch to { // even if the call fails
	case keyring.Enabled:
		delete(h.disabled, v.ID)
	case keyring.Destroyed:
		h.doomed[v.ID] = true
	}
	if _, err := ring.SetState(h.ctx(), v.ID, to); err != nil {
		return
	}
	switch to {
	case keyring.Disabled:
		h.disabled[v.ID] = true
	case keyring.Destroyed:
		h.destroyed[v.ID] = true
	}
}

func (h *history) seal(ring *keyring.Ring) {
	key, err := ring.Primary(h.ctx())
	if err != nil {
		return // refused
	}
	b, err := key.Seal([]byte("data key"), nil)
	require.NoError(h.t, err)
	h.sealed = append(h.sealed, sealedKey{key.ID(), b})
}

// finish makes the store work, lets the processes notice, and checks the result.
func (h *history) finish() {
	t := h.t
	h.store.up()
	time.Sleep(time.Minute)
	synctest.Wait()
	for range 3 { // a process that was never told of a root may be told in a later round
		for _, ring := range h.processes {
			if h.refresh(ring) {
				require.NoError(t, ring.ChangeRoot(h.ctx(), keyRoot(t, 0x80+h.root)))
			}
		}
	}
	fresh, err := keyring.Open(t.Context(), h.store, keyRoot(t, 0x80+h.root), nil)
	require.NoError(t, err)
	states := map[string]keyring.State{}
	for _, v := range fresh.Versions() {
		states[v.ID] = v.State
	}
	require.Less(t, len(states), 150, "clocks that disagree do not fill the ring")
	for _, ring := range h.processes {
		require.NoError(t, ring.Refresh(t.Context()))
		require.Equal(t, fresh.Versions(), ring.Versions(), "all agree")
		require.Equal(t, fresh.Period(), ring.Period())
	}
	for id := range h.destroyed {
		require.Contains(t, []keyring.State{"", keyring.Destroyed}, states[id], "%s was destroyed", id)
	}
	for id := range h.disabled {
		require.NotEqual(t, keyring.Enabled, states[id], "%s was disabled", id)
	}
	for _, s := range h.sealed {
		key, err := fresh.Key(t.Context(), s.id)
		if errors.Is(err, keyring.ErrDisabled) || errors.Is(err, keyring.ErrDestroyed) ||
			h.doomed[s.id] && errors.Is(err, keyring.ErrUnknownKey) { // its tombstone was removed
			continue
		}
		require.NoError(t, err)
		_, err = key.Open(s.bytes, nil)
		require.NoError(t, err)
	}
	time.Sleep(time.Minute) // until background work has ended
	synctest.Wait()
}
