package keyring_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/internal/chunked"
	"github.com/blobseal/blobseal/internal/testbed/program"
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
	require.Equal(t, uint64(2), again.Stats().Generation)
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

// TestConcurrentUse is long because it runs three kinds of workers at once.
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
					_, err := ring.SetState(ctx, info.ID, keyring.Disabled)
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

func TestVersionJSON(t *testing.T) {
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
	slog.SetDefault(slog.New(slog.DiscardHandler))
	program.Main(m, runChild)
}
