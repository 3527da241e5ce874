package keyring_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/blobseal/blobseal/internal/testbed/fakeclock"
	"github.com/blobseal/blobseal/keyring"
)

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

func (s status) Error() string { return fmt.Sprintf("status %d", int(s)) }

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
	require.Equal(t, uint64(1), ring.Stats().Generation)
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

	again := create(t, store, &keyring.Options{Period: 90 * day}) // opens the ring that exists
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

// A store that can be written but not read is not taken for an empty one.
func TestUnreadableIsNotMissing(t *testing.T) {
	store := newHooked()
	store.set(func(context.Context) error { return errDown }, nil)
	_, err := keyring.Create(t.Context(), store, keyRoot(t, 1), nil)
	require.ErrorIs(t, err, errDown)
	require.NotErrorIs(t, err, keyring.ErrNotExist)
	require.Zero(t, store.swaps.Load())
}

// Of several processes that create a ring at once, one succeeds.
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

// Open makes no ring in an empty store, which may be a volume that is not mounted, and does
// not open a ring of another id.
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

// Each pod has a copy of a ring: no copy rotates, and all keep reading each other's objects.
func TestReadOnlyRing(t *testing.T) {
	fakeclock.Test(t, func(t *testing.T) {
		ctx := t.Context()
		log, lines := newLogger()
		store := newHooked()
		source := create(t, store.Store, nil)
		old := source.Versions()[0].ID
		ring, err := keyring.Open(ctx, store, keyRoot(t, 1), &keyring.Options{ReadOnly: true, RefreshInterval: time.Hour, Logger: log})
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
		time.Sleep(72*time.Minute + time.Millisecond)
		next, _ := primaryNow(t, ctx, ring)
		require.Equal(t, id, next, "it follows its source")
		stop()
	})
}

func second(_ any, err error) error { return err }

// Backup gets a document before the store does. If Backup fails, no version is added.
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
