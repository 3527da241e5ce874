package keyring_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/blobseal/blobseal/internal/testbed/captured"
	"github.com/blobseal/blobseal/keyring"
)

// keyRoot returns a root whose key is 32 times b.
func keyRoot(t testing.TB, b byte) tink.AEADWithContext {
	t.Helper()
	root, err := keyring.NewKeyRoot(bytes.Repeat([]byte{b}, 32))
	require.NoError(t, err)
	return root
}

// create makes a ring under keyRoot 1, or opens the ring in store. TestMain has the default
// logger discard what rings log.
func create(t testing.TB, store keyring.Store, opts *keyring.Options) *keyring.Ring {
	t.Helper()
	ring, err := keyring.Create(t.Context(), store, keyRoot(t, 1), opts)
	if errors.Is(err, keyring.ErrExist) {
		ring, err = keyring.Open(t.Context(), store, keyRoot(t, 1), opts)
	}
	require.NoError(t, err)
	return ring
}

// reopen opens the ring in store as another process would.
func reopen(t testing.TB, store keyring.Store) *keyring.Ring {
	t.Helper()
	ring, err := keyring.Open(t.Context(), store, keyRoot(t, 1), nil)
	require.NoError(t, err)
	return ring
}

// primary returns the id of the ring's primary, as it knows it.
func primary(t testing.TB, ring *keyring.Ring) string {
	t.Helper()
	for _, info := range ring.Versions() {
		if info.Primary {
			return info.ID
		}
	}
	require.Fail(t, "no primary")
	return ""
}

func rotate(t testing.TB, ring *keyring.Ring) string {
	t.Helper()
	info, err := ring.Rotate(t.Context())
	require.NoError(t, err)
	return info.ID
}

func document(t testing.TB, store keyring.Store) []byte {
	t.Helper()
	data, _, err := store.Load(t.Context())
	require.NoError(t, err)
	return data
}

// stored returns a store that holds data.
func stored(t testing.TB, data []byte) keyring.Store {
	t.Helper()
	store := keyring.NewMemStore()
	_, err := store.Swap(t.Context(), "", data)
	require.NoError(t, err)
	return store
}

// overwrite puts data into the store, whatever is there.
func overwrite(t testing.TB, store keyring.Store, data []byte) {
	t.Helper()
	_, version, err := store.Load(t.Context())
	require.NoError(t, err)
	_, err = store.Swap(t.Context(), version, data)
	require.NoError(t, err)
}

var errDown = errors.New("server is down")

// hooked is a store that counts its calls, and calls hooks before or instead of each.
type hooked struct {
	keyring.Store
	loads, swaps atomic.Int64

	mu     sync.Mutex
	onLoad func(ctx context.Context) error
	loaded func()                                             // after a load
	onSwap func(ctx context.Context, swap func() error) error // calls swap once, or never
}

func newHooked() *hooked { return &hooked{Store: keyring.NewMemStore()} }

// set replaces the hooks.
func (h *hooked) set(onLoad func(context.Context) error, onSwap func(context.Context, func() error) error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.onLoad, h.onSwap = onLoad, onSwap
}

// down makes all calls fail; up ends that.
func (h *hooked) down() {
	h.set(func(context.Context) error { return errDown }, func(context.Context, func() error) error { return errDown })
}
func (h *hooked) up() { h.set(nil, nil) }

// afterLoad makes the next load call act before it returns.
func (h *hooked) afterLoad(act func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.loaded = func() {
		h.mu.Lock()
		h.loaded = nil
		h.mu.Unlock()
		act()
	}
}

func (h *hooked) Load(ctx context.Context) ([]byte, string, error) {
	h.loads.Add(1)
	h.mu.Lock()
	hook, loaded := h.onLoad, h.loaded
	h.mu.Unlock()
	if loaded != nil {
		defer loaded()
	}
	if hook != nil {
		if err := hook(ctx); err != nil {
			return nil, "", err
		}
	}
	return h.Store.Load(ctx)
}

func (h *hooked) Swap(ctx context.Context, version string, data []byte) (newVersion string, err error) {
	h.swaps.Add(1)
	h.mu.Lock()
	hook := h.onSwap
	h.mu.Unlock()
	swap := func() error {
		newVersion, err = h.Store.Swap(ctx, version, data)
		return err
	}
	if hook == nil {
		err = swap()
		return newVersion, err
	}
	if err := hook(ctx, swap); err != nil {
		return "", err
	}
	return newVersion, err
}

// fakeRoot is a root with hooks.
type fakeRoot struct {
	tink.AEADWithContext
	encrypt, decrypt func(context.Context) error
	decrypts         atomic.Int64
}

func (r *fakeRoot) EncryptWithContext(ctx context.Context, plaintext, ad []byte) ([]byte, error) {
	if r.encrypt != nil {
		if err := r.encrypt(ctx); err != nil {
			return nil, err
		}
	}
	return r.AEADWithContext.EncryptWithContext(ctx, plaintext, ad)
}

func (r *fakeRoot) DecryptWithContext(ctx context.Context, ciphertext, ad []byte) ([]byte, error) {
	r.decrypts.Add(1)
	if r.decrypt != nil {
		if err := r.decrypt(ctx); err != nil {
			return nil, err
		}
	}
	return r.AEADWithContext.DecryptWithContext(ctx, ciphertext, ad)
}

func newLogger() (*slog.Logger, *captured.Buffer) {
	var b captured.Buffer
	return slog.New(slog.NewTextHandler(&b, nil)), &b
}

// countedRoot is a passphrase root that tells how many keys it keeps.
type countedRoot struct{ tink.AEADWithContext }

func (r *countedRoot) derived() int { return keyring.DerivedKeys(r.AEADWithContext) }
