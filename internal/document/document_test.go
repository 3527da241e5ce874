package document_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/internal/document"
)

func (notes) Open(ctx context.Context, root document.Root, data []byte, _ *note) (*note, error) {
	if _, err := root.DecryptWithContext(ctx, nil, nil); err != nil {
		return nil, document.RootError(ctx, document.ErrRoot, err)
	}
	n := new(note)
	if err := json.Unmarshal(data, n); err != nil {
		return nil, fmt.Errorf("%w: %w", document.ErrDamaged, err)
	}
	return n, nil
}

func (notes) State(n *note) (*note, error) {
	return &note{ID: n.ID, Gen: n.Gen, Names: maps.Clone(n.Names)}, nil
}

func (notes) Draft(*note) (*note, bool) { return nil, false }

func (notes) Includes(known, next *note) error {
	for name := range known.Names {
		if !next.Names[name] {
			return fmt.Errorf("it lacks %s", name)
		}
	}
	return nil
}

// A load that hangs blocks nobody for longer than its own deadline: neither callers who wait
// for it without a deadline, nor an edit, nor the next load.
func TestHungLoadHoldsUpNobodyForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, deaf := range map[string]bool{"obeys ctx": false, "deaf to ctx": true} {
			store := &memory{}
			r := create(t, store, notes{}, options())
			other := open(t, store, notes{})
			release := make(chan struct{})
			var hung atomic.Int64
			store.set(func(ctx context.Context, op string) error {
				if hung.Add(1) > 1 {
					return nil // the store is healthy again
				}
				if deaf {
					<-release
					return errDown
				}
				<-ctx.Done()
				return ctx.Err()
			})
			start := time.Now()
			var wg sync.WaitGroup
			wg.Go(func() { require.ErrorIs(t, r.Refresh(context.Background()), document.ErrStore, name) })
			synctest.Wait()
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				require.ErrorIs(t, r.Refresh(ctx), context.DeadlineExceeded)
				require.Equal(t, time.Second, time.Since(start))
			})
			add(t, r, "x")
			require.Zero(t, time.Since(start), "an edit does not wait for the load")
			_, err := r.Lookup(t.Context(), "x", has("x"))
			require.NoError(t, err)
			require.Zero(t, time.Since(start))
			wg.Go(func() { // waits for a load, and looks again when the document changes
				s, err := r.Lookup(t.Context(), "y", has("y"))
				require.NoError(t, err)
				require.True(t, s.Names["y"])
				require.Zero(t, time.Since(start))
			})
			synctest.Wait()
			add(t, r, "y")
			wg.Wait()
			require.LessOrEqual(t, time.Since(start), document.LoadTimeout+time.Second)
			add(t, other, "z")
			require.NoError(t, r.Refresh(t.Context()))
			require.True(t, r.State().Names["z"])
			close(release)
			synctest.Wait()
		}
	})
}

// A caller who gives up does not end the load for others.
func TestCallerThatLeavesDoesNotEndTheLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &memory{}
		r := create(t, store, notes{}, options())
		add(t, open(t, store, notes{}), "x")
		store.set(func(ctx context.Context, _ string) error {
			select {
			case <-time.After(2 * time.Second):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, r.Refresh(ctx), context.DeadlineExceeded)
		require.False(t, r.State().Names["x"])
		time.Sleep(time.Second)
		synctest.Wait()
		require.True(t, r.State().Names["x"], "the load went on")
	})
}

// With a store that takes two seconds, the state stays fresh, although no caller waits that
// long.
func TestFreshWithASlowStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &memory{}
		r := create(t, store, notes{}, options())
		store.set(func(context.Context, string) error { time.Sleep(2 * time.Second); return nil })
		for range 500 {
			before := time.Now()
			_, err := r.Fresh(t.Context())
			require.NoError(t, err)
			require.LessOrEqual(t, time.Since(before), time.Second)
			require.LessOrEqual(t, time.Since(r.Verified()), 4*time.Second+100*time.Millisecond)
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(2 * time.Second) // the last load ends
	})
}

func TestFreshWhileTheStoreFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &memory{}
		r := create(t, store, notes{}, options())
		store.set(func(context.Context, string) error { return errDown })
		began := store.count()
		for time.Since(r.Verified()) < time.Minute {
			_, err := r.Fresh(t.Context())
			require.NoError(t, err)
			time.Sleep(10 * time.Millisecond)
		}
		require.LessOrEqual(t, store.count()-began, 62, "one load a second")
		_, err := r.Fresh(t.Context())
		require.ErrorIs(t, err, errDown)
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		_, err = r.Fresh(ended)
		require.ErrorIs(t, err, context.Canceled)
		synctest.Wait() // until a load that nobody waits for has failed
		store.set(nil)
		_, err = r.Fresh(t.Context())
		require.NoError(t, err)
	})
}

// A hundred lookups of missing ids a second make one load a second.
func TestLookupsOfWhatIsMissing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &memory{}
		r := create(t, store, notes{}, options())
		before := store.count()
		start, n := time.Now(), 0
		for time.Since(start) < 10*time.Second {
			_, err := r.Lookup(t.Context(), strconv.Itoa(n%3), has("never"))
			require.NoError(t, err)
			time.Sleep(time.Millisecond)
			n++
		}
		require.LessOrEqual(t, store.count()-before, 10+3)
		require.Greater(t, n, 9000)

		add(t, open(t, store, notes{}), "0")
		time.Sleep(time.Second)
		s, err := r.Lookup(t.Context(), "0", has("0"))
		require.NoError(t, err)
		require.True(t, s.Names["0"])
	})
}

// Two replicas wrote to different documents after a failover. A replica merges them once,
// and nothing is lost.
func TestForksMerge(t *testing.T) {
	store := &memory{}
	f := notes{mergeable: true}
	one := create(t, store, f, options())
	add(t, one, "base")
	two := open(t, store, f)
	old := two.Document()

	add(t, one, "lost 1")
	add(t, one, "lost 2")
	store.overwrite(old) // the failover
	for i := range 5 {
		add(t, two, fmt.Sprint("new ", i))
	}
	require.NoError(t, one.Refresh(t.Context()))
	want := map[string]bool{"base": true, "lost 1": true, "lost 2": true, "new 0": true, "new 1": true, "new 2": true, "new 3": true, "new 4": true}
	require.Equal(t, want, store.note(t).Names)
	require.EqualValues(t, 8, store.note(t).Gen, "above both")
	version := store.version
	require.NoError(t, two.Refresh(t.Context()))
	require.NoError(t, one.Refresh(t.Context()))
	require.Equal(t, version, store.version, "healing ends")
	require.Equal(t, want, two.State().Names)
	require.Equal(t, want, open(t, store, f).State().Names, "a new process reads all of it")
	require.Nil(t, one.Diverged())
}

// An edit that finds a forked document writes the merge and its own change at once.
func TestEditMerges(t *testing.T) {
	store := &memory{}
	f := notes{mergeable: true}
	one := create(t, store, f, options())
	two := open(t, store, f)
	old := two.Document()
	add(t, one, "lost")
	store.overwrite(old)
	add(t, two, "new")
	add(t, one, "x")
	require.Equal(t, map[string]bool{"lost": true, "new": true, "x": true}, store.note(t).Names)
}

func TestForksThatCannotMerge(t *testing.T) {
	store := &memory{}
	one := create(t, store, notes{}, options())
	two := open(t, store, notes{})
	old := two.Document()
	add(t, one, "lost")
	store.overwrite(old)
	add(t, two, "new")
	add(t, two, "newer")
	version := store.version
	require.ErrorIs(t, one.Refresh(t.Context()), document.ErrRollback)
	_, err := one.Edit(t.Context(), func(*note) (bool, error) { return true, nil })
	require.ErrorIs(t, err, document.ErrRollback)
	require.Equal(t, version, store.version)
	require.NotNil(t, one.Diverged())
	require.False(t, one.Diverged().State.Names["lost"])
}

// A document of another identity is never merged.
func TestOtherDocumentIsRefused(t *testing.T) {
	store := &memory{}
	r := create(t, store, notes{mergeable: true}, options())
	store.overwrite([]byte(`{"ID": "b", "Gen": 9}`))
	require.ErrorIs(t, r.Refresh(t.Context()), document.ErrOtherRing)
	_, err := r.Edit(t.Context(), func(*note) (bool, error) { return true, nil })
	require.ErrorIs(t, err, document.ErrOtherRing)
	require.Equal(t, "b", store.note(t).ID)
}

func TestReadOnly(t *testing.T) {
	store := &memory{}
	one := create(t, store, notes{}, options())
	opts := options()
	opts.ReadOnly = true
	r, err := document.Open(t.Context(), store, &openRoot{}, notes{mergeable: true}, opts)
	require.NoError(t, err)
	old := r.Document()
	add(t, one, "x")
	require.NoError(t, r.Refresh(t.Context()))
	_, err = r.Edit(t.Context(), func(*note) (bool, error) { return true, nil })
	require.ErrorIs(t, err, document.ErrReadOnly)
	store.overwrite(old)
	require.ErrorIs(t, r.Refresh(t.Context()), document.ErrRollback)
	require.Equal(t, old, store.data)
	require.NotNil(t, r.Diverged())
	require.True(t, r.State().Names["x"])
}

func TestCreateRefusesToReplace(t *testing.T) {
	store := &memory{}
	create(t, store, notes{}, options())
	_, err := document.Create(t.Context(), store, &openRoot{}, notes{}, &note{ID: "b"}, options())
	require.ErrorIs(t, err, document.ErrExist)
	require.Equal(t, "a", store.note(t).ID)
}

func TestRootErrors(t *testing.T) {
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for _, c := range []struct {
		name string
		ctx  context.Context
		err  error
		want error
	}{
		{"refused connection", t.Context(), refusedConnection{}, document.ErrRootUnavailable},
		{"its own timeout", t.Context(), context.DeadlineExceeded, document.ErrRootUnavailable},
		{"caller's end", ended, errDown, document.ErrRootUnavailable},
		{"anything else", t.Context(), errDown, document.ErrRoot},
		{"says so itself", t.Context(), document.ErrDamaged, document.ErrDamaged},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := document.RootError(c.ctx, document.ErrRoot, c.err)
			require.ErrorIs(t, err, c.want)
			require.ErrorIs(t, err, c.err)
		})
	}
}

// refusedConnection is a net.Error that is not a timeout.
type refusedConnection struct{}

func (refusedConnection) Error() string { return "connection refused" }

func (refusedConnection) Timeout() bool { return false }

func (refusedConnection) Temporary() bool { return false }
