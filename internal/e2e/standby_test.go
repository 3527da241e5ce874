//go:build linux

package e2e_test

import (
	"context"
	"fmt"
	"log/slog"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/keyring/sqlstore"
)

// If ctx ends while a commit waits for a synchronous standby, the commit does not become
// visible: a failover would lose what others have read.
func TestCommitThatWaitsIsNotExposed(t *testing.T) {
	t.Parallel()
	primary := startPostgres(t)
	standby := primary.standby()
	name := fmt.Sprint("failover/", stores.Add(1))
	s := openStore(t, primary.open(t), sqlstore.PostgreSQL, name, nil)
	ring, err := keyring.Create(t.Context(), s, fleetRoot(), &keyring.Options{Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	primary.makeSynchronous()
	standby.stop(syscall.SIGINT)
	before, _, err := s.Load(t.Context())
	require.NoError(t, err)

	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	_, err = ring.Rotate(ctx)
	require.ErrorIs(t, err, keyring.ErrStore)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	other := openStore(t, primary.open(t), sqlstore.PostgreSQL, name, nil)
	for range 10 {
		now, _, err := other.Load(t.Context())
		require.NoError(t, err)
		require.Equal(t, before, now, "nobody sees what no standby has")
		time.Sleep(50 * time.Millisecond)
	}

	standby.start()
	require.Eventually(t, func() bool { return ring.Refresh(t.Context()) == nil && len(ring.Versions()) == 2 }, patience, 50*time.Millisecond,
		"the commit goes through when the standby is back")
}

// A standby may answer with an old document, so nobody reads it.
func TestStandbyIsNotRead(t *testing.T) {
	t.Parallel()
	primary := startPostgres(t)
	name := fmt.Sprint("failover/", stores.Add(1))
	s := openStore(t, primary.open(t), sqlstore.PostgreSQL, name, nil)
	_, err := keyring.Create(t.Context(), s, fleetRoot(), &keyring.Options{Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	standby := primary.standby()
	stale := openStore(t, standby.open(t), sqlstore.PostgreSQL, name, nil)
	_, _, err = stale.Load(t.Context())
	require.ErrorIs(t, err, sqlstore.ErrStandby)
	_, err = stale.Now(t.Context())
	require.ErrorIs(t, err, sqlstore.ErrStandby)
	_, err = keyring.Open(t.Context(), stale, fleetRoot(), nil)
	require.ErrorIs(t, err, keyring.ErrStore)
	require.ErrorIs(t, err, sqlstore.ErrStandby)
}
