package keyringtest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/keyring"
)

func (c *contract) race(t *testing.T) {
	ctx, s := c.start(t)
	raceSwaps(ctx, t, []keyring.Store{s})
}

// raceSwaps has many goroutines swap from one version, round after round.
func raceSwaps(ctx context.Context, t *testing.T, handles []keyring.Store) {
	const rounds, writers = 5, 8
	version := ""
	for round := range rounds {
		type won struct{ data, version string }
		var mu sync.Mutex
		var winners []won
		start := make(chan struct{})
		var wg sync.WaitGroup
		errs := make([]error, writers)
		for w := range writers {
			wg.Go(func() {
				<-start
				data := fmt.Sprintf("round %d, writer %d", round, w)
				newVersion, err := handles[w%len(handles)].Swap(ctx, version, []byte(data))
				if err == nil {
					mu.Lock()
					defer mu.Unlock()
					winners = append(winners, won{data, newVersion})
				}
				errs[w] = err
			})
		}
		close(start)
		wg.Wait()
		require.Len(t, winners, 1, "successful swaps from version %q", version)
		for _, err := range errs {
			if err != nil {
				require.ErrorIs(t, err, keyring.ErrConflict)
			}
		}
		for _, h := range handles {
			requireDocument(ctx, t, h, winners[0].data, winners[0].version)
		}
		version = winners[0].version
	}
}

func (c *contract) counter(t *testing.T) {
	ctx, s := c.start(t)
	raceIncrements(ctx, t, []keyring.Store{s})
}

// raceIncrements has many goroutines increment a counter in the document.
func raceIncrements(ctx context.Context, t *testing.T, handles []keyring.Store) {
	const workers, each = 4, 10
	_, err := handles[0].Swap(ctx, "", binary.BigEndian.AppendUint64(nil, 0))
	require.NoError(t, err)
	var wg sync.WaitGroup
	errs := make([]error, workers)
	for w := range workers {
		wg.Go(func() {
			for range each {
				if err := increment(ctx, handles[w%len(handles)]); err != nil {
					errs[w] = err
					return
				}
			}
		})
	}
	wg.Wait()
	require.NoError(t, errors.Join(errs...))
	for _, h := range handles {
		data, _, err := h.Load(ctx)
		require.NoError(t, err)
		require.Equal(t, uint64(workers*each), binary.BigEndian.Uint64(data), "increments in the document")
	}
}

// increment adds one to the number in the document.
func increment(ctx context.Context, s keyring.Store) error {
	for range 1000 { // more than all increments of the others
		data, version, err := s.Load(ctx)
		if err != nil {
			return err
		}
		if len(data) != 8 {
			return fmt.Errorf("document of %d bytes, want 8", len(data))
		}
		time.Sleep(rand.N(time.Millisecond)) // so that others write meanwhile
		next := binary.BigEndian.AppendUint64(nil, binary.BigEndian.Uint64(data)+1)
		_, err = s.Swap(ctx, version, next)
		if !errors.Is(err, keyring.ErrConflict) {
			return err
		}
	}
	return errors.New("conflict after conflict, although nobody else changes the document")
}

// two returns a store and a second handle on it.
func (c *contract) two(t *testing.T) (context.Context, []keyring.Store) {
	t.Helper()
	if c.caps.Another == nil {
		t.Skip("no second handle")
	}
	ctx, s := c.start(t)
	return ctx, []keyring.Store{s, c.caps.Another(t, s)}
}

func (c *contract) another(t *testing.T) {
	ctx, handles := c.two(t)
	version := ""
	for i := range 6 {
		if i > 0 {
			data, loaded, err := handles[i%2].Load(ctx)
			require.NoError(t, err)
			require.Equal(t, fmt.Sprint("document ", i-1), string(data))
			require.Equal(t, version, loaded)
		} else {
			_, _, err := handles[1].Load(ctx)
			require.ErrorIs(t, err, keyring.ErrNotExist)
		}
		old := version
		var err error
		version, err = handles[i%2].Swap(ctx, version, fmt.Append(nil, "document ", i))
		require.NoError(t, err)
		_, err = handles[(i+1)%2].Swap(ctx, old, []byte("stale"))
		require.ErrorIs(t, err, keyring.ErrConflict)
	}
}

func (c *contract) anotherRace(t *testing.T) {
	t.Run("swaps", func(t *testing.T) {
		ctx, handles := c.two(t)
		raceSwaps(ctx, t, handles)
	})
	t.Run("counter", func(t *testing.T) {
		ctx, handles := c.two(t)
		raceIncrements(ctx, t, handles)
	})
}

func (c *contract) reopen(t *testing.T) {
	if c.caps.Reopen == nil {
		t.Skip("cannot be reopened")
	}
	ctx, s := c.start(t)
	v1 := put(ctx, t, s, "one")
	v2, err := s.Swap(ctx, v1, []byte("two"))
	require.NoError(t, err)
	s = c.caps.Reopen(t, s)
	requireDocument(ctx, t, s, "two", v2)
	_, err = s.Swap(ctx, v1, []byte("three"))
	require.ErrorIs(t, err, keyring.ErrConflict)
	v3, err := s.Swap(ctx, v2, []byte("three"))
	require.NoError(t, err)
	requireDocument(ctx, t, s, "three", v3)
}

func (c *contract) unreadable(t *testing.T) {
	if c.caps.Break == nil {
		t.Skip("cannot be broken")
	}
	ctx, s := c.start(t)
	put(ctx, t, s, "one")
	c.caps.Break(t, s)
	_, _, err := s.Load(ctx)
	require.Error(t, err, "Load")
	require.NotErrorIs(t, err, keyring.ErrNotExist, "Load")
	_, err = s.Swap(ctx, "", []byte("two"))
	require.Error(t, err, "Swap that creates")
}

func (c *contract) ring(t *testing.T) {
	ctx, s := c.start(t)
	root, err := keyring.NewKeyRoot(slices.Repeat([]byte{1}, 32))
	require.NoError(t, err)
	ring, err := keyring.Create(ctx, s, root, nil)
	require.NoError(t, err)
	first, err := ring.Primary(ctx)
	require.NoError(t, err)
	_, err = ring.Rotate(ctx)
	require.NoError(t, err)
	_, err = ring.SetState(ctx, first.ID(), keyring.Disabled)
	require.NoError(t, err)
	again, err := keyring.Open(ctx, s, root, nil)
	require.NoError(t, err)
	require.Equal(t, ring.ID(), again.ID())
	require.Equal(t, ring.Versions(), again.Versions())
}
