package jobs_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	gcblob "gocloud.dev/blob"
	"gocloud.dev/gcerrors"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/blob/internal/blobtest"
	"github.com/blobseal/blobseal/blob/jobs"
	"github.com/blobseal/blobseal/internal/testbed/seeds"
	"github.com/blobseal/blobseal/internal/testbed/ssetest"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms/localkms"
	"github.com/blobseal/blobseal/sse"
)

// TestHistory runs random histories of writes, deletes, copies, reads, rotations and
// jobs on one bucket, its ring and a key service. At each request to the store, another
// operation may run, the request may fail, with or without effect, or the process may
// die. The key service is the embedded one: its key is disabled, enabled and rotated, its
// document is in a store that fails too, and it is down at times. The clock jumps. A model
// knows what each key may hold. At the end of a history, a new process with nothing in memory reads
// everything.
//
// A history follows from its seed alone, which a failure prints and
// BLOBSEAL_SEED replays. BLOBSEAL_STRESS, such as 1h, is how long to go on.
func TestHistory(t *testing.T) {
	if text := os.Getenv("BLOBSEAL_SEED"); text != "" {
		seed, err := strconv.ParseUint(text, 10, 64)
		require.NoError(t, err)
		runHistory(t, seed)
		return
	}
	histories, ops := 0, 0
	for until := time.Now().Add(seeds.StressTime(t, time.Second)); histories < 20 || time.Now().Before(until); histories++ {
		seed := rand.Uint64()
		ops += runHistory(t, seed)
		if t.Failed() {
			return
		}
	}
	t.Logf("%d histories of %d operations", histories, ops)
}

// history is one random history.
type history struct {
	*testing.T
	seed   uint64
	mu     sync.Mutex // guards rng, clock and latest
	rng    *rand.Rand
	clock  time.Time
	latest time.Time // that the clock has shown
	inner  *gcblob.Bucket
	rings  *flakyRing
	keys   *flakyRing // the document of the key service
	kmsID  string     // its key
	ssec   *sse.Customer
	depth  int      // operations within operations
	outer  []string // keys of the outermost operation, unless it is a job
	log    []string
	ops    int

	proc  *process
	model map[string][]string // key -> contents that it may hold; "" in it means that it may be absent
	spent map[string]bool     // contents that were given out
}

// process is what one process has in memory.
type process struct {
	ring    *keyring.Ring
	service *localkms.Client
	kms     *sse.KMS
	b       *blob.Bucket
	dead    bool // no request of it has any effect
}

const absent = ""

// chance is true once in n times.
func (h *history) chance(n int) bool { return h.intn(n) == 0 }

// intn returns a random number below n. A rotation by age may ask for one while the
// operation that began it waits.
func (h *history) intn(n int) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.rng.IntN(n)
}

// now is the clock of every process. It jumps.
func (h *history) now() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.clock
}

// jump moves the clock, by months at times, and mostly forward.
func (h *history) jump() {
	days := h.intn(200) - 50
	h.mu.Lock()
	h.clock = h.clock.Add(time.Duration(days) * 24 * time.Hour)
	h.latest = maxTime(h.latest, h.clock)
	h.mu.Unlock()
	h.note("the clock jumps by %d days", days)
}

func maxTime(x, y time.Time) time.Time {
	if x.After(y) {
		return x
	}
	return y
}

func (h *history) note(format string, args ...any) {
	h.log = append(h.log, strings.Repeat("  ", h.depth)+fmt.Sprintf(format, args...))
}

// fail ends the test with the history and its seed.
func (h *history) fail(format string, args ...any) {
	h.Helper()
	h.Fatalf("seed %d: %s\n%s", h.seed, fmt.Sprintf(format, args...), strings.Join(h.log, "\n"))
}

func runHistory(t *testing.T, seed uint64) int {
	h := &history{
		T: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 0)), inner: blobtest.NewMem(t),
		ssec: ssetest.NewCustomer(t, 1), model: make(map[string][]string), spent: make(map[string]bool),
	}
	h.clock = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	h.latest = h.clock
	h.rings, h.keys = &flakyRing{keyring.NewMemStore(), h}, &flakyRing{keyring.NewMemStore(), h}
	h.start(true)
	for range 60 {
		h.ops++
		if h.chance(10) {
			h.jump()
		}
		h.step()
		if h.proc.dead {
			h.note("a new process")
			h.start(false)
		}
	}
	h.verify()
	return h.ops
}

// start begins a process.
func (h *history) start(create bool) {
	root, err := keyring.NewKeyRoot(blobtest.Content(32))
	require.NoError(h, err)
	h.proc = nil // nothing fails meanwhile
	p := new(process)
	quiet := slog.New(slog.DiscardHandler)
	if create {
		_, err = keyring.Create(ctx, h.rings.Store, root, &keyring.Options{Logger: quiet, Now: h.now})
		require.NoError(h, err)
		service, err := localkms.Create(ctx, h.keys.Store, root, &localkms.Options{Logger: quiet, Now: h.now})
		require.NoError(h, err)
		client, err := service.Client("", "")
		require.NoError(h, err)
		key, err := client.CreateKey(ctx, nil)
		require.NoError(h, err)
		h.kmsID = key.ARN
	}
	p.ring, err = keyring.Open(ctx, h.rings, root, &keyring.Options{Logger: quiet, Now: h.now})
	require.NoError(h, err)
	service, err := localkms.Open(ctx, h.keys, root, &localkms.Options{Logger: quiet, Now: h.now})
	require.NoError(h, err)
	p.service, err = service.Client("", "")
	require.NoError(h, err)
	p.kms, err = sse.NewKMS(flakyKMS{p.service, h}, h.kmsID, nil)
	require.NoError(h, err)
	store, outer := rig(h, h.inner)
	store.set(func(op, key string) error { return h.interfere(p, op, key) })
	p.b = blobtest.NewBucketWith(h, outer, sse.NewManaged(p.ring), &blob.Options{
		AllowPlain: true,
		Decrypters: sse.ByMode{sse.ModeKMS: p.kms, sse.ModeCustomer: h.ssec},
		Policy:     blob.Policy{AllowCustomerKeys: true},
	})
	h.proc = p
}

// interfere runs before each request of p to the store.
func (h *history) interfere(p *process, op, key string) error {
	switch {
	case p.dead:
		return errDead
	case h.depth == 0: // of a check of the model
		return nil
	case h.chance(400):
		p.dead = true
		h.note("the process dies at %s %s", op, key)
		return errDead
	case h.chance(150):
		h.note("%s %s fails", op, key)
		return errRigged
	case h.depth == 1 && h.chance(25):
		h.ops++
		h.step(h.locked(op, key)...)
	}
	return nil
}

var keys = []string{"a", "b", "dir/c", "dir/d", "e"}

// step does one operation, on other keys than those.
func (h *history) step(avoid ...string) {
	h.depth++
	defer func() { h.depth-- }()
	key := keys[h.intn(len(keys))]
	src := keys[h.intn(len(keys))]
	if slices.Contains(avoid, key) || slices.Contains(avoid, src) {
		return
	}
	nested := h.depth > 1
	if !nested {
		h.outer = nil
	}
	switch n := h.intn(21); {
	case n < 6:
		h.write(key)
	case n < 8:
		h.remove(key)
	case n < 9:
		h.writePlain(key)
	case n < 11:
		h.copyObject(src, key)
	case n < 13:
		h.read(key)
	case n < 15:
		_, err := h.proc.ring.Rotate(ctx)
		h.note("rotate: %v", err)
	case n < 16:
		h.changeKey()
	case nested:
	case n < 19:
		to := []sse.Cipher{nil, h.proc.kms, h.ssec, sse.NewManaged(h.proc.ring)}[h.intn(4)]
		report, err := jobs.Rewrap(ctx, h.proc.b, &jobs.RewrapOptions{To: to, Force: h.chance(3), Job: jobs.Job{Workers: 1}})
		h.note("rewrap: %v: %v", report, err)
		h.mustBeWhole(report, err)
	case n < 20:
		report, err := jobs.EncryptExisting(ctx, h.proc.b, &jobs.EncryptOptions{Job: jobs.Job{Workers: 1}})
		h.note("encrypt existing: %v: %v", report, err)
		h.mustBeWhole(report, err)
	default:
		h.retire()
	}
}

// next returns content that no write had before.
func (h *history) next() string {
	text := fmt.Sprintf("content %d ", len(h.spent)+1)
	h.spent[text] = true
	return text + string(blobtest.Content([]int{0, 100, 16384, 20_000}[h.intn(4)]))
}

func (h *history) write(key string) {
	h.enter(key)
	text, before := h.next(), h.holds(key)
	err := h.proc.b.WriteAll(ctx, key, []byte(text), nil)
	h.note("write %s %s: %v", key, short(text), err)
	h.outcome(key, text, before, err)
}

// writePlain writes as a process does that has not learned to encrypt yet.
func (h *history) writePlain(key string) {
	if h.depth > 1 {
		return // jobs do not guard against other processes on this store
	}
	text := h.next()
	require.NoError(h, h.inner.WriteAll(ctx, key, []byte(text), nil))
	h.note("write plain %s %s", key, short(text))
	h.model[key] = []string{text}
}

func (h *history) remove(key string) {
	h.enter(key)
	before := h.holds(key)
	err := h.proc.b.Delete(ctx, key)
	h.note("delete %s: %v", key, err)
	if gcerrors.Code(err) == gcerrors.NotFound {
		if !slices.Contains(before, absent) {
			h.fail("delete %s: not found, but it holds %d", key, len(before))
		}
		err = nil
	}
	h.outcome(key, absent, before, err)
}

func (h *history) copyObject(src, dst string) {
	h.enter(src, dst)
	sources, before := h.holds(src), h.holds(dst)
	err := h.proc.b.Copy(ctx, dst, src, nil)
	h.note("copy %s to %s: %v", src, dst, err)
	switch {
	case gcerrors.Code(err) == gcerrors.NotFound && slices.Contains(sources, absent):
	case err == nil:
		h.model[dst] = append(slices.Clone(sources), h.holds(src)...) // another write may have come first
	default:
		h.model[dst] = append(append(slices.Clone(before), sources...), h.holds(src)...)
	}
}

func (h *history) read(key string) {
	h.enter(key)
	before := h.holds(key)
	got, err := h.proc.b.ReadAll(ctx, key)
	h.check(key, append(slices.Clone(before), h.holds(key)...), got, err)
}

// changeKey disables, enables or rotates the key of the key service.
func (h *history) changeKey() {
	change := []func(context.Context, string) error{
		h.proc.service.DisableKey, h.proc.service.EnableKey, h.proc.service.EnableKey,
		func(ctx context.Context, id string) error { _, err := h.proc.service.RotateKey(ctx, id); return err },
	}
	i := h.intn(len(change))
	h.note("%s: %v", []string{"disable key", "enable key", "enable key", "rotate key"}[i], change[i](ctx, h.kmsID))
}

// retire retires a random version.
func (h *history) retire() {
	versions := h.proc.ring.Versions()
	v := versions[h.intn(len(versions))]
	if v.Primary {
		return
	}
	info, err := jobs.Retire(ctx, h.proc.ring, v.ID, &jobs.RetireOptions{
		Destroy: h.chance(2), Quarantine: jobs.NoQuarantine, Workers: 1, // this process is the only writer, and knows the primary
	}, h.proc.b)
	h.note("retire %s: %v: %v", v.ID, info.State, err)
}
