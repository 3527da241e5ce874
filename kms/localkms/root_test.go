package localkms_test

import (
	"bytes"
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/localkms"
)

func TestChangeRoot(t *testing.T) {
	s := open(t, nil, nil)
	other := open(t, s.store, nil)
	id := s.key()
	ciphertext := s.encrypt(id, "x", nil)
	before, _, err := s.store.Load(t.Context())
	require.NoError(t, err)
	require.NoError(t, s.ChangeRoot(t.Context(), keyRoot(t, 2)))

	reopen := func(root byte) error {
		_, err := localkms.Open(t.Context(), s.store, keyRoot(t, root), &localkms.Options{Now: s.clock.Now})
		return err
	}
	require.NoError(t, reopen(2))
	require.ErrorIs(t, reopen(1), keyring.ErrRoot)
	s.decrypts(ciphertext, "x", nil)
	require.NoError(t, s.DisableKey(t.Context(), id))

	// Another process has to be told of the new root, by the same call.
	err = other.Refresh(t.Context())
	require.ErrorIs(t, err, keyring.ErrRoot)
	isKind(t, kms.ErrUnavailable, err)
	generation := s.Stats().Generation
	require.NoError(t, other.ChangeRoot(t.Context(), keyRoot(t, 2)))
	require.NoError(t, other.Refresh(t.Context()))
	require.Equal(t, generation, other.Stats().Generation, "it changed nothing")
	_, err = other.Encrypt(t.Context(), id, []byte("x"), nil)
	isKind(t, kms.ErrDisabled, err)

	// The document has a key of its own again: the old root opens only old copies.
	after, _, err := s.store.Load(t.Context())
	require.NoError(t, err)
	const sealedAt = 8 + 1 + 16 + 8
	require.NotEqual(t, before[sealedAt:sealedAt+64], after[sealedAt:sealedAt+64])
	isKind(t, kms.ErrInvalid, s.ChangeRoot(t.Context(), nil))

	// Keys of an older root that never came into use are not needed.
	require.NoError(t, s.ChangeRoot(t.Context(), keyRoot(t, 3)))
	require.ErrorIs(t, reopen(2), keyring.ErrRoot)
	require.NoError(t, reopen(3))
}

// TestWeakRootsAreRefused: anyone who sees the document could try passphrases on it. Open
// asks a weak root nevertheless: a service may be under one already.
func TestWeakRootsAreRefused(t *testing.T) {
	for name, make := range map[string]func() (keyring.Root, error){
		"printable key":    func() (keyring.Root, error) { return keyring.NewKeyRoot(bytes.Repeat([]byte("secret78"), 4)) },
		"short passphrase": func() (keyring.Root, error) { return keyring.NewPassphraseRoot([]byte("a"), nil) },
	} {
		t.Run(name, func(t *testing.T) {
			root, err := make()
			require.NoError(t, err)
			store := keyring.NewMemStore()
			_, err = localkms.Create(t.Context(), store, root, nil)
			isKind(t, kms.ErrInvalid, err)
			require.ErrorIs(t, err, keyring.ErrInvalid)
			_, _, err = store.Load(t.Context())
			require.ErrorIs(t, err, keyring.ErrNotExist, "nothing was stored")

			s := open(t, nil, nil)
			generation := s.Stats().Generation
			err = s.ChangeRoot(t.Context(), root)
			isKind(t, kms.ErrInvalid, err)
			require.ErrorIs(t, err, keyring.ErrInvalid)
			require.NoError(t, s.Refresh(t.Context()))
			require.Equal(t, generation, s.Stats().Generation)

			_, err = localkms.Open(t.Context(), s.store, root, nil)
			require.ErrorIs(t, err, keyring.ErrRoot, "asked, not refused")
		})
	}
}

// TestChangeRootThatFailsMayBeRepeated: the store fails, or answers too late.
func TestChangeRootThatFailsMayBeRepeated(t *testing.T) {
	for name, lose := range map[string]bool{"before": false, "after": true} {
		t.Run(name, func(t *testing.T) {
			s := open(t, nil, nil)
			id := s.key()
			store := &lossy{Store: s.store, lose: lose}
			s.store = store
			s.restart()
			store.fail = true
			isKind(t, kms.ErrUnavailable, s.ChangeRoot(t.Context(), keyRoot(t, 2)))
			store.fail = false
			_, err := s.Encrypt(t.Context(), id, []byte("x"), nil)
			require.NoError(t, err)
			require.NoError(t, s.Refresh(t.Context()))
			require.NoError(t, s.ChangeRoot(t.Context(), keyRoot(t, 2)))
			_, err = localkms.Open(t.Context(), store, keyRoot(t, 2), nil)
			require.NoError(t, err)
		})
	}
}

// lossy is a store whose Swap fails, before or after it has happened.
type lossy struct {
	keyring.Store
	fail, lose bool
}

func (s *lossy) Swap(ctx context.Context, version string, data []byte) (string, error) {
	if s.fail && !s.lose {
		return "", errors.New("down")
	}
	stored, err := s.Store.Swap(ctx, version, data)
	if s.fail {
		return "", errors.New("connection lost")
	}
	return stored, err
}

// TestOneHungLoadStopsNobody: a load hangs, of a caller who waits without end. The
// store is well otherwise, so keys are used and disabled all the same.
func TestOneHungLoadStopsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &hanging{Store: keyring.NewMemStore()}
		s := open(t, store, func(o *localkms.Options) { o.RefreshInterval, o.MaxStaleness = time.Second, 5*time.Second })
		id := s.key()
		time.Sleep(time.Second)
		store.hang.Store(true)
		done := make(chan error, 1)
		go func() { done <- s.Refresh(context.Background()) }()
		time.Sleep(5 * time.Second)
		require.NoError(t, s.DisableKey(t.Context(), id))
		require.NoError(t, s.EnableKey(t.Context(), id))
		_, err := s.Encrypt(t.Context(), id, []byte("x"), nil)
		require.NoError(t, err)
		time.Sleep(10 * time.Second)
		_, err = s.Encrypt(t.Context(), id, []byte("x"), nil)
		require.NoError(t, err)
		isKind(t, kms.ErrUnavailable, <-done)
	})
}

// hanging is a store of which one load hangs, for as long as its ctx lets it.
type hanging struct {
	keyring.Store
	hang atomic.Bool
}

func (s *hanging) Load(ctx context.Context) ([]byte, string, error) {
	if s.hang.CompareAndSwap(true, false) {
		<-ctx.Done()
		return nil, "", ctx.Err()
	}
	return s.Store.Load(ctx)
}
