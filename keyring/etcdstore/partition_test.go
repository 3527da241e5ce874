//go:build linux

package etcdstore_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/blobseal/blobseal/internal/testbed/await"
	"github.com/blobseal/blobseal/internal/testbed/seeds"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/keyring/etcdstore"
)

// register is the history of a document that several processes swap. Each document has the
// number of its predecessor plus one, and names the attempt that wrote it.
type register struct {
	t testing.TB

	mu        sync.Mutex
	documents map[int]string // by number, of all that were loaded or acknowledged
	last      int            // that was loaded or acknowledged
	acked     int            // how many swaps were acknowledged
	failed    int            // how many have an uncertain end
	conflicts int
}

// saw records that this document has this number.
func (r *register) saw(number int, document string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if known, ok := r.documents[number]; ok && known != document {
		r.t.Errorf("two documents have number %d: %q and %q", number, known, document)
	}
	r.documents[number] = document
	r.last = max(r.last, number)
}

// floor returns the lowest number that a load may return if it begins now.
func (r *register) floor() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last
}

// write makes one attempt to swap the document.
func (r *register) write(ctx context.Context, s keyring.Store, attempt string) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	number, floor := 0, r.floor()
	data, version, err := s.Load(ctx)
	switch {
	case err == nil:
		if _, err := fmt.Sscan(string(data), &number); err != nil {
			r.t.Errorf("document %q: %v", data, err)
			return
		}
		r.saw(number, string(data))
	case !errors.Is(err, keyring.ErrNotExist):
		return
	}
	if number < floor {
		r.t.Errorf("a load that began after number %d was seen found %d", floor, number)
	}
	document := fmt.Sprintf("%d %s", number+1, attempt)
	_, err = s.Swap(ctx, version, []byte(document))
	if err == nil {
		r.saw(number+1, document)
	}
	r.count(err)
}

func (r *register) count(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case err == nil:
		r.acked++
	case errors.Is(err, keyring.ErrConflict):
		r.conflicts++
	default:
		r.failed++
	}
}

func (r *register) acknowledged() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.acked
}

func newStore(t testing.TB, client *clientv3.Client, key string) *etcdstore.Store {
	t.Helper()
	s, err := etcdstore.New(client, key)
	require.NoError(t, err)
	return s
}

// Nothing that a cluster of three acknowledged is lost, whatever happens to its
// leader: it is killed, cut off from the other members, or stopped for a while, which
// it does not notice. Meanwhile the others go on. BLOBSEAL_STRESS, such as 1h, is how
// long the test runs; by default, each happens once. The test is long because it is
// one history of one cluster.
func TestNothingIsLostWithTheLeader(t *testing.T) {
	t.Parallel()
	c := startCluster(t)
	admin := c.connect()
	var direct []*clientv3.Client
	for _, m := range c.members {
		direct = append(direct, c.connect(m))
	}
	faults := []struct {
		name     string
		do, undo func(m *member)
	}{
		{"killed", c.kill, c.start},
		{"isolated", c.isolate, func(*member) { c.isolate(nil) }},
		{"stopped", func(m *member) { m.cmd.Process.Signal(syscall.SIGSTOP) }, func(m *member) { m.cmd.Process.Signal(syscall.SIGCONT) }},
	}

	r := &register{t: t, documents: make(map[int]string)}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var writers sync.WaitGroup
	defer writers.Wait()
	defer stop()
	for writer := range 4 {
		s := newStore(t, c.connect(), "/register")
		writers.Go(func() {
			for attempt := 0; ctx.Err() == nil; attempt++ {
				r.write(ctx, s, fmt.Sprint(writer, "/", attempt))
				time.Sleep(5 * time.Millisecond)
			}
		})
	}
	root, err := keyring.NewKeyRoot([]byte(strings.Repeat("\x01", 32)))
	require.NoError(t, err)
	quiet := &keyring.Options{Logger: slog.New(slog.DiscardHandler), RefreshInterval: time.Second}
	ring, err := keyring.Create(t.Context(), newStore(t, c.connect(), "/ring"), root, quiet)
	require.NoError(t, err)
	var rotations []string // acknowledged

	limit := seeds.StressTime(t, 0)
	for i, begin := 0, time.Now(); i < len(faults) || time.Since(begin) < limit; i++ {
		fault, leader := faults[i%len(faults)], c.leader(admin)
		before := r.acknowledged()
		fault.do(leader)
		if len(rotations) < 50 { // a ring has room for 100 versions
			require.Eventually(t, func() bool {
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				defer cancel()
				v, err := ring.Rotate(ctx)
				if err == nil {
					rotations = append(rotations, v.ID)
				}
				return err == nil
			}, await.Longest, 50*time.Millisecond, "the ring rotates though the leader is %s", fault.name)
		}
		require.Eventually(t, func() bool { return r.acknowledged() >= before+20 }, await.Longest, 50*time.Millisecond,
			"the others go on though the leader is %s", fault.name)
		fault.undo(leader)
		c.healthy(direct)
	}
	stop()
	writers.Wait()

	data, _, err := newStore(t, admin, "/register").Load(t.Context())
	require.NoError(t, err)
	var number int
	_, err = fmt.Sscan(string(data), &number)
	require.NoError(t, err)
	r.saw(number, string(data))
	require.Equal(t, r.floor(), number, "the last document that was seen is there")
	require.GreaterOrEqual(t, number, r.acked)
	require.LessOrEqual(t, number, r.acked+r.failed)
	fresh, err := keyring.Open(t.Context(), newStore(t, admin, "/ring"), root, quiet)
	require.NoError(t, err)
	for _, id := range rotations {
		_, err := fresh.Key(t.Context(), id)
		require.NoError(t, err, "a rotation that was acknowledged")
	}
	t.Logf("%d swaps acknowledged, %d refused, %d with an uncertain end; %d documents, %d rotations",
		r.acked, r.conflicts, r.failed, number, len(rotations))
}
