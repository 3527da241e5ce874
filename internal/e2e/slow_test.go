//go:build linux

package e2e_test

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/internal/testbed/captured"
	"github.com/blobseal/blobseal/internal/testbed/tcpproxy"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/keyring/sqlstore"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/localkms"
)

// openClient opens the key service "kms" as a process of its own, or makes it.
func openClient(t *testing.T, url string, opts *localkms.Options) (*localkms.Service, *localkms.Client) {
	t.Helper()
	s := openStore(t, openPostgres(t, url), sqlstore.PostgreSQL, "kms", nil)
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	service, err := openOrCreateService(t.Context(), s, opts)
	require.NoError(t, err)
	client, err := service.Client("", "")
	require.NoError(t, err)
	return service, client
}

// If a store takes two seconds to answer, a process learns of a change after two loads at
// most: each load ends and counts, and its connection is reused.
func TestSlowStore(t *testing.T) {
	t.Parallel()
	const delay = 2 * time.Second
	p := startPostgres(t)
	_, administrator := openClient(t, p.url(), &localkms.Options{})
	for name, runs := range map[string]bool{"with Run": true, "without Run": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			key, err := administrator.CreateKey(t.Context(), nil)
			require.NoError(t, err)
			way := tcpproxy.Start(t, p.address())
			service, client := openClient(t, urlAt(way.Address(), time.Minute), &localkms.Options{})
			ctx, cancel := context.WithCancel(t.Context())
			var running sync.WaitGroup
			defer running.Wait()
			defer cancel()
			if runs {
				running.Go(func() { service.Run(ctx) })
			}
			_, err = client.GenerateDataKey(ctx, key.ID, nil)
			require.NoError(t, err)
			way.Delay(delay)
			require.NoError(t, service.Refresh(ctx))
			require.NoError(t, administrator.DisableKey(ctx, key.ID))
			disabled, uses := time.Now(), 0
			var last time.Time
			for {
				began := time.Now()
				_, err := client.GenerateDataKey(ctx, key.ID, nil)
				if err != nil {
					require.ErrorIs(t, err, kms.ErrDisabled)
					break
				}
				last = began
				uses++
				require.Less(t, time.Since(disabled), patience, "the key still serves")
				time.Sleep(10 * time.Millisecond)
			}
			t.Logf("the key served %d times more, the last time %v after it was disabled", uses, last.Sub(disabled).Round(time.Millisecond))
			require.Less(t, last.Sub(disabled), 15*time.Second, "4 s, and time for a slow machine")
		})
	}
}

// A process is redirected to a standby that lags. It learns nothing new, reports that, and
// uses what it knows for MaxStaleness. It does not deny for good what it does not know.
func TestStandbyThatLags(t *testing.T) {
	t.Parallel()
	primary := startPostgres(t)
	_, administrator := openClient(t, primary.url(), &localkms.Options{})
	key, err := administrator.CreateKey(t.Context(), nil)
	require.NoError(t, err)
	ciphertext, err := administrator.Encrypt(t.Context(), key.ID, []byte("x"), nil)
	require.NoError(t, err)
	standby := primary.standby()
	standby.exec(t, `SELECT pg_wal_replay_pause()`)

	way, log := tcpproxy.Start(t, primary.address()), new(captured.Buffer)
	const staleness = 3 * time.Second
	service, client := openClient(t, urlAt(way.Address(), time.Minute), &localkms.Options{MaxStaleness: staleness, Logger: slog.New(slog.NewTextHandler(log, nil))})
	require.NoError(t, service.Refresh(t.Context()))
	way.Redirect(standby.address())
	require.NoError(t, administrator.DisableKey(t.Context(), key.ID))
	_, err = administrator.RotateKey(t.Context(), key.ID)
	require.ErrorIs(t, err, kms.ErrDisabled)
	disabled := time.Now()
	other, err := administrator.CreateKey(t.Context(), nil)
	require.NoError(t, err)
	_, err = client.GenerateDataKey(t.Context(), other.ID, nil)
	require.ErrorIs(t, err, kms.ErrUnavailable)
	require.NotErrorIs(t, err, kms.ErrNotFound)

	var last time.Time
	for err = error(nil); err == nil; time.Sleep(10 * time.Millisecond) {
		began := time.Now()
		if _, err = client.Decrypt(t.Context(), key.ID, ciphertext, nil); err == nil {
			last = began
		}
		require.Less(t, time.Since(disabled), patience, "the key still serves")
	}
	require.ErrorIs(t, err, kms.ErrUnavailable)
	require.ErrorIs(t, err, sqlstore.ErrStandby)
	require.Less(t, last.Sub(disabled), staleness+time.Second)
	require.True(t, log.Contains("server is a standby")())
	way.Redirect(primary.address())
	require.Eventually(t, func() bool {
		_, err := client.Decrypt(t.Context(), key.ID, ciphertext, nil)
		return isError(err, kms.ErrDisabled)
	}, patience, 20*time.Millisecond, "the primary is heard again")
}

// Processes use the database's clock. If their own clock is a year off, they rotate nothing,
// move no schedule and delete no key early.
func TestWrongClocks(t *testing.T) {
	t.Parallel()
	p := startPostgres(t)
	ctx := t.Context()
	quiet := slog.New(slog.DiscardHandler)
	_, administrator := openClient(t, p.url(), &localkms.Options{})
	key, err := administrator.CreateKey(ctx, &localkms.CreateKeyInput{RotationDays: 90})
	require.NoError(t, err)
	rings := openStore(t, p.open(t), sqlstore.PostgreSQL, "clocks/ring", nil)
	ring, err := keyring.Create(ctx, rings, fleetRoot(), &keyring.Options{Logger: quiet})
	require.NoError(t, err)
	for name, off := range map[string]time.Duration{"ahead": 365 * 24 * time.Hour, "behind": -365 * 24 * time.Hour} {
		now := func() time.Time { return time.Now().Add(off) }
		wrong, err := keyring.Open(ctx, rings, fleetRoot(), &keyring.Options{Logger: quiet, Now: now})
		require.NoError(t, err)
		_, _ = wrong.Primary(ctx)
		_, err = wrong.RotateIfDue(ctx)
		var differ *keyring.ClockError
		if off > 0 {
			require.ErrorAs(t, err, &differ, name)
		}
		_, err = wrong.Rotate(ctx)
		require.ErrorAs(t, err, &differ, name)
		require.NoError(t, ring.Refresh(ctx))
		require.Len(t, ring.Versions(), 1, name)

		_, client := openClient(t, p.url(), &localkms.Options{Now: now})
		_, err = client.GenerateDataKey(ctx, key.ID, nil)
		require.NoError(t, err, name)
		info, err := administrator.DescribeKey(ctx, key.ID)
		require.NoError(t, err)
		require.Equal(t, key.Rotation, info.Rotation, name)

		doomed, err := administrator.CreateKey(ctx, nil)
		require.NoError(t, err)
		when, err := client.ScheduleKeyDeletion(ctx, doomed.ID, 30)
		require.NoError(t, err, name)
		require.WithinDuration(t, time.Now().AddDate(0, 0, 30), when, time.Hour, name)
		_, _ = client.GenerateDataKey(ctx, doomed.ID, nil)
		_, later := openClient(t, p.url(), &localkms.Options{})
		require.NoError(t, later.CancelKeyDeletion(ctx, doomed.ID), name)
	}
}
