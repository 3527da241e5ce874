package etcdstore_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/blobseal/blobseal/internal/testbed/await"
	"github.com/blobseal/blobseal/internal/testbed/tcpproxy"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/keyring/etcdstore"
	"github.com/blobseal/blobseal/keyring/keyringtest"
)

// TestMain runs tests that mostly wait for servers at once, by default more of them than
// there are processors.
func TestMain(m *testing.M) {
	flag.Set("test.parallel", "6")
	os.Exit(m.Run())
}

var keys atomic.Int64

// store is an etcdstore that knows where it is.
type store struct {
	*etcdstore.Store
	client *clientv3.Client
	proxy  *tcpproxy.Proxy
	key    string
}

func open(t testing.TB, e *etcd, key string) store {
	t.Helper()
	s := store{proxy: tcpproxy.Start(t, e.address()), key: key}
	s.client = e.connect(t, s.proxy.Address())
	var err error
	s.Store, err = etcdstore.New(s.client, key)
	require.NoError(t, err)
	return s
}

func TestStore(t *testing.T) {
	t.Parallel()
	e := startEtcd(t)
	direct := e.connect(t, e.address())
	keyringtest.Run(t, func(t *testing.T) keyring.Store {
		return open(t, e, fmt.Sprint("/ring/", keys.Add(1)))
	}, keyringtest.Capabilities{
		Another: func(t *testing.T, s keyring.Store) keyring.Store { return open(t, e, s.(store).key) },
		Reopen: func(t *testing.T, s keyring.Store) keyring.Store {
			require.NoError(t, s.(store).client.Close())
			e.kill()
			e.start()
			return open(t, e, s.(store).key)
		},
		Break:   func(t *testing.T, s keyring.Store) { require.NoError(t, s.(store).client.Close()) },
		Watches: true,
		BreakWatch: func(t *testing.T, s keyring.Store) {
			// Compaction removes the revision from which the watch continues when it reconnects.
			p := s.(store).proxy
			p.Set(tcpproxy.Cut)
			var last int64
			for range 3 {
				put, err := direct.Put(t.Context(), "/elsewhere", "x")
				require.NoError(t, err)
				last = put.Header.Revision
			}
			_, err := direct.Put(t.Context(), "/elsewhere", "x")
			require.NoError(t, err)
			_, err = direct.Compact(t.Context(), last)
			require.NoError(t, err)
			p.Set(tcpproxy.Whole)
		},
	})
}

func TestNewRefuses(t *testing.T) {
	_, err := etcdstore.New(nil, "/ring")
	require.Error(t, err)
	_, err = etcdstore.New(&clientv3.Client{}, "")
	require.Error(t, err)
}

// Only versions that the store returned are versions.
func TestForeignVersions(t *testing.T) {
	t.Parallel()
	s := open(t, startEtcd(t), "/ring")
	v1, err := s.Swap(t.Context(), "", []byte("one"))
	require.NoError(t, err)
	revision, sum, found := strings.Cut(v1, "-")
	require.True(t, found)
	for _, version := range []string{
		revision, revision + "-", "-" + sum, revision + sum, "0" + v1, "+" + v1, " " + v1, "-" + v1, v1 + "0", "x-" + sum,
		revision + "-" + strings.Repeat("0", len(sum)), // of another document, in a cluster that was restored since
		revision + "-" + strings.Repeat("g", len(sum)), revision + "-" + strings.ToUpper(sum) + "A", "99999999999999999999-" + sum, "0-" + sum,
	} {
		_, err := s.Swap(t.Context(), version, []byte("two"))
		require.ErrorIs(t, err, keyring.ErrConflict, "%q", version)
	}
	_, err = s.Swap(t.Context(), v1, nil)
	require.Error(t, err)
	require.NotErrorIs(t, err, keyring.ErrConflict)
	_, err = s.Swap(t.Context(), v1, []byte("two"))
	require.NoError(t, err)
}

// A key that was deleted and created again holds another document.
func TestDeletedKey(t *testing.T) {
	t.Parallel()
	s := open(t, startEtcd(t), "/ring")
	v1, err := s.Swap(t.Context(), "", []byte("one"))
	require.NoError(t, err)
	_, err = s.client.Delete(t.Context(), "/ring")
	require.NoError(t, err)
	_, _, err = s.Load(t.Context())
	require.ErrorIs(t, err, keyring.ErrNotExist)
	_, err = s.Swap(t.Context(), v1, []byte("two"))
	require.ErrorIs(t, err, keyring.ErrConflict)
	again, err := s.Swap(t.Context(), "", []byte("one"))
	require.NoError(t, err)
	require.NotEqual(t, v1, again)
}

// A ring keeps working while its server is down, and logs that. When the server is back, the
// ring hears of changes again, although its watch never ended.
func TestRingThroughARestart(t *testing.T) {
	t.Parallel()
	e := startEtcd(t)
	s, other := open(t, e, "/ring"), open(t, e, "/ring")
	root, err := keyring.NewKeyRoot([]byte(strings.Repeat("\x01", 32)))
	require.NoError(t, err)
	quiet := &keyring.Options{Logger: slog.New(slog.DiscardHandler), RefreshInterval: time.Hour}
	ring, err := keyring.Create(t.Context(), s, root, quiet)
	require.NoError(t, err)
	replica, err := keyring.Open(t.Context(), other, root, quiet)
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- replica.Run(ctx) }()
	heard := func() bool { return replica.Stats().Generation == ring.Stats().Generation }

	_, err = ring.Rotate(ctx)
	require.NoError(t, err)
	require.Eventually(t, heard, await.Longest, 10*time.Millisecond, "the replica hears of the rotation")

	e.kill()
	down, cancel := context.WithTimeout(ctx, time.Second)
	_, err = ring.Rotate(down)
	cancel()
	require.ErrorIs(t, err, keyring.ErrStore)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	_, err = replica.Primary(ctx)
	require.NoError(t, err)

	e.start()
	_, err = ring.Rotate(ctx)
	require.NoError(t, err)
	require.Eventually(t, heard, await.Longest, 10*time.Millisecond, "the replica hears of the rotation after the restart")
	stop()
	require.ErrorIs(t, await.Value(t, ended, "Run to end"), context.Canceled)
}

// A cluster that is restored from a snapshot loses a rotation, and its revisions go back. A
// running ring writes the version back, although its watch may hear nothing.
func TestRingHealsARestoredCluster(t *testing.T) {
	t.Parallel()
	e := startEtcd(t)
	root, err := keyring.NewKeyRoot([]byte(strings.Repeat("\x01", 32)))
	require.NoError(t, err)
	quiet := &keyring.Options{Logger: slog.New(slog.DiscardHandler), RefreshInterval: time.Second}
	ring, err := keyring.Create(t.Context(), open(t, e, "/ring"), root, quiet)
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- ring.Run(ctx) }()

	data, snapshot := filepath.Join(e.dir, "data"), filepath.Join(e.dir, "snapshot")
	e.kill()
	require.NoError(t, os.CopyFS(snapshot, os.DirFS(data)))
	e.start()
	lost, err := ring.Rotate(ctx)
	require.NoError(t, err)
	e.kill()
	require.NoError(t, os.RemoveAll(data))
	require.NoError(t, os.Rename(snapshot, data))
	e.start()

	require.Eventually(t, func() bool {
		fresh, err := keyring.Open(ctx, open(t, e, "/ring"), root, quiet)
		if err != nil {
			return false
		}
		_, err = fresh.Key(ctx, lost.ID)
		return err == nil
	}, time.Minute, 200*time.Millisecond, "a new process knows the version that the snapshot lacks")
	stop()
	require.ErrorIs(t, await.Value(t, ended, "Run to end"), context.Canceled)
}

// Watches leave no goroutine behind, however they end.
func TestWatchesLeaveNothing(t *testing.T) {
	s := open(t, startEtcd(t), "/ring")
	watch := func() {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		err := s.Watch(ctx, cancel) // ends as soon as it has begun
		if !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
	watch()
	before := runtime.NumGoroutine()
	for range 50 {
		watch()
	}
	require.Eventually(t, func() bool { return runtime.NumGoroutine() <= before+3 }, await.Longest, 10*time.Millisecond,
		"goroutines of watches that have ended")
}
