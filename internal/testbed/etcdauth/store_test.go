package etcdauth

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/keyring/etcdstore"
	"github.com/blobseal/blobseal/keyring/keyringtest"
)

var keys atomic.Int64

// store is an etcdstore that knows where it is.
type store struct {
	*etcdstore.Store
	client *clientv3.Client
	key    string
}

func open(t testing.TB, s *server, user, key string) store {
	t.Helper()
	opened := store{client: s.connect(t, user), key: key}
	var err error
	opened.Store, err = etcdstore.New(opened.client, key)
	require.NoError(t, err)
	return opened
}

// TestStore runs the suite of ring stores with a user's password and over TLS.
func TestStore(t *testing.T) {
	s := startServer(t)
	keyringtest.Run(t, func(t *testing.T) keyring.Store {
		return open(t, s, "blobs", fmt.Sprint("/blobs/ring-", keys.Add(1)))
	}, keyringtest.Capabilities{
		Another: func(t *testing.T, st keyring.Store) keyring.Store { return open(t, s, "blobs", st.(store).key) },
		Reopen: func(t *testing.T, st keyring.Store) keyring.Store {
			require.NoError(t, st.(store).client.Close())
			s.restart()
			return open(t, s, "blobs", st.(store).key)
		},
		Break:   func(t *testing.T, st keyring.Store) { require.NoError(t, st.(store).client.Close()) },
		Watches: true,
	})
}

// TestClientRecovers: a client that is open goes on after its token has expired and
// after the server has restarted, which forgets all tokens. Debian's server 3.4.23
// never lets it: see the package documentation of etcdstore.
func TestClientRecovers(t *testing.T) {
	s := startServer(t)
	st := open(t, s, "blobs", "/blobs/ring")
	version, err := st.Swap(t.Context(), "", []byte("one"))
	require.NoError(t, err)
	eventually := func(what string) {
		t.Helper()
		var err error
		for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			var data []byte
			data, version, err = st.Load(ctx)
			if err == nil {
				require.Equal(t, "one", string(data))
				version, err = st.Swap(ctx, version, []byte("one"))
			}
			cancel()
			if err == nil {
				return
			}
		}
		require.NoError(t, err, "%s: the client does not recover", what)
	}
	time.Sleep(2 * tokenTTL * time.Second)
	eventually("token expired")
	s.restart()
	eventually("server restarted")
}

// TestWatchRecovers: Run begins a watch again after the server has restarted.
func TestWatchRecovers(t *testing.T) {
	s := startServer(t)
	st := open(t, s, "blobs", "/blobs/ring")
	watch := func(ctx context.Context, changed chan<- struct{}) <-chan error {
		ended := make(chan error, 1)
		go func() {
			ended <- st.Watch(ctx, func() {
				select {
				case changed <- struct{}{}:
				default:
				}
			})
		}()
		return ended
	}
	await := func(changed <-chan struct{}, what string) {
		t.Helper()
		select {
		case <-changed:
		case <-time.After(patience):
			require.FailNow(t, "no notice: "+what)
		}
	}
	changed := make(chan struct{}, 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	watch(ctx, changed)
	await(changed, "watch began")
	s.restart()
	cancel()

	changed = make(chan struct{}, 1)
	ctx, cancel = context.WithCancel(t.Context())
	defer cancel()
	watch(ctx, changed)
	await(changed, "watch began after the restart")
	other := open(t, s, "blobs", "/blobs/ring")
	_, err := other.Swap(t.Context(), "", []byte("one"))
	require.NoError(t, err)
	await(changed, "change after the restart")
}

// TestDenied: a user without permission gets an error, and never "no document",
// upon which a caller might create one.
func TestDenied(t *testing.T) {
	s := startServer(t)
	_, err := open(t, s, "blobs", "/blobs/ring").Swap(t.Context(), "", []byte("one"))
	require.NoError(t, err)
	for name, st := range map[string]store{
		"stranger": open(t, s, "stranger", "/blobs/ring"), "other key": open(t, s, "blobs", "/others/ring"), "nobody": open(t, s, "", "/blobs/ring"),
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			_, _, err := st.Load(ctx)
			require.Error(t, err)
			require.NotErrorIs(t, err, keyring.ErrNotExist)
			_, err = st.Swap(ctx, "", []byte("two"))
			require.Error(t, err)
			require.NotErrorIs(t, err, keyring.ErrConflict)
		})
	}
}
