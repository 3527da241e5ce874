//go:build linux

package e2e_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/internal/testbed/tcpproxy"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/keyring/sqlstore"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/localkms"
)

// failover is a fleet in two camps, over a primary with a standby.
type failover struct {
	t                *testing.T
	primary, standby *postgres
	camps            [2]*tcpproxy.Proxy
	fleet            []*member         // of the first camp, and as many of the second
	name             string            // of the documents
	keys             map[string]string // ids of the service's keys, by what becomes of them
	first            string            // version of the ring
	grant            *localkms.Grant   // of the key "revoked", to the guest
	loses            bool              // the scenario loses changes
}

const (
	denied    = `forbid (principal == Principal::"guest", action, resource); permit (principal, action, resource);`
	adminOnly = `permit (principal == Principal::"admin", action, resource);`
)

// newFailover starts a fleet. The standby has all of its keys.
func newFailover(t *testing.T) *failover {
	f := &failover{t: t, name: fmt.Sprint("failover/", stores.Add(1)), keys: map[string]string{}}
	f.primary = startPostgres(t)
	f.standby = f.primary.standby()
	for i := range f.camps {
		f.camps[i] = tcpproxy.Start(t, f.primary.address())
		for range 2 {
			f.fleet = append(f.fleet, join(t, f.camps[i].Address(), f.name))
		}
	}
	f.first = f.member(0).ring.Versions()[0].ID
	_, err := f.member(0).ring.Rotate(t.Context())
	require.NoError(t, err)
	ctx := admin(t.Context())
	for _, what := range []string{"tagged", "rotated", "disabled", "denied", "scheduled", "revoked", "other"} {
		k, err := f.member(0).client.CreateKey(ctx, nil)
		require.NoError(t, err)
		f.keys[what] = k.ID
	}
	f.grant, err = f.member(0).client.CreateGrant(ctx, f.keys["revoked"], &localkms.CreateGrantInput{
		Grantee: "guest", Operations: []kms.Operation{localkms.OpEncrypt, kms.OpDecrypt},
	})
	require.NoError(t, err)
	require.NoError(t, f.member(0).client.PutKeyPolicy(ctx, f.keys["revoked"], adminOnly, nil))
	for _, m := range f.fleet {
		m.work(t, slices.Collect(maps.Values(f.keys)))
	}
	f.work()
	f.awaitReplication()
	return f
}

// member returns a member of a camp.
func (f *failover) member(camp int) *member { return f.fleet[2*camp] }

// work lets the fleet work for a while.
func (f *failover) work() { time.Sleep(stress(f.t) / 10) }

// awaitReplication waits until the standby has all documents.
func (f *failover) awaitReplication() {
	f.t.Helper()
	const query = `SELECT string_agg(version, ' ' ORDER BY name) FROM blobseal_documents`
	here, there := f.primary.open(f.t), f.standby.open(f.t)
	require.Eventually(f.t, func() bool {
		var a, b string
		return here.QueryRow(query).Scan(&a) == nil && there.QueryRow(query).Scan(&b) == nil && a == b
	}, patience, 50*time.Millisecond, "the standby has all documents")
}

// awaitAgreement waits until all members know what one knows.
func (f *failover) awaitAgreement(one *member, members ...*member) {
	f.t.Helper()
	require.Eventually(f.t, func() bool {
		for _, m := range members {
			if m.ring.Stats().Generation != one.ring.Stats().Generation || m.service.Stats().Generation != one.service.Stats().Generation {
				return false
			}
		}
		return true
	}, patience, 20*time.Millisecond, "all know of it")
}

// takeAway disables and revokes in the first camp, and adds versions.
func (f *failover) takeAway() {
	t, ctx, c := f.t, admin(f.t.Context()), f.member(0).client
	_, err := f.member(0).ring.Rotate(ctx)
	require.NoError(t, err)
	_, err = f.member(0).ring.SetState(ctx, f.first, keyring.Disabled)
	require.NoError(t, err)
	require.NoError(t, c.Tag(ctx, f.keys["tagged"], map[string]string{"lost": "yes"}))
	_, err = c.RotateKey(ctx, f.keys["rotated"])
	require.NoError(t, err)
	require.NoError(t, c.DisableKey(ctx, f.keys["disabled"]))
	require.NoError(t, c.PutKeyPolicy(ctx, f.keys["denied"], denied, nil))
	_, err = c.ScheduleKeyDeletion(ctx, f.keys["scheduled"], 7)
	require.NoError(t, err)
	require.NoError(t, c.RevokeGrant(ctx, f.keys["revoked"], f.grant.ID))
}

// changeMore makes changes as processes do that know nothing of takeAway.
func changeMore(t *testing.T, m *member, key string) {
	ctx := admin(t.Context())
	for _, act := range []func() error{
		func() error { _, err := m.ring.Rotate(ctx); return err },
		func() error { _, err := m.client.CreateKey(ctx, nil); return err },
		func() error { _, err := m.client.RotateKey(ctx, key); return err },
	} {
		// A connection of before the failover may break only now.
		require.Eventually(t, func() bool { return act() == nil }, patience, 20*time.Millisecond, "a change succeeds")
	}
}

// promote makes the standby the primary.
func (f *failover) promote() { f.standby.exec(f.t, `SELECT pg_promote()`) }

// failOver makes the standby, which was stopped, the primary after a crash.
func (f *failover) failOver() {
	f.primary.stop(syscall.SIGQUIT)
	f.standby.start()
	f.promote()
}

// redirect makes a camp connect to the standby.
func (f *failover) redirect(camp int) { f.camps[camp].Redirect(f.standby.address()) }

// startMember starts a process over the standby.
func (f *failover) startMember() *member { return join(f.t, f.standby.address(), f.name) }

// awaitHealing waits until the whole fleet and a new process agree, and what was lost is back.
func (f *failover) awaitHealing() {
	f.t.Helper()
	begin := time.Now()
	require.Eventually(f.t, func() bool {
		now := f.startMember()
		for _, m := range f.fleet {
			if m.ring.Stats().Generation != now.ring.Stats().Generation || m.service.Stats().Generation != now.service.Stats().Generation {
				return false
			}
		}
		return f.listMissing(now) == nil
	}, patience, 100*time.Millisecond, "the fleet agrees again")
	f.t.Logf("healed in %v", time.Since(begin).Round(10*time.Millisecond))
}

// isError reports whether err is want, which may be nil.
func isError(err, want error) bool {
	return want == nil && err == nil || want != nil && errors.Is(err, want)
}

// listMissing returns what of takeAway does not hold at a member.
func (f *failover) listMissing(m *member) (missing []string) {
	ctx := f.t.Context()
	for what, want := range map[string]error{
		"tagged": nil, "rotated": nil, "other": nil, "disabled": kms.ErrDisabled, "denied": kms.ErrDenied,
		"scheduled": kms.ErrPendingDeletion, "revoked": kms.ErrDenied,
	} {
		if err := m.client.Authorize(guest(ctx), localkms.OpEncrypt, f.keys[what], nil); !isError(err, want) {
			missing = append(missing, fmt.Sprintf("%s: %v", what, err))
		}
	}
	if k, err := m.client.DescribeKey(admin(ctx), f.keys["tagged"]); err != nil || k.Tags["lost"] != "yes" {
		missing = append(missing, "tag")
	}
	if _, err := m.ring.Key(ctx, f.first); !isError(err, keyring.ErrDisabled) {
		missing = append(missing, fmt.Sprintf("version: %v", err))
	}
	return missing
}

// verify ends the fleet. Everything that was taken away must be taken away everywhere. After
// an administrator has restored it, all objects must open in a new process.
func (f *failover) verify() {
	t := f.t
	t.Helper()
	f.work()
	var objects []object
	loud := 0
	for _, m := range f.fleet {
		m.stop()
		require.Empty(t, f.listMissing(m))
		objects = append(objects, m.written()...)
		if m.log.Contains("store had lost changes")() {
			loud++
		}
	}
	require.Equal(t, f.loses, loud > 0, "what was lost is logged, and nothing else")
	r := reader{f.standby.url(), f.name}
	refused := 0
	for _, line := range openInNewProcess(t, r, objects) {
		id, _, _ := strings.Cut(line, ": ")
		isTaken := id == f.first || slices.Contains([]string{f.keys["disabled"], f.keys["denied"], f.keys["scheduled"], f.keys["revoked"]}, id)
		require.True(t, isTaken, line)
		refused++
	}
	require.Positive(t, refused)

	ctx, m := admin(t.Context()), f.startMember()
	_, err := m.ring.SetState(ctx, f.first, keyring.Enabled)
	require.NoError(t, err)
	require.NoError(t, m.client.CancelKeyDeletion(ctx, f.keys["scheduled"]))
	require.NoError(t, m.client.EnableKey(ctx, f.keys["scheduled"]))
	require.NoError(t, m.client.EnableKey(ctx, f.keys["disabled"]))
	require.NoError(t, m.client.DeleteKeyPolicy(ctx, f.keys["denied"]))
	require.NoError(t, m.client.DeleteKeyPolicy(ctx, f.keys["revoked"]))
	require.Empty(t, openInNewProcess(t, r, objects))
	t.Logf("%d objects written, %d of them refused until an administrator gave back what was taken away, none is lost", len(objects), refused)
}

// A failover to an asynchronous standby loses changes, and processes that start afterwards
// continue without them. Processes that ran before restore the changes.
func TestFailoverThatLosesChanges(t *testing.T) {
	t.Parallel()
	f := newFailover(t)
	f.loses = true
	f.standby.stop(syscall.SIGINT) // what follows is not replicated
	f.takeAway()
	f.awaitAgreement(f.member(0), f.fleet...)
	f.work() // under versions that will be lost

	f.failOver()
	direct := f.startMember() // a new process, before anyone else
	require.NotEmpty(t, f.listMissing(direct), "the changes are lost")
	changeMore(t, direct, f.keys["other"])
	direct.work(t, []string{f.keys["other"]})
	f.fleet = append(f.fleet, direct)
	f.redirect(0)
	f.redirect(1)
	f.awaitHealing()
	f.verify()
}

// A standby is promoted while the primary lives, and each camp writes to its own.
func TestFailoverThatSplits(t *testing.T) {
	t.Parallel()
	f := newFailover(t)
	f.loses = true
	f.promote()
	f.redirect(1)
	require.Eventually(t, func() bool {
		return f.member(1).ring.Refresh(t.Context()) == nil && f.member(1).service.Refresh(t.Context()) == nil
	},
		patience, 50*time.Millisecond, "the second camp is connected")
	f.takeAway()
	changeMore(t, f.member(1), f.keys["other"])
	changeMore(t, f.member(1), f.keys["rotated"]) // as the first camp did: two versions have one number
	f.awaitAgreement(f.member(0), f.fleet[1])
	f.awaitAgreement(f.member(1), f.fleet[3])
	f.work()

	f.primary.stop(syscall.SIGQUIT)
	f.redirect(0)
	f.awaitHealing()
	f.verify()
}

// With a synchronous standby nothing is lost, even if callers gave up waiting.
func TestSynchronousFailover(t *testing.T) {
	t.Parallel()
	f := newFailover(t)
	f.primary.makeSynchronous()
	f.takeAway()
	f.awaitAgreement(f.member(0), f.fleet...)
	f.awaitReplication()
	f.standby.stop(syscall.SIGINT)
	for _, m := range f.fleet {
		for _, act := range []func(ctx context.Context) error{
			func(ctx context.Context) error { _, err := m.ring.Rotate(ctx); return err },
			func(ctx context.Context) error { _, err := m.client.RotateKey(ctx, f.keys["rotated"]); return err },
		} {
			ctx, cancel := context.WithTimeout(admin(t.Context()), 200*time.Millisecond)
			require.ErrorIs(t, act(ctx), context.DeadlineExceeded)
			cancel()
		}
	}
	f.work()

	f.failOver()
	f.redirect(0)
	f.redirect(1)
	f.awaitHealing()
	f.verify()
}

// A failover that loses a change of the root: the call may be repeated, in each process.
func TestFailoverThatLosesAChangeOfRoot(t *testing.T) {
	t.Parallel()
	primary := startPostgres(t)
	standby := primary.standby()
	way := tcpproxy.Start(t, primary.address())
	m := join(t, way.Address(), "root")
	key, err := m.client.CreateKey(t.Context(), nil)
	require.NoError(t, err)
	f := &failover{t: t, primary: primary, standby: standby}
	f.awaitReplication()
	standby.stop(syscall.SIGINT)
	next, err := keyring.NewKeyRoot(bytes.Repeat([]byte{8}, 32))
	require.NoError(t, err)
	change := func() {
		t.Helper()
		require.Eventually(t, func() bool {
			return m.ring.ChangeRoot(t.Context(), next) == nil && m.service.ChangeRoot(t.Context(), next) == nil
		}, patience, 50*time.Millisecond, "the root is changed; after an error of the store, it is tried again")
	}
	change()
	f.failOver()
	way.Redirect(standby.address())
	change()

	db := standby.open(t)
	ring, err := keyring.Open(t.Context(), openStore(t, db, sqlstore.PostgreSQL, "root/ring", nil), next, &keyring.Options{Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	require.Equal(t, m.ring.Versions(), ring.Versions())
	service, err := localkms.Open(t.Context(), openStore(t, db, sqlstore.PostgreSQL, "root/kms", nil), next, nil)
	require.NoError(t, err)
	client, err := service.Client("", "")
	require.NoError(t, err)
	_, err = client.DescribeKey(t.Context(), key.ID)
	require.NoError(t, err)
}
