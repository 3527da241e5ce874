//go:build linux

package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/internal/testbed/await"
	"github.com/blobseal/blobseal/internal/testbed/captured"
	"github.com/blobseal/blobseal/internal/testbed/tcpproxy"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/keyring/sqlstore"
	"github.com/blobseal/blobseal/sse"
)

// peer is a replica whose network can fail.
type peer struct {
	ring *keyring.Ring
	mode sse.Cipher
	log  *captured.Buffer
}

// newPeer returns a replica that reaches the server at an address, and runs.
func newPeer(t *testing.T, address, document string, opts keyring.Options) *peer {
	t.Helper()
	url := urlAt(address, 5*time.Second)
	s := openStore(t, openPostgres(t, url), sqlstore.PostgreSQL, document, &sqlstore.Options{Listen: listen(url)})
	p := &peer{log: new(captured.Buffer)}
	opts.RefreshInterval = time.Second
	opts.Logger = slog.New(slog.NewTextHandler(p.log, nil))
	var err error
	p.ring, err = openOrCreateRing(t.Context(), s, &opts)
	require.NoError(t, err)
	p.mode = sse.NewManaged(p.ring)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.ring.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.ErrorIs(t, await.Value(t, ended, "Run to end"), context.Canceled)
	})
	return p
}

// A replica that is cut off continues with the versions it has, and logs that. Its errors
// name the versions that it does not know. It recovers by itself.
func TestPartition(t *testing.T) {
	t.Parallel()
	p := startPostgres(t)
	for name, failure := range map[string]tcpproxy.State{"cut": tcpproxy.Cut, "silent": tcpproxy.Silent} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // they mostly wait
			way := tcpproxy.Start(t, p.address())
			far := newPeer(t, way.Address(), name, keyring.Options{})
			near := newPeer(t, p.address(), name, keyring.Options{})
			dir := t.TempDir()
			require.NoError(t, writeObject(t.Context(), dir, "before", far.mode))
			require.NoError(t, readObject(t.Context(), dir, "before", near.mode))

			way.Set(failure)
			info, err := near.ring.Rotate(t.Context())
			require.NoError(t, err)
			require.NoError(t, writeObject(t.Context(), dir, "unknown", near.mode))

			waitless, cancel := context.WithCancel(t.Context())
			cancel() // what it has needs no store
			require.NoError(t, writeObject(waitless, dir, "alone", far.mode))
			require.NoError(t, readObject(waitless, dir, "before", far.mode))
			require.NoError(t, readObject(waitless, dir, "alone", far.mode))
			require.NoError(t, readObject(t.Context(), dir, "alone", near.mode))

			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			defer cancel()
			err = readObject(ctx, dir, "unknown", far.mode)
			require.ErrorIs(t, err, keyring.ErrUnknownKey)
			require.ErrorIs(t, err, keyring.ErrStore)
			require.ErrorContains(t, err, info.ID)
			require.Eventually(t, far.log.Contains("refresh failed, old document stays in use"), patience, 10*time.Millisecond)

			way.Set(tcpproxy.Whole)
			require.Eventually(t, func() bool { return far.ring.Stats().Generation == near.ring.Stats().Generation }, patience, 10*time.Millisecond)
			require.Eventually(t, far.log.Contains("refresh works again"), patience, 10*time.Millisecond)
			require.NoError(t, readObject(t.Context(), dir, "unknown", far.mode))
			require.NoError(t, writeObject(t.Context(), dir, "after", far.mode))
			require.NoError(t, readObject(t.Context(), dir, "after", near.mode))

			// Also by the watch: soon, and not by interval alone.
			_, err = far.ring.Rotate(t.Context())
			require.NoError(t, err)
			require.Eventually(t, func() bool { return far.ring.Stats().Generation == near.ring.Stats().Generation }, patience, 10*time.Millisecond)
		})
	}
}

// agedRing returns the document of a ring whose primary was made at a time.
func agedRing(t *testing.T, period time.Duration, made time.Time) []byte {
	t.Helper()
	made = made.Round(0) // by the wall clock
	var data []byte
	synctest.Test(t, func(t *testing.T) { // where it is the year 2000
		time.Sleep(made.Sub(time.Now().Round(0)))
		store := keyring.NewMemStore()
		_, err := keyring.Create(t.Context(), store, fleetRoot(), &keyring.Options{Period: period})
		require.NoError(t, err)
		data, _, err = store.Load(t.Context())
		require.NoError(t, err)
	})
	return data
}

// A replica that is cut off refuses to encrypt when its primary is past the hard age. It still
// decrypts, and it encrypts again when it learns of a rotation by another replica.
func TestPartitionPastHardAge(t *testing.T) {
	t.Parallel()
	p := startPostgres(t)
	const period = time.Minute
	way := tcpproxy.Start(t, p.address())
	dir := t.TempDir()
	var (
		far      *peer
		document string
		ripe     time.Time // when the primary becomes too old
	)
	for youth := 5 * time.Second; ; youth *= 2 {
		way.Set(tcpproxy.Whole)
		document, ripe = fmt.Sprint("ring", youth), time.Now().Add(youth)
		_, err := openStore(t, p.open(t), sqlstore.PostgreSQL, document, nil).Swap(t.Context(), "", agedRing(t, period, ripe.Add(-period)))
		require.NoError(t, err)
		far = newPeer(t, way.Address(), document, keyring.Options{HardAge: period})
		way.Set(tcpproxy.Cut)
		err = writeObject(t.Context(), dir, "young", far.mode)
		if errors.Is(err, keyring.ErrTooOld) && youth < period/2 {
			continue // the machine took so long to begin
		}
		require.NoError(t, err)
		break
	}
	old := far.ring.Versions()[0].ID

	time.Sleep(time.Until(ripe))
	err := writeObject(t.Context(), dir, "old", far.mode)
	require.ErrorIs(t, err, keyring.ErrTooOld)
	require.ErrorIs(t, err, keyring.ErrStore)
	require.ErrorContains(t, err, old)
	require.NoError(t, readObject(t.Context(), dir, "young", far.mode), "it still opens")
	require.True(t, far.log.Contains("rotation failed, old primary stays in use")())

	near := newPeer(t, p.address(), document, keyring.Options{HardAge: period})
	require.NoError(t, writeObject(t.Context(), dir, "elsewhere", near.mode), "others rotate")
	way.Set(tcpproxy.Whole)
	require.Eventually(t, func() bool {
		return writeObject(t.Context(), dir, "again", far.mode) == nil
	}, patience, 100*time.Millisecond)
	require.NoError(t, readObject(t.Context(), dir, "elsewhere", far.mode))
	require.Len(t, far.ring.Versions(), 2, "one rotation")
}
