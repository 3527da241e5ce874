package keyring_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/keyring"
)

// If an edit replaces the document while it is being loaded, the loaded one is neither a
// rollback nor taken for the latest.
func TestLoadThatIsOvertaken(t *testing.T) {
	ctx := t.Context()
	store := newHooked()
	ring := create(t, store, nil)
	other := reopen(t, store.Store)
	third := reopen(t, store.Store)

	rotate(t, other)
	store.afterLoad(func() { rotate(t, ring) })
	require.NoError(t, ring.Refresh(ctx))
	require.Equal(t, uint64(3), ring.Stats().Generation, "the refresh brought generation 2")

	var late string
	store.afterLoad(func() {
		late = rotate(t, third)
		require.NoError(t, ring.Refresh(ctx))
	})
	require.NoError(t, ring.SetPeriod(ctx, time.Hour))
	require.Equal(t, uint64(5), ring.Stats().Generation)
	require.Equal(t, late, primary(t, ring))
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

// A store that goes back to a document that this process had is healed even while the root
// is down.
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
	require.Equal(t, ring.Stats().Generation, replica.Stats().Generation)
}

// The store fails at each step of each operation in turn. The ring keeps its snapshot, and
// the operation works as soon as the store does.
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
				keys, generation, data := ring.Versions(), ring.Stats().Generation, document(t, store)

				hook(store, root)
				err = operate(ring, first)
				require.ErrorIs(t, err, errDown)
				require.Equal(t, step == "load" || step == "swap", errors.Is(err, keyring.ErrStore))
				require.Equal(t, keys, ring.Versions())
				require.Equal(t, generation, ring.Stats().Generation)
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
