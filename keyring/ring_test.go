package keyring_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/blobseal/blobseal/internal/bubble"
	"github.com/blobseal/blobseal/internal/chunked"
	"github.com/blobseal/blobseal/keyring"
)

func TestRotatedRingOpensBothVersions(t *testing.T) {
	ctx := t.Context()
	store := keyring.NewMemStore()
	ring := create(t, store, nil)
	old, err := ring.Primary(ctx)
	require.NoError(t, err)
	sealed, err := old.Seal([]byte("data key"), []byte("context"))
	require.NoError(t, err)

	id := rotate(t, ring)
	key, err := ring.Primary(ctx)
	require.NoError(t, err)
	require.Equal(t, id, key.ID())
	require.NotEqual(t, old.ID(), key.ID())

	again := reopen(t, store)
	require.Equal(t, ring.Versions(), again.Versions())
	require.Equal(t, ring.ID(), again.ID())
	require.Equal(t, uint64(2), again.Generation())
	key, err = again.Key(ctx, old.ID())
	require.NoError(t, err)
	opened, err := key.Open(sealed, []byte("context"))
	require.NoError(t, err)
	require.Equal(t, "data key", string(opened))
}

func TestKeyOpensOnlyWhatItSealed(t *testing.T) {
	ctx := t.Context()
	ring := create(t, keyring.NewMemStore(), nil)
	key, err := ring.Primary(ctx)
	require.NoError(t, err)
	rotate(t, ring)
	other, err := ring.Primary(ctx)
	require.NoError(t, err)
	dek := bytes.Repeat([]byte{9}, 32)
	sealed, err := key.Seal(dek, []byte("context"))
	require.NoError(t, err)
	require.Len(t, sealed, 104)

	_, err = other.Open(sealed, []byte("context"))
	require.ErrorIs(t, err, chunked.ErrKey)
	require.ErrorContains(t, err, other.ID())
	_, err = key.Open(sealed, []byte("Context"))
	require.ErrorIs(t, err, chunked.ErrKey)
	for i := range 8 * len(sealed) {
		flipped := bytes.Clone(sealed)
		flipped[i/8] ^= 1 << (i % 8)
		_, err := key.Open(flipped, []byte("context"))
		if i/8 < chunked.HeadSize {
			require.ErrorIs(t, err, chunked.ErrKey)
		} else {
			require.ErrorIs(t, err, chunked.ErrCorrupt)
		}
	}
	for n := range sealed {
		_, err := key.Open(sealed[:n], []byte("context"))
		require.ErrorIs(t, err, chunked.ErrCorrupt)
	}
}

func TestOpenErrors(t *testing.T) {
	good := keyring.NewMemStore()
	rotate(t, create(t, good, nil))
	data := document(t, good)
	passphrase, err := keyring.NewPassphraseRoot([]byte("x"), cheap)
	require.NoError(t, err)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	netErr := &net.OpError{Op: "dial", Err: errors.New("no route to host")}
	failing := func(err error) tink.AEADWithContext {
		return &fakeRoot{AEADWithContext: keyRoot(t, 1), decrypt: func(context.Context) error { return err }}
	}
	broken := newHooked()
	broken.down()

	for name, c := range map[string]struct {
		ctx   context.Context
		store keyring.Store
		root  tink.AEADWithContext
		opts  *keyring.Options
		want  []error
		not   []error
	}{
		"missing":              {store: keyring.NewMemStore(), want: []error{keyring.ErrNotExist}, not: []error{keyring.ErrStore}},
		"store down":           {store: broken, want: []error{keyring.ErrStore, errDown}, not: []error{keyring.ErrNotExist}},
		"ctx ended":            {ctx: ended, store: good, want: []error{context.Canceled}},
		"damaged":              {store: stored(t, data[:len(data)-1]), want: []error{keyring.ErrDamaged}},
		"newer":                {store: stored(t, append([]byte("\x89KRG\r\n\x1a\n\x03"), data[9:]...)), want: []error{keyring.ErrVersion}, not: []error{keyring.ErrDamaged}},
		"other root":           {store: good, root: keyRoot(t, 2), want: []error{keyring.ErrRoot}, not: []error{keyring.ErrDamaged, keyring.ErrRootUnavailable}},
		"other kind of root":   {store: good, root: passphrase, want: []error{keyring.ErrRoot}, not: []error{keyring.ErrDamaged}},
		"root of Tink":         {store: good, root: tinkRoot(t), want: []error{keyring.ErrRoot}},
		"root down":            {store: good, root: failing(netErr), want: []error{keyring.ErrRootUnavailable, netErr}, not: []error{keyring.ErrRoot}},
		"root says it is down": {store: good, root: failing(fmt.Errorf("kms: %w", keyring.ErrRootUnavailable)), want: []error{keyring.ErrRootUnavailable}, not: []error{keyring.ErrRoot}},
		"root says 503":        {store: good, root: failing(status(503)), want: []error{keyring.ErrRootUnavailable, status(503)}, not: []error{keyring.ErrRoot}},
		"root says 429":        {store: good, root: failing(status(429)), want: []error{keyring.ErrRootUnavailable, status(429)}, not: []error{keyring.ErrRoot}},
		"root says 400":        {store: good, root: failing(status(400)), want: []error{keyring.ErrRoot, status(400)}, not: []error{keyring.ErrRootUnavailable}},
		"root's ctx":           {store: good, root: failing(context.DeadlineExceeded), want: []error{keyring.ErrRootUnavailable, context.DeadlineExceeded}, not: []error{keyring.ErrRoot}},
		"root's own error":     {store: good, root: failing(io.ErrNoProgress), want: []error{keyring.ErrRoot, io.ErrNoProgress}},
		"other period":         {store: good, opts: &keyring.Options{Period: time.Hour}, want: []error{keyring.ErrInvalid}},
		"short period":         {store: good, opts: &keyring.Options{Period: time.Second}, want: []error{keyring.ErrInvalid}},
		"odd period":           {store: good, opts: &keyring.Options{Period: time.Hour + 1}, want: []error{keyring.ErrInvalid}},
		"negative period":      {store: good, opts: &keyring.Options{Period: -time.Hour}, want: []error{keyring.ErrInvalid}},
		"hard before period":   {store: good, opts: &keyring.Options{HardAge: time.Hour}, want: []error{keyring.ErrInvalid}},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, root := c.ctx, c.root
			if ctx == nil {
				ctx = t.Context()
			}
			if root == nil {
				root = keyRoot(t, 1)
			}
			ring, err := keyring.Open(ctx, c.store, root, c.opts)
			require.Nil(t, ring)
			for _, want := range c.want {
				require.ErrorIs(t, err, want)
			}
			for _, not := range c.not {
				require.NotErrorIs(t, err, not)
			}
			require.Equal(t, 1, strings.Count(err.Error(), "keyring: "), "%v", err)
		})
	}
	for _, opts := range []keyring.Options{{HardAge: -1}, {RefreshInterval: -1}, {RefreshInterval: time.Millisecond}} {
		_, err := keyring.Open(t.Context(), good, keyRoot(t, 1), &opts)
		require.Error(t, err)
	}
	_, err = keyring.Open(t.Context(), nil, keyRoot(t, 1), nil)
	require.Error(t, err)
	_, err = keyring.Open(t.Context(), good, nil, nil)
	require.Error(t, err)
	require.Equal(t, data, document(t, good), "nothing was written")
}

type status int

func (s status) Error() string       { return fmt.Sprintf("status %d", int(s)) }
func (s status) HTTPStatusCode() int { return int(s) }

// tinkRoot is a root from Tink's own keyset, as a key service would be.
func tinkRoot(t testing.TB) tink.AEADWithContext {
	handle, err := keyset.NewHandle(aead.AES256GCMKeyTemplate())
	require.NoError(t, err)
	primitive, err := aead.New(handle)
	require.NoError(t, err)
	return withContext{primitive}
}

type withContext struct{ tink.AEAD }

func (a withContext) EncryptWithContext(ctx context.Context, plaintext, ad []byte) ([]byte, error) {
	return a.Encrypt(plaintext, ad)
}

func (a withContext) DecryptWithContext(ctx context.Context, ciphertext, ad []byte) ([]byte, error) {
	return a.Decrypt(ciphertext, ad)
}

func TestRootsOfTink(t *testing.T) {
	envelope, err := aead.NewKMSEnvelopeAEADWithContext(aead.AES256GCMKeyTemplate(), tinkRoot(t))
	require.NoError(t, err)
	for name, root := range map[string]tink.AEADWithContext{"AEAD": tinkRoot(t), "envelope": envelope} {
		t.Run(name, func(t *testing.T) {
			store := keyring.NewMemStore()
			ring, err := keyring.Create(t.Context(), store, root, nil)
			require.NoError(t, err)
			rotate(t, ring)
			again, err := keyring.Open(t.Context(), store, root, nil)
			require.NoError(t, err)
			require.Equal(t, ring.Versions(), again.Versions())
		})
	}
}

func TestCreate(t *testing.T) {
	begin := time.Now().Truncate(time.Millisecond)
	store := newHooked()
	ring := create(t, store, nil)
	require.Regexp(t, "^[0-9a-f]{16}$", ring.ID())
	require.Equal(t, 90*day, ring.Period())
	require.Equal(t, uint64(1), ring.Generation())
	keys := ring.Versions()
	require.Len(t, keys, 1)
	require.Regexp(t, "^"+ring.ID()+`\.[0-9a-f]{8}$`, keys[0].ID)
	require.Equal(t, keyring.Version{
		ID: keys[0].ID, State: keyring.Enabled, Primary: true, Created: keys[0].Created, Changed: keys[0].Created,
	}, keys[0])
	require.False(t, keys[0].Created.Before(begin), "made at %v, not before %v", keys[0].Created, begin)
	require.False(t, keys[0].Created.After(time.Now()))
	keys[0].ID = "changed"
	require.NotEqual(t, "changed", ring.Versions()[0].ID)

	again := create(t, store, &keyring.Options{Period: 90 * day}) // takes what is there
	require.Equal(t, ring.ID(), again.ID())
	require.EqualValues(t, 1, store.swaps.Load())

	require.NotEqual(t, ring.ID(), create(t, keyring.NewMemStore(), nil).ID())
	require.Equal(t, time.Hour, create(t, keyring.NewMemStore(), &keyring.Options{Period: time.Hour}).Period())
}

func TestCreateFails(t *testing.T) {
	store := newHooked()
	store.set(nil, func(context.Context, func() error) error { return errDown })
	_, err := keyring.Create(t.Context(), store, keyRoot(t, 1), nil)
	require.ErrorIs(t, err, keyring.ErrStore)
	require.ErrorIs(t, err, errDown)
	store.up()
	_, err = keyring.Create(t.Context(), store, keyRoot(t, 1), &keyring.Options{HardAge: time.Hour})
	require.ErrorIs(t, err, keyring.ErrInvalid)
	_, _, err = store.Load(t.Context())
	require.ErrorIs(t, err, keyring.ErrNotExist, "nothing was written")
}

// A store that cannot be read but written is not an empty one.
func TestUnreadableIsNotMissing(t *testing.T) {
	store := newHooked()
	store.set(func(context.Context) error { return errDown }, nil)
	_, err := keyring.Create(t.Context(), store, keyRoot(t, 1), nil)
	require.ErrorIs(t, err, errDown)
	require.NotErrorIs(t, err, keyring.ErrNotExist)
	require.Zero(t, store.swaps.Load())
}

// A document that was loaded before the ring moved on is neither a rollback nor
// taken for the latest.
func TestLoadThatIsOvertaken(t *testing.T) {
	ctx := t.Context()
	store := newHooked()
	ring := create(t, store, nil)
	other := reopen(t, store.Store)
	third := reopen(t, store.Store)

	rotate(t, other)
	store.afterLoad(func() { rotate(t, ring) })
	require.NoError(t, ring.Refresh(ctx))
	require.Equal(t, uint64(3), ring.Generation(), "the refresh brought generation 2")

	var late string
	store.afterLoad(func() {
		late = rotate(t, third)
		require.NoError(t, ring.Refresh(ctx))
	})
	require.NoError(t, ring.SetPeriod(ctx, time.Hour))
	require.Equal(t, uint64(5), ring.Generation())
	require.Equal(t, late, primary(t, ring))
}

// Of those who create a ring at once, one does.
func TestCreatorsThatRace(t *testing.T) {
	store := keyring.NewMemStore()
	var made atomic.Int64
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			_, err := keyring.Create(t.Context(), store, keyRoot(t, 1), nil)
			if err == nil {
				made.Add(1)
			} else {
				require.ErrorIs(t, err, keyring.ErrExist)
			}
		})
	}
	wg.Wait()
	require.EqualValues(t, 1, made.Load())
	require.Len(t, reopen(t, store).Versions(), 1)
}

// An empty store in place of the right one, as when a volume is not mounted, makes no
// new ring, and a wrong one is not opened.
func TestOpenInsistsOnTheRing(t *testing.T) {
	ctx := t.Context()
	log, lines := newLogger()
	store := keyring.NewMemStore()
	ring := create(t, store, &keyring.Options{Logger: log})
	require.Contains(t, lines.String(), "level=WARN")
	require.Contains(t, lines.String(), "created a new ring")
	require.Contains(t, lines.String(), ring.ID())

	opts := &keyring.Options{Ring: ring.ID()}
	_, err := keyring.Open(ctx, store, keyRoot(t, 1), opts)
	require.NoError(t, err)
	empty := newHooked()
	_, err = keyring.Open(ctx, empty, keyRoot(t, 1), opts)
	require.ErrorIs(t, err, keyring.ErrNotExist)
	require.Zero(t, empty.swaps.Load())
	wrong := keyring.NewMemStore()
	create(t, wrong, nil)
	_, err = keyring.Open(ctx, wrong, keyRoot(t, 1), opts)
	require.ErrorIs(t, err, keyring.ErrOtherRing)
	require.ErrorContains(t, err, ring.ID())
}

// A ring that each pod has a copy of: no copy rotates, and all keep reading each
// other's objects.
func TestReadOnlyRing(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		ctx := t.Context()
		log, lines := newLogger()
		store := newHooked()
		source := create(t, store.Store, nil)
		old := source.Versions()[0].ID
		ring, err := keyring.Open(ctx, store, keyRoot(t, 1), &keyring.Options{ReadOnly: true, Logger: log})
		require.NoError(t, err)
		stop := running(t, ring)
		time.Sleep(91 * day)
		for range 3 {
			id, _ := primaryNow(t, ctx, ring)
			require.Equal(t, old, id)
		}
		require.Equal(t, 1, strings.Count(lines.String(), "older than the ring's period"))
		for _, err := range []error{
			second(ring.Rotate(ctx)), second(ring.RotateIfDue(ctx)), second(ring.SetState(ctx, old, keyring.Enabled)),
			ring.SetPeriod(ctx, time.Hour), ring.ChangeRoot(ctx, keyRoot(t, 2)),
			second(keyring.Create(ctx, keyring.NewMemStore(), keyRoot(t, 1), &keyring.Options{ReadOnly: true})),
		} {
			require.ErrorIs(t, err, keyring.ErrReadOnly)
		}
		time.Sleep(1000 * day)
		id, _ := primaryNow(t, ctx, ring)
		require.Equal(t, old, id, "no limit, unless there is a HardAge")
		require.Zero(t, store.swaps.Load())

		id = rotate(t, source)
		time.Sleep(72*time.Second + time.Millisecond)
		next, _ := primaryNow(t, ctx, ring)
		require.Equal(t, id, next, "it follows its source")
		stop()
	})
}

func second(_ any, err error) error { return err }

// A backup is taken before a version is in the store, and without one there is none.
func TestBackupBeforeAVersion(t *testing.T) {
	ctx := t.Context()
	store := newHooked()
	var backups [][]byte
	var fail error
	opts := &keyring.Options{Backup: func(_ context.Context, data []byte) error {
		if store.swaps.Load() > 0 && fail == nil {
			require.NotEqual(t, data, document(t, store.Store), "it is not stored yet")
		}
		backups = append(backups, data)
		return fail
	}}
	ring := create(t, store, opts)
	require.Equal(t, document(t, store), backups[0])
	id := rotate(t, ring)
	require.Len(t, backups, 2)
	require.Equal(t, document(t, store), backups[1])
	require.Equal(t, id, primary(t, reopen(t, stored(t, backups[1]))))
	set(t, ring, ring.Versions()[0].ID, keyring.Disabled)
	require.Len(t, backups, 2, "no version was added")

	fail = errDown
	before := document(t, store)
	_, err := ring.Rotate(ctx)
	require.ErrorIs(t, err, errDown)
	require.Equal(t, before, document(t, store))
	require.Equal(t, id, primary(t, ring))
}

func TestSetState(t *testing.T) {
	ctx := t.Context()
	store := newHooked()
	ring := create(t, store, nil)
	now := time.Date(2026, 1, 2, 3, 4, 5, 6e6, time.UTC)
	ring.SetClock(func() time.Time { return now })
	first := primary(t, ring)
	second := rotate(t, ring)
	created := ring.Versions()[0].Created

	swaps := store.swaps.Load()
	for _, step := range []struct {
		state keyring.State
		wrote bool
		same  bool // the state, although something was written
		err   error
		key   error
	}{
		{state: keyring.Enabled},
		{state: keyring.Disabled, wrote: true, key: keyring.ErrDisabled},
		{state: keyring.Disabled, wrote: true, same: true, key: keyring.ErrDisabled},
		{state: keyring.Enabled, wrote: true},
		{state: keyring.Disabled, wrote: true, key: keyring.ErrDisabled},
		{state: keyring.Destroyed, wrote: true, key: keyring.ErrDestroyed},
		{state: keyring.Destroyed, key: keyring.ErrDestroyed},
		{state: keyring.Enabled, err: keyring.ErrDestroyed, key: keyring.ErrDestroyed},
		{state: keyring.Disabled, err: keyring.ErrDestroyed, key: keyring.ErrDestroyed},
	} {
		now = now.Add(time.Hour)
		info, err := ring.SetState(ctx, first, step.state)
		if step.err != nil {
			require.ErrorIs(t, err, step.err)
			require.ErrorContains(t, err, first)
			require.Zero(t, info)
		} else {
			require.NoError(t, err)
			require.Equal(t, ring.Versions()[0], info)
			require.Equal(t, first, info.ID)
			require.Equal(t, step.state, info.State)
			require.Equal(t, created, info.Created)
			require.Equal(t, step.wrote && !step.same, info.Changed.Equal(now))
		}
		if step.wrote {
			swaps++
		}
		require.Equal(t, swaps, store.swaps.Load(), "writes")

		for _, r := range []*keyring.Ring{ring, reopen(t, store)} {
			key, err := r.Key(ctx, first)
			if step.key == nil {
				require.NoError(t, err)
				require.Equal(t, first, key.ID())
			} else {
				require.ErrorIs(t, err, step.key)
				require.ErrorContains(t, err, first)
			}
		}
	}

	for _, state := range []keyring.State{keyring.Disabled, keyring.Destroyed} {
		_, err := ring.SetState(ctx, second, state)
		require.ErrorIs(t, err, keyring.ErrPrimary)
	}
	_, err := ring.SetState(ctx, second, keyring.Enabled)
	require.NoError(t, err)
	for _, state := range []keyring.State{0, 4, 255} {
		_, err := ring.SetState(ctx, second, state)
		require.Error(t, err)
	}
	for _, id := range []string{"", "x", ring.ID() + ".00000000", create(t, keyring.NewMemStore(), nil).Versions()[0].ID} {
		_, err := ring.SetState(ctx, id, keyring.Disabled)
		require.ErrorIs(t, err, keyring.ErrUnknownKey)
	}
	require.Equal(t, swaps, store.swaps.Load(), "writes")
}

func TestDestroyedKeyBytesAreGone(t *testing.T) {
	store := keyring.NewMemStore()
	ring := create(t, store, nil)
	first := primary(t, ring)
	rotate(t, ring)
	before, err := keyring.MasterKeys(t.Context(), keyRoot(t, 1), document(t, store))
	require.NoError(t, err)
	require.Contains(t, before, first)
	_, err = ring.SetState(t.Context(), first, keyring.Destroyed)
	require.NoError(t, err)
	after, err := keyring.MasterKeys(t.Context(), keyRoot(t, 1), document(t, store))
	require.NoError(t, err)
	require.NotContains(t, after, first)
	require.Len(t, after, 1)
}

func TestSetPeriod(t *testing.T) {
	store := newHooked()
	ring := create(t, store, nil)
	for _, p := range []time.Duration{0, -1, time.Second, time.Hour + 1, 3650*day + time.Second} {
		require.ErrorIs(t, ring.SetPeriod(t.Context(), p), keyring.ErrInvalid)
	}
	for _, p := range []time.Duration{time.Minute, 3650 * day, 30 * 24 * time.Hour} {
		require.NoError(t, ring.SetPeriod(t.Context(), p))
		require.Equal(t, p, ring.Period())
		require.Equal(t, p, reopen(t, store).Period())
	}
	swaps := store.swaps.Load()
	require.NoError(t, ring.SetPeriod(t.Context(), 30*24*time.Hour))
	require.Equal(t, swaps, store.swaps.Load(), "no change is no write")
}

func TestChangeRoot(t *testing.T) {
	ctx := t.Context()
	store := newHooked()
	ring := create(t, store, nil)
	replica := reopen(t, store)
	stale := reopen(t, store)
	key, err := ring.Primary(ctx)
	require.NoError(t, err)

	require.NoError(t, ring.ChangeRoot(ctx, keyRoot(t, 2)))
	_, err = keyring.Open(ctx, store, keyRoot(t, 1), nil)
	require.ErrorIs(t, err, keyring.ErrRoot)
	again, err := keyring.Open(ctx, store, keyRoot(t, 2), nil)
	require.NoError(t, err)
	require.Equal(t, ring.Versions(), again.Versions())
	after, err := again.Key(ctx, key.ID())
	require.NoError(t, err)
	require.Equal(t, key.KEK(), after.KEK(), "the same master keys")

	// The ring itself goes on, another process is told by the same call.
	rotate(t, ring)
	require.NoError(t, ring.Refresh(ctx))
	require.ErrorIs(t, replica.Refresh(ctx), keyring.ErrRoot)
	_, err = replica.Rotate(ctx)
	require.ErrorIs(t, err, keyring.ErrRoot)
	_, err = replica.Primary(ctx)
	require.NoError(t, err, "it goes on with what it had")
	swaps := store.swaps.Load()
	require.NoError(t, replica.ChangeRoot(ctx, keyRoot(t, 2)))
	require.Equal(t, swaps, store.swaps.Load(), "nothing to write")
	require.Equal(t, ring.Versions(), replica.Versions())
	rotate(t, replica)

	// Wrong roots change nothing.
	require.ErrorIs(t, stale.ChangeRoot(ctx, keyRoot(t, 3)), keyring.ErrRoot)
	require.Error(t, stale.ChangeRoot(ctx, nil))
	for name, root := range map[string]*fakeRoot{
		"cannot encrypt": {AEADWithContext: keyRoot(t, 3), encrypt: func(context.Context) error { return errDown }},
		"cannot decrypt": {AEADWithContext: keyRoot(t, 3), decrypt: func(context.Context) error { return errDown }},
	} {
		swaps := store.swaps.Load()
		err := ring.ChangeRoot(ctx, root)
		require.ErrorIs(t, err, errDown, name)
		require.Equal(t, swaps, store.swaps.Load(), name)
		rotate(t, ring)
		_, err = keyring.Open(ctx, store, keyRoot(t, 2), nil)
		require.NoError(t, err, name)
	}
}

// After an error of the store it is not certain under which root the document
// is. The ring copes with both, and the call may be repeated.
func TestChangeRootWithUncertainEnd(t *testing.T) {
	ctx := t.Context()
	for _, happened := range []bool{false, true} {
		t.Run(fmt.Sprint("happened ", happened), func(t *testing.T) {
			store := newHooked()
			ring := create(t, store, nil)
			store.set(nil, func(_ context.Context, swap func() error) error {
				if happened {
					require.NoError(t, swap())
				}
				return errDown
			})
			require.ErrorIs(t, ring.ChangeRoot(ctx, keyRoot(t, 2)), errDown)
			store.up()
			require.NoError(t, ring.Refresh(ctx))
			id := rotate(t, ring)
			root := keyRoot(t, 1)
			if happened {
				root = keyRoot(t, 2)
			}
			again, err := keyring.Open(ctx, store, root, nil)
			require.NoError(t, err)
			require.Equal(t, id, primary(t, again))
			before := store.swaps.Load()
			require.NoError(t, ring.ChangeRoot(ctx, keyRoot(t, 2)))
			require.Equal(t, happened, store.swaps.Load() == before, "what is done is left as it is")
			_, err = keyring.Open(ctx, store, keyRoot(t, 2), nil)
			require.NoError(t, err)
		})
	}
}

// While one goroutine changes the root to and fro, refreshes never meet a
// document that they cannot open.
func TestChangeRootWhileRefreshing(t *testing.T) {
	ctx := t.Context()
	ring := create(t, keyring.NewMemStore(), nil)
	done := make(chan struct{})
	var wg sync.WaitGroup
	errs := make([]error, 3)
	for i := range errs {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if err := ring.Refresh(ctx); err != nil {
					errs[i] = err
					return
				}
			}
		})
	}
	var err error
	for i := 0; i < 100 && err == nil; i++ {
		err = ring.ChangeRoot(ctx, keyRoot(t, byte(0x80+i)))
	}
	close(done)
	wg.Wait()
	require.NoError(t, err)
	require.NoError(t, errors.Join(errs...))
}

func TestWrongDocumentIsRefused(t *testing.T) {
	ctx := t.Context()
	store := newHooked()
	ring := create(t, store, nil)
	old := document(t, store)
	id := rotate(t, ring)
	keys := ring.Versions()
	other := keyring.NewMemStore()
	rotate(t, create(t, other, nil))

	for name, c := range map[string]struct {
		data []byte
		err  error
	}{
		"other ring": {document(t, other), keyring.ErrOtherRing},
		"damaged":    {old[:99], keyring.ErrDamaged},
	} {
		t.Run(name, func(t *testing.T) {
			good := document(t, store)
			overwrite(t, store.Store, c.data)
			require.ErrorIs(t, ring.Refresh(ctx), c.err)
			_, err := ring.Rotate(ctx)
			require.ErrorIs(t, err, c.err)
			_, err = ring.SetState(ctx, keys[0].ID, keyring.Disabled)
			require.ErrorIs(t, err, c.err)
			require.ErrorIs(t, ring.ChangeRoot(ctx, keyRoot(t, 2)), c.err)
			require.Equal(t, c.data, document(t, store), "nothing was written over it")

			require.Equal(t, keys, ring.Versions(), "the old snapshot stays")
			key, err := ring.Primary(ctx)
			require.NoError(t, err)
			require.Equal(t, id, key.ID())
			overwrite(t, store.Store, good)
			require.NoError(t, ring.Refresh(ctx))
		})
	}
}

// A store that goes back to a document that this process had is put right, even
// while the root is down.
func TestRollbackIsHealed(t *testing.T) {
	ctx := t.Context()
	log, lines := newLogger()
	store := newHooked()
	old := create(t, store, nil)
	root := &fakeRoot{AEADWithContext: keyRoot(t, 1)}
	ring, err := keyring.Open(ctx, store, root, &keyring.Options{Logger: log})
	require.NoError(t, err)
	before := document(t, store)
	rotate(t, ring)
	after := document(t, store)

	overwrite(t, store.Store, before)
	root.decrypt = func(context.Context) error { return errDown }
	require.NoError(t, ring.Refresh(ctx))
	require.Equal(t, after, document(t, store))
	require.Contains(t, lines.String(), "store had lost changes")

	root.decrypt = nil
	overwrite(t, store.Store, before)
	id := rotate(t, ring)
	require.NoError(t, old.Refresh(ctx))
	require.Equal(t, id, primary(t, old))
	require.Len(t, old.Versions(), 3)
}

func TestDocumentThatIsDeletedUnderTheRing(t *testing.T) {
	store := newHooked()
	ring := create(t, store, nil)
	store.Store = keyring.NewMemStore()
	require.ErrorIs(t, ring.Refresh(t.Context()), keyring.ErrNotExist)
	_, err := ring.Rotate(t.Context())
	require.ErrorIs(t, err, keyring.ErrNotExist)
	_, err = ring.Primary(t.Context())
	require.NoError(t, err)
}

func TestRefresh(t *testing.T) {
	ctx := t.Context()
	store := keyring.NewMemStore()
	ring := create(t, store, nil)
	root := &fakeRoot{AEADWithContext: keyRoot(t, 1)}
	replica, err := keyring.Open(ctx, store, root, nil)
	require.NoError(t, err)
	opens := root.decrypts.Load()
	for range 5 {
		require.NoError(t, replica.Refresh(ctx))
	}
	require.Equal(t, opens, root.decrypts.Load(), "the root is not asked when nothing changed")

	id := rotate(t, ring)
	require.NotEqual(t, id, primary(t, replica))
	require.NoError(t, replica.Refresh(ctx))
	require.Equal(t, opens+1, root.decrypts.Load())
	require.Equal(t, ring.Versions(), replica.Versions())
	require.Equal(t, ring.Generation(), replica.Generation())
}

// The store fails at each step of each operation in turn: the ring keeps its
// snapshot, and the operation works once the store does.
func TestStoreThatFailsAtEachStep(t *testing.T) {
	ctx := t.Context()
	operations := map[string]func(r *keyring.Ring, first string) error{
		"Rotate":     func(r *keyring.Ring, _ string) error { _, err := r.Rotate(ctx); return err },
		"SetState":   func(r *keyring.Ring, id string) error { _, err := r.SetState(ctx, id, keyring.Disabled); return err },
		"SetPeriod":  func(r *keyring.Ring, _ string) error { return r.SetPeriod(ctx, time.Hour) },
		"ChangeRoot": func(r *keyring.Ring, _ string) error { return r.ChangeRoot(ctx, keyRoot(t, 2)) },
		"Refresh":    func(r *keyring.Ring, _ string) error { return r.Refresh(ctx) },
	}
	fail := func(context.Context) error { return errDown }
	failSwap := func(context.Context, func() error) error { return errDown }
	for name, operate := range operations {
		for step, hook := range map[string]func(s *hooked, r *fakeRoot){
			"load":    func(s *hooked, _ *fakeRoot) { s.set(fail, nil) },
			"swap":    func(s *hooked, _ *fakeRoot) { s.set(nil, failSwap) },
			"decrypt": func(_ *hooked, r *fakeRoot) { r.decrypt = fail },
			"encrypt": func(_ *hooked, r *fakeRoot) { r.encrypt = fail },
		} {
			if name == "Refresh" && step != "load" || name == "ChangeRoot" && step == "encrypt" {
				continue
			}
			t.Run(name+" "+step, func(t *testing.T) {
				store, root := newHooked(), &fakeRoot{AEADWithContext: keyRoot(t, 1)}
				ring, err := keyring.Create(ctx, store, root, nil)
				require.NoError(t, err)
				first := primary(t, ring)
				rotate(t, ring)
				keys, generation, data := ring.Versions(), ring.Generation(), document(t, store)

				hook(store, root)
				err = operate(ring, first)
				require.ErrorIs(t, err, errDown)
				require.Equal(t, step == "load" || step == "swap", errors.Is(err, keyring.ErrStore))
				require.Equal(t, keys, ring.Versions())
				require.Equal(t, generation, ring.Generation())
				_, err = ring.Primary(ctx)
				require.NoError(t, err)
				_, err = ring.Key(ctx, first)
				require.NoError(t, err)

				store.up()
				root.decrypt, root.encrypt = nil, nil
				require.Equal(t, data, document(t, store))
				require.NoError(t, operate(ring, first))
			})
		}
	}
}

// A conflict makes the operation load again, and do its work on what it finds.
func TestConflicts(t *testing.T) {
	ctx := t.Context()
	store := newHooked()
	ring := create(t, store, nil)
	first := primary(t, ring)
	other := reopen(t, store.Store)
	between := func(act func()) {
		var once sync.Once
		store.set(nil, func(_ context.Context, swap func() error) error {
			once.Do(act)
			return swap()
		})
	}

	between(func() { rotate(t, other) })
	id := rotate(t, ring)
	require.Equal(t, primary(t, other), id, "the other's version is the result")
	require.Len(t, ring.Versions(), 2)

	between(func() { require.NoError(t, other.SetPeriod(ctx, time.Hour)) })
	id = rotate(t, ring)
	require.NotEqual(t, primary(t, other), id, "the other did something else")
	require.Len(t, ring.Versions(), 3)
	require.Equal(t, time.Hour, ring.Period())

	between(func() { _, err := other.SetState(ctx, first, keyring.Disabled); require.NoError(t, err) })
	info, err := ring.SetState(ctx, first, keyring.Disabled)
	require.NoError(t, err)
	require.Equal(t, keyring.Disabled, info.State)

	between(func() { _, err := other.SetState(ctx, first, keyring.Destroyed); require.NoError(t, err) })
	_, err = ring.SetState(ctx, first, keyring.Enabled)
	require.ErrorIs(t, err, keyring.ErrDestroyed)

	between(func() { require.NoError(t, other.ChangeRoot(ctx, keyRoot(t, 2))) })
	require.NoError(t, ring.ChangeRoot(ctx, keyRoot(t, 2)))

	// Conflicts without end: ctx ends them.
	store.set(nil, func(context.Context, func() error) error { return keyring.ErrConflict })
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	_, err = ring.Rotate(short)
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

func TestRotationsOfOneRingThatMeetMakeOneVersion(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		store := newHooked()
		ring := create(t, store, nil)
		entered, release := make(chan struct{}), make(chan struct{})
		store.set(nil, func(_ context.Context, swap func() error) error {
			close(entered)
			<-release
			return swap()
		})
		var ids [5]string
		var wg sync.WaitGroup
		wg.Go(func() { ids[0] = rotate(t, ring) })
		<-entered
		for i := range ids[1:] {
			wg.Go(func() { ids[i+1] = rotate(t, ring) })
		}
		synctest.Wait() // until they wait for their turn
		close(release)
		wg.Wait()
		for _, id := range ids {
			require.Equal(t, ids[0], id)
		}
		require.Len(t, ring.Versions(), 2)
		store.up()
		require.NotEqual(t, ids[0], rotate(t, ring))
	})
}

func TestWaitingForTheTurnEndsWithCtx(t *testing.T) {
	store := newHooked()
	ring := create(t, store, nil)
	entered, release := make(chan struct{}), make(chan struct{})
	store.set(nil, func(_ context.Context, swap func() error) error {
		close(entered)
		<-release
		return swap()
	})
	var wg sync.WaitGroup
	wg.Go(func() { rotate(t, ring) })
	<-entered
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := ring.Rotate(ended)
	require.ErrorIs(t, err, context.Canceled)
	_, err = ring.SetState(ended, primary(t, ring), keyring.Enabled)
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, ring.SetPeriod(ended, time.Hour), context.Canceled)
	require.ErrorIs(t, ring.ChangeRoot(ended, keyRoot(t, 2)), context.Canceled)
	close(release)
	wg.Wait()
}

// A store that hides the end of ctx does not hide it from the ring's callers.
func TestEndOfCtxShows(t *testing.T) {
	store := newHooked()
	ring := create(t, store, nil)
	store.down()
	ended, cancel := context.WithCancelCause(t.Context())
	cancel(nil)
	require.ErrorIs(t, ring.Refresh(ended), context.Canceled)
	_, err := ring.Key(ended, ring.ID()+".00000000")
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, err, keyring.ErrUnknownKey)
	_, err = ring.Primary(ended)
	require.NoError(t, err, "what is in memory is there")
}

func TestConcurrentUse(t *testing.T) {
	ctx := t.Context()
	store := keyring.NewMemStore()
	rings := []*keyring.Ring{create(t, store, nil), reopen(t, store), reopen(t, store)}
	rounds := 30
	if testing.Short() {
		rounds = 5
	}
	var wg sync.WaitGroup
	errs := make(chan error, 1000)
	for i, ring := range rings {
		wg.Go(func() {
			for range rounds {
				if _, err := ring.Rotate(ctx); err != nil {
					errs <- err
				}
			}
		})
		wg.Go(func() {
			for range rounds {
				for _, info := range ring.Versions() {
					if info.Primary || i > 0 {
						continue
					}
					_, err := ring.SetState(ctx, info.ID, keyring.State(1+len(info.ID)%2))
					if err != nil {
						errs <- err
					}
				}
				if err := ring.Refresh(ctx); err != nil {
					errs <- err
				}
			}
		})
		for range 2 {
			wg.Go(func() {
				for range rounds * 20 {
					key, err := ring.Primary(ctx)
					if err != nil {
						errs <- err
						return
					}
					sealed, err := key.Seal([]byte("dek"), nil)
					if err != nil {
						errs <- err
						return
					}
					other, err := rings[(i+1)%len(rings)].Key(ctx, key.ID())
					if errors.Is(err, keyring.ErrDisabled) {
						continue
					}
					if err == nil {
						_, err = other.Open(sealed, nil)
					}
					if err != nil {
						errs <- err
						return
					}
				}
			})
		}
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		require.NoError(t, err)
	}
	for _, ring := range rings {
		require.NoError(t, ring.Refresh(ctx))
		require.Equal(t, rings[0].Versions(), ring.Versions())
	}
}

func TestHotPathDoesNotAllocate(t *testing.T) {
	ctx := t.Context()
	ring := create(t, keyring.NewMemStore(), nil)
	id := primary(t, ring)
	require.Zero(t, testing.AllocsPerRun(100, func() {
		if _, err := ring.Primary(ctx); err != nil {
			panic(err)
		}
		if _, err := ring.Key(ctx, id); err != nil {
			panic(err)
		}
	}))
}

func TestStateText(t *testing.T) {
	for state, text := range map[keyring.State]string{
		keyring.Enabled: "enabled", keyring.Disabled: "disabled", keyring.Destroyed: "destroyed",
	} {
		require.Equal(t, text, state.String())
		got, err := state.MarshalText()
		require.NoError(t, err)
		require.Equal(t, text, string(got))
		var back keyring.State
		require.NoError(t, back.UnmarshalText([]byte(text)))
		require.Equal(t, state, back)
	}
	for _, state := range []keyring.State{0, 4, 255} {
		_, err := state.MarshalText()
		require.Error(t, err)
		require.Contains(t, state.String(), "state")
	}
	for _, text := range []string{"", "Enabled", "enabled ", "1", "gone"} {
		var s keyring.State
		require.Error(t, s.UnmarshalText([]byte(text)))
		require.Zero(t, s)
	}
	info := keyring.Version{ID: "r.k", State: keyring.Disabled, Created: time.Unix(0, 0).UTC(), Changed: time.UnixMilli(1500).UTC()}
	text, err := json.Marshal(info)
	require.NoError(t, err)
	require.JSONEq(t, `{"id":"r.k","state":"disabled","primary":false,"created":"1970-01-01T00:00:00Z","changed":"1970-01-01T00:00:01.5Z"}`, string(text))
	var back keyring.Version
	require.NoError(t, json.Unmarshal(text, &back))
	require.Equal(t, info, back)
}

func BenchmarkPrimary(b *testing.B) {
	ring := create(b, keyring.NewMemStore(), nil)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ring.Primary(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkKey(b *testing.B) {
	ring := create(b, keyring.NewMemStore(), nil)
	id := primary(b, ring)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ring.Key(b.Context(), id); err != nil {
			b.Fatal(err)
		}
	}
}

func TestMain(m *testing.M) {
	if child, isChild := os.LookupEnv(childEnv); isChild {
		os.Exit(runChild(child))
	}
	slog.SetDefault(slog.New(slog.DiscardHandler))
	os.Exit(m.Run())
}
