//go:build linux

package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/keyring/sqlstore"
)

// member is a replica of a fleet that seals all the time.
type member struct {
	ring *keyring.Ring
	log  *lines
	stop func()

	mu     sync.Mutex
	sealed []sealed
}

type sealed struct {
	id    string
	bytes []byte
}

// joinFleet opens the ring at a port as a process of its own, and has it seal.
func joinFleet(t *testing.T, port int, name string) *member {
	t.Helper()
	url := fmt.Sprintf("postgres://postgres@127.0.0.1:%d/postgres?sslmode=disable&connect_timeout=5", port)
	m := &member{log: new(lines)}
	opts := &keyring.Options{RefreshInterval: time.Second, Logger: slog.New(slog.NewTextHandler(m.log, nil))}
	s := openStore(t, openPostgres(t, url), sqlstore.PostgreSQL, name, nil)
	var err error
	m.ring, err = keyring.Open(t.Context(), s, fleetRoot(), opts)
	if errors.Is(err, keyring.ErrNotExist) {
		m.ring, err = keyring.Create(t.Context(), s, fleetRoot(), opts)
	}
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	var working sync.WaitGroup
	working.Go(func() { m.ring.Run(ctx) })
	working.Go(func() {
		for ctx.Err() == nil {
			m.seal(ctx)
			time.Sleep(2 * time.Millisecond)
		}
	})
	m.stop = func() { cancel(); working.Wait() }
	t.Cleanup(m.stop)
	return m
}

func (m *member) seal(ctx context.Context) {
	key, err := m.ring.Primary(ctx)
	if err != nil {
		return // refused: nothing is lost
	}
	b, err := key.Seal([]byte("data key"), nil)
	if err != nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sealed = append(m.sealed, sealed{key.ID(), b})
}

// A failover to an asynchronous standby loses a rotation and a disabling, and processes
// that start afterwards go on from what is left. Those that run put it right by
// themselves: everything that was sealed opens in a new process, and what was disabled
// stays disabled.
func TestFailoverThatLosesChanges(t *testing.T) {
	primary := startPostgres(t)
	standby := primary.standby()
	way := newProxy(t, primary.address())
	name := fmt.Sprint("failover/", stores.Add(1))
	var fleet []*member
	for range 4 {
		fleet = append(fleet, joinFleet(t, way.port(), name))
	}
	one := fleet[0].ring
	first := one.Versions()[0].ID
	_, err := one.Rotate(t.Context())
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		var here, there string
		const query = `SELECT version FROM blobseal_documents WHERE name = $1`
		return primary.open(t).QueryRow(query, name).Scan(&here) == nil &&
			standby.open(t).QueryRow(query, name).Scan(&there) == nil && here == there
	}, patience, 50*time.Millisecond, "the standby has the ring")

	standby.stop(syscall.SIGINT) // what follows is not replicated
	_, err = one.Rotate(t.Context())
	require.NoError(t, err)
	lost := one.Versions()[len(one.Versions())-1].ID
	_, err = one.SetState(t.Context(), first, keyring.Disabled)
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		for _, m := range fleet {
			if m.ring.Generation() != one.Generation() {
				return false
			}
		}
		return true
	}, patience, 20*time.Millisecond, "all know of it")
	time.Sleep(100 * time.Millisecond) // and seal under it

	primary.stop(syscall.SIGQUIT)
	standby.start()
	standby.exec(t, `SELECT pg_promote()`)
	direct := joinFleet(t, standby.Port, name) // a new process, before anyone else
	_, unknown := direct.ring.Key(t.Context(), lost)
	_, err = direct.ring.Rotate(t.Context())
	require.NoError(t, err)
	t.Logf("after the failover, a new process says of the lost version: %v", unknown)
	way.lead(standby.address())
	promoted := time.Now()
	fleet = append(fleet, direct)

	fresh := func() *keyring.Ring {
		s := openStore(t, standby.open(t), sqlstore.PostgreSQL, name, nil)
		ring, err := keyring.Open(t.Context(), s, fleetRoot(), &keyring.Options{Logger: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		return ring
	}
	require.Eventually(t, func() bool {
		want := fresh().Generation()
		for _, m := range fleet {
			if m.ring.Generation() != want || len(m.ring.Versions()) != 4 {
				return false
			}
		}
		return true
	}, patience, 100*time.Millisecond, "the fleet agrees again")
	t.Logf("healed in %v", time.Since(promoted).Round(time.Millisecond))
	time.Sleep(100 * time.Millisecond)

	ring := fresh()
	total, underLost := 0, 0
	loud := false
	for _, m := range fleet {
		m.stop()
		loud = loud || m.log.contains("store had lost changes")()
		for _, s := range m.sealed {
			if s.id == first {
				continue // disabled
			}
			key, err := ring.Key(t.Context(), s.id)
			require.NoError(t, err)
			_, err = key.Open(s.bytes, nil)
			require.NoError(t, err)
			total++
			if s.id == lost {
				underLost++
			}
		}
	}
	t.Logf("%d seals, %d of them under the lost version; none is lost", total, underLost)
	require.Positive(t, underLost)
	require.True(t, loud, "it is logged")
	_, err = ring.Key(t.Context(), first)
	require.ErrorIs(t, err, keyring.ErrDisabled, "what was taken away stays away")
}

// A commit that waits for a synchronous standby when its ctx ends is not made visible: a
// failover would lose what others have read.
func TestCommitThatWaitsIsNotExposed(t *testing.T) {
	primary := startPostgres(t)
	standby := primary.standby()
	name := fmt.Sprint("failover/", stores.Add(1))
	s := openStore(t, primary.open(t), sqlstore.PostgreSQL, name, nil)
	ring, err := keyring.Create(t.Context(), s, fleetRoot(), &keyring.Options{Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	primary.exec(t, `ALTER SYSTEM SET synchronous_standby_names = '*'`, `SELECT pg_reload_conf()`)
	standby.stop(syscall.SIGINT)
	before, _, err := s.Load(t.Context())
	require.NoError(t, err)

	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
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

// A standby answers, but perhaps with what was true a while ago.
func TestStandbyIsNotRead(t *testing.T) {
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
