package localkms_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/internal/testbed/seeds"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/localkms"
)

// TestHistories runs random histories of several processes over one store, with
// faults in the store and wrong clocks, and compares what the processes say with a
// model. See [seeds.Run] for how to run one again, or for hours.
func TestHistories(t *testing.T) {
	seeds.Run(t, 12, func(t *testing.T, seed uint64) {
		synctest.Test(t, func(t *testing.T) { runHistory(t, seed, 250) })
	})
}

// historyProcess is one process. Its clock is off by skew.
type historyProcess struct {
	*localkms.Service
	*localkms.Client
	skew time.Duration
}

// history is a history under way.
type history struct {
	t          *testing.T
	rand       *rand.Rand
	store      *historyStore
	processes  []*historyProcess
	keys       []*modelKey
	aliases    map[string]string // to key ids
	latest     time.Time         // the latest time on any clock that was used
	failedOver bool
	log        []string
	acting     *historyProcess
}

const (
	historyInterval  = time.Second
	historyStaleness = 30 * time.Second
	lockedPolicy     = `permit (principal == Principal::"admin", action, resource);`
)

func runHistory(t *testing.T, seed uint64, steps int) {
	h := &history{
		t: t, rand: rand.New(rand.NewPCG(seed, 0)), aliases: make(map[string]string),
		store: new(historyStore),
	}
	defer func() {
		if t.Failed() {
			t.Logf("BLOBSEAL_SEED=%d; the last steps: %q", seed, h.log[max(0, len(h.log)-12):])
		}
	}()
	for range 3 {
		p := new(historyProcess)
		h.processes = append(h.processes, p)
		h.open(p)
	}
	for range steps {
		h.step()
	}
	h.store.heal()
	h.verify()
	time.Sleep(time.Minute) // until loads that hang have ended
}

func (h *history) note(format string, args ...any) {
	h.log = append(h.log, fmt.Sprintf(format, args...))
}

// clock returns a process's time, and notes that it was used.
func (h *history) clock(p *historyProcess) time.Time {
	now := time.Now().Add(p.skew)
	if now.After(h.latest) {
		h.latest = now
	}
	return now
}

func (h *history) open(p *historyProcess) {
	h.store.heal()
	h.openIn(p, h.store)
}

func (h *history) openIn(p *historyProcess, store keyring.Store) {
	service, err := openOrCreate(h.t.Context(), store, keyRoot(h.t, 1), &localkms.Options{
		Now: func() time.Time { return h.clock(p) }, Logger: quiet,
		RefreshInterval: historyInterval, MaxStaleness: historyStaleness,
	})
	require.NoError(h.t, err)
	client, err := service.Client("", "")
	require.NoError(h.t, err)
	p.Service, p.Client = service, client
}

func (h *history) ctx(who string) context.Context {
	return kms.WithPrincipal(context.Background(), kms.Principal{ID: who})
}

func pick[T any](r *rand.Rand, from []T) T { return from[r.IntN(len(from))] }

// step does one random thing.
func (h *history) step() {
	p := pick(h.rand, h.processes)
	h.acting = p
	switch n := h.rand.IntN(100); {
	case n < 50:
		h.change(p)
	case n < 75:
		h.use(p)
	case n < 80:
		d := time.Duration(h.rand.Int64N(int64(3 * 24 * time.Hour)))
		h.note("sleep %v", d)
		time.Sleep(d)
	case n < 83:
		p.skew = time.Duration(h.rand.Int64N(int64(4*time.Hour))) - 2*time.Hour
		h.note("clock off by %v", p.skew)
	case n < 86:
		h.note("restart")
		h.open(p)
	case n < 94:
		h.fault()
	case n < 97:
		h.failOver(p)
	default:
		h.verify()
	}
}

// fault breaks the store, or mends it.
func (h *history) fault() {
	h.store.heal()
	switch h.rand.IntN(6) {
	case 0:
		h.note("store down")
		h.store.down = true
	case 1:
		h.note("a load fails")
		h.store.failLoad = true
	case 2:
		h.note("a swap fails")
		h.store.failSwap = true
	case 3:
		h.note("an answer is lost")
		h.store.loseSwap = true
	case 4:
		other := h.rand.IntN(len(h.processes) - 1)
		h.store.before = func() { // of the process that acts: another one acts first
			h.note("meanwhile:")
			h.change(slices.DeleteFunc(slices.Clone(h.processes), func(p *historyProcess) bool { return p == h.acting })[other])
		}
	}
}

// failOver has the store lose writes. A process may write on before those that
// know more find out. Nothing that was acknowledged is lost, since they all live.
func (h *history) failOver(p *historyProcess) {
	h.verify()
	writes := 1 + h.rand.IntN(4)
	h.note("the store loses %d writes", writes)
	h.store.goBack(h.t, writes)
	h.failedOver = true
	if h.rand.IntN(2) == 0 {
		lagging := new(historyProcess)
		h.open(lagging)
		h.create(lagging)
	}
	if h.rand.IntN(2) == 0 {
		h.create(p)
	}
	for range 2 {
		for _, p := range h.processes {
			require.NoError(h.t, p.Refresh(h.ctx("")))
		}
	}
	h.verify()
}

// change makes a random change at a process, as the administrator.
func (h *history) change(p *historyProcess) {
	ctx := h.ctx("admin")
	if len(h.keys) == 0 || h.rand.IntN(10) == 0 && len(h.keys) < 12 {
		h.create(p)
		return
	}
	k := pick(h.rand, h.keys)
	switch h.rand.IntN(10) {
	case 0, 1:
		h.apply("disable", k, p.DisableKey(ctx, k.id), k.state == localkms.PendingDeletion, func(k *modelKey) { k.state = localkms.Disabled })
	case 2, 3:
		h.apply("enable", k, p.EnableKey(ctx, k.id), k.state == localkms.PendingDeletion, func(k *modelKey) { k.state = localkms.Enabled })
	case 4:
		deletion, err := p.ScheduleKeyDeletion(ctx, k.id, 7)
		h.apply("schedule deletion", k, err, k.state == localkms.PendingDeletion, func(k *modelKey) {
			k.state, k.deadline = localkms.PendingDeletion, deletion
		})
	case 5:
		h.apply("cancel deletion", k, p.CancelKeyDeletion(ctx, k.id), k.state != localkms.PendingDeletion, func(k *modelKey) {
			k.state, k.cancelled = localkms.Disabled, append(slices.Clip(k.cancelled), k.deadline)
		})
	case 6:
		if h.rand.IntN(2) == 0 {
			h.apply("lock", k, p.PutKeyPolicy(ctx, k.id, lockedPolicy, nil), k.state == localkms.PendingDeletion, func(k *modelKey) { k.locked = true })
		} else {
			h.apply("unlock", k, p.DeleteKeyPolicy(ctx, k.id), k.state == localkms.PendingDeletion, func(k *modelKey) { k.locked = false })
		}
	case 7:
		g, err := p.CreateGrant(ctx, k.id, &localkms.CreateGrantInput{Grantee: "guest", Operations: []kms.Operation{localkms.OpEncrypt, kms.OpDecrypt}})
		h.apply("grant", k, err, k.state == localkms.PendingDeletion, func(k *modelKey) {
			if g != nil {
				k.grants[g.ID] = struct{}{}
			} else {
				k.grants["?"] = struct{}{} // its id is learned when it is seen
			}
		})
	case 8:
		if len(k.grants) == 0 {
			return
		}
		id := pick(h.rand, slices.Sorted(maps.Keys(k.grants)))
		h.apply("revoke", k, p.RevokeGrant(ctx, k.id, id), false, func(k *modelKey) { delete(k.grants, id) })
	case 9:
		_, err := p.RotateKey(ctx, k.id)
		h.apply("rotate", k, err, k.state != localkms.Enabled, func(k *modelKey) { k.versions++ })
	}
}

func (h *history) create(p *historyProcess) {
	info, err := p.CreateKey(h.ctx("admin"), &localkms.CreateKeyInput{RotationDays: 90})
	h.note("create: %v", err)
	if err != nil {
		require.ErrorIs(h.t, err, kms.ErrUnavailable)
		h.adoptUnknown()
		return
	}
	h.keys = append(h.keys, &modelKey{id: info.ID, state: localkms.Enabled, grants: map[string]struct{}{}, versions: 1})
}

// observer opens the store as a new process does.
func (h *history) observer() *localkms.Client {
	p := new(historyProcess)
	h.openIn(p, &h.store.Store) // which has no faults
	return p.Client
}

// use uses a key at a process, as the guest.
func (h *history) use(p *historyProcess) {
	if len(h.keys) == 0 {
		return
	}
	k := pick(h.rand, h.keys)
	if !h.store.down {
		time.Sleep(2*historyInterval + 100*time.Millisecond) // what the process knows is old, and a failed load forgotten
		h.store.heal()
	}
	ctx := h.ctx("guest")
	var err error
	if len(k.ciphertexts) > 0 && h.rand.IntN(2) == 0 {
		ciphertext := pick(h.rand, k.ciphertexts)
		var plaintext []byte
		plaintext, err = p.Decrypt(ctx, k.id, ciphertext, nil)
		if err == nil {
			require.Equal(h.t, k.id, string(plaintext))
		}
	} else {
		var ciphertext []byte
		ciphertext, err = p.Encrypt(ctx, k.id, []byte(k.id), nil)
		if err == nil {
			k.ciphertexts = append(k.ciphertexts, ciphertext)
		}
	}
	h.note("use %.8s: %v", k.id, err)
	if err == nil && !k.usableUntil.IsZero() {
		require.Less(h.t, time.Since(k.usableUntil), historyStaleness+historyInterval, "served long after it was taken away")
	}
	if h.store.down {
		return
	}
	require.ErrorIs(h.t, err, h.wantUse(p, k))
}

// verify compares what each process and a new one know with the model, and opens
// all ciphertexts.
func (h *history) verify() {
	h.note("verify")
	h.store.heal()
	time.Sleep(2 * historyInterval)
	clients := []*localkms.Client{h.observer()}
	for _, p := range h.processes {
		require.NoError(h.t, p.Refresh(h.ctx("")))
		clients = append(clients, p.Client)
	}
	for _, c := range clients {
		for _, k := range h.keys {
			require.NoError(h.t, h.compare(c, k))
			for _, ciphertext := range k.ciphertexts {
				plaintext, err := c.Decrypt(h.ctx("admin"), k.id, ciphertext, nil)
				switch {
				case err == nil:
					require.Equal(h.t, k.id, string(plaintext))
					require.Equal(h.t, localkms.Enabled, k.state)
				case errors.Is(err, kms.ErrNotFound):
					require.True(h.t, h.mayBeGone(k))
				default:
					require.NotEqual(h.t, localkms.Enabled, k.state, "%v", err)
				}
			}
		}
	}
	h.keys = slices.DeleteFunc(h.keys, func(k *modelKey) bool {
		_, err := clients[0].DescribeKey(h.ctx("admin"), k.id)
		return errors.Is(err, kms.ErrNotFound)
	})
}
