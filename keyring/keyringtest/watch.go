package keyringtest

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/keyring"
)

// watch is a running call of Watch.
type watch struct {
	patience time.Duration
	cancel   context.CancelFunc
	called   chan struct{} // holds a value if changed was called since the last drain
	ended    chan error    // what Watch returned
	over     atomic.Bool   // Watch has returned
	late     atomic.Bool   // changed was called after that
}

// startWatch begins a watch of s, and waits until it has begun.
func (c *contract) startWatch(ctx context.Context, t *testing.T, s keyring.Store) *watch {
	t.Helper()
	watcher, ok := s.(keyring.Watcher)
	require.True(t, ok, "store is no keyring.Watcher")
	w := &watch{patience: c.caps.patience, called: make(chan struct{}, 1), ended: make(chan error, 1)}
	ctx, w.cancel = context.WithCancel(ctx)
	t.Cleanup(w.cancel)
	go func() {
		err := watcher.Watch(ctx, func() {
			if w.over.Load() {
				w.late.Store(true)
			}
			select {
			case w.called <- struct{}{}:
			default:
			}
		})
		w.over.Store(true)
		w.ended <- err
	}()
	w.awaitCall(t, "that the watch has begun")
	return w
}

// awaitCall fails the test unless changed is called, now or soon.
func (w *watch) awaitCall(t *testing.T, of string) {
	t.Helper()
	select {
	case <-w.called:
	case err := <-w.ended:
		require.FailNow(t, "watch ended", "%v", err)
	case <-time.After(w.patience):
		require.FailNow(t, "watch was not told "+of)
	}
}

// drain forgets earlier calls.
func (w *watch) drain() {
	select {
	case <-w.called:
	default:
	}
}

// wait waits until Watch returns, and returns its error.
func (w *watch) wait(t *testing.T) error {
	t.Helper()
	select {
	case err := <-w.ended:
		return err
	case <-time.After(w.patience):
		require.FailNow(t, "watch did not return")
		return nil
	}
}

// needWatch skips a test if the stores cannot watch.
func (c *contract) needWatch(t *testing.T) {
	t.Helper()
	if !c.caps.Watches {
		t.Skip("cannot watch")
	}
}

func (c *contract) cannotWatch(t *testing.T) {
	if c.caps.Watches {
		t.Skip("it can")
	}
	ctx, s := c.start(t)
	w, ok := s.(keyring.Watcher)
	if !ok {
		t.Skip("store is no keyring.Watcher")
	}
	ctx, cancel := context.WithTimeout(ctx, c.caps.patience)
	defer cancel()
	require.ErrorIs(t, w.Watch(ctx, func() {}), errors.ErrUnsupported)
}

func (c *contract) watchEnds(t *testing.T) {
	c.needWatch(t)
	ctx, s := c.start(t)
	w := c.startWatch(ctx, t, s) // also while there is no document
	w.cancel()
	require.ErrorIs(t, w.wait(t), context.Canceled)
	version := put(ctx, t, s, "one")

	expired, cancel := context.WithDeadline(ctx, time.Unix(1, 0))
	defer cancel()
	require.ErrorIs(t, s.(keyring.Watcher).Watch(expired, func() {}), context.DeadlineExceeded)

	other := c.startWatch(ctx, t, s)
	other.drain()
	_, err := s.Swap(ctx, version, []byte("two"))
	require.NoError(t, err)
	other.awaitCall(t, "of a change")
	require.Never(t, w.late.Load, 50*time.Millisecond, 10*time.Millisecond, "a watch called changed after it had returned")
	other.cancel()
	require.ErrorIs(t, other.wait(t), context.Canceled)
}

func (c *contract) watchHears(t *testing.T) {
	c.needWatch(t)
	ctx, s := c.start(t)
	handles := []keyring.Store{s}
	if c.caps.Another != nil {
		handles = append(handles, c.caps.Another(t, s))
	}
	watches := []*watch{c.startWatch(ctx, t, s), c.startWatch(ctx, t, handles[len(handles)-1])}
	version := ""
	for i := range 6 {
		for _, w := range watches {
			w.drain()
		}
		var err error
		version, err = handles[i%len(handles)].Swap(ctx, version, []byte{byte(i)})
		require.NoError(t, err)
		for _, w := range watches {
			w.awaitCall(t, "of a change")
		}
	}
	for _, w := range watches {
		w.cancel()
		require.ErrorIs(t, w.wait(t), context.Canceled)
	}
}

func (c *contract) watchBreaks(t *testing.T) {
	c.needWatch(t)
	if c.caps.BreakWatch == nil {
		t.Skip("watch cannot be broken")
	}
	ctx, s := c.start(t)
	version := put(ctx, t, s, "one")
	broken := c.startWatch(ctx, t, s)
	c.caps.BreakWatch(t, s)
	require.Error(t, broken.wait(t), "of the watch that broke")
	require.NoError(t, ctx.Err())

	w := c.startWatch(ctx, t, s)
	w.drain()
	_, err := s.Swap(ctx, version, []byte("two"))
	require.NoError(t, err)
	w.awaitCall(t, "of a change")
	w.cancel()
	require.ErrorIs(t, w.wait(t), context.Canceled)
}

func (c *contract) ringWatches(t *testing.T) {
	c.needWatch(t)
	ctx, s := c.start(t)
	other := s
	if c.caps.Another != nil {
		other = c.caps.Another(t, s)
	}
	root, err := keyring.NewKeyRoot(slices.Repeat([]byte{1}, 32))
	require.NoError(t, err)
	quiet := slog.New(slog.DiscardHandler)
	ring, err := keyring.Create(ctx, s, root, &keyring.Options{Logger: quiet})
	require.NoError(t, err)
	replica, err := keyring.Open(ctx, other, root, &keyring.Options{Logger: quiet, RefreshInterval: 24 * time.Hour})
	require.NoError(t, err)
	run, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- replica.Run(run) }()
	for range 3 {
		_, err := ring.Rotate(ctx)
		require.NoError(t, err)
		require.Eventually(t, func() bool { return replica.Stats().Generation == ring.Stats().Generation }, c.caps.patience, 10*time.Millisecond,
			"the replica does not know of the rotation")
	}
	stop()
	require.ErrorIs(t, <-ended, context.Canceled)
}
