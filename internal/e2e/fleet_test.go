//go:build linux

package e2e_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/internal/testbed/seeds"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/keyring/sqlstore"
	"github.com/blobseal/blobseal/sse"
)

const (
	goroutines  = 16 // replicas in the test's process
	processes   = 4
	perProcess  = 4   // replicas in each of these
	maxRotation = 600 // of a run: what a ring holds is loaded by all replicas after each
)

// patience is what a slow machine may need: whatever works takes less.
const patience = 2 * time.Minute

// stress returns how long a fleet runs at least.
func stress(t *testing.T) time.Duration { return seeds.StressTime(t, 4*time.Second) }

// harm is what is done to a fleet while it runs, again and again.
type harm struct {
	what  string               // it counts
	least int                  // the run goes on until it was done so often
	pause func() time.Duration // before each time
	do    func(m *members) (n int)
}

// Replicas over one database rotate at random. One wins each rotation, all can read each
// object, no version is lost, and all learn of each version.
func TestFleet(t *testing.T) {
	runFleet(t, startPostgres(t), nil)
}

// The same while the server breaks connections at any time.
func TestFleetWithoutConnections(t *testing.T) {
	p := startPostgres(t)
	runFleet(t, p, &harm{
		what: "connections were killed", least: 50,
		pause: func() time.Duration { return 50*time.Millisecond + rand.N(200*time.Millisecond) },
		do: func(*members) int {
			n, err := p.terminate(t.Context(), "random() < 0.7")
			require.NoError(t, err)
			return n
		},
	})
}

// The same while the server is stopped or crashes, and starts again.
func TestFleetWithoutServer(t *testing.T) {
	p := startPostgres(t)
	restarts := 0
	runFleet(t, p, &harm{
		what: "restarts of the server", least: 2,
		pause: func() time.Duration { return time.Second },
		do: func(*members) int {
			p.stop([]syscall.Signal{syscall.SIGINT, syscall.SIGQUIT}[restarts%2])
			time.Sleep(rand.N(500 * time.Millisecond))
			p.start()
			restarts++
			return 1
		},
	})
}

// The same while processes of the fleet are killed and replaced.
func TestFleetOfMortals(t *testing.T) {
	runFleet(t, startPostgres(t), &harm{
		what: "processes were killed", least: 3,
		pause: func() time.Duration { return 500*time.Millisecond + rand.N(500*time.Millisecond) },
		do: func(m *members) int {
			m.replaceOne()
			return 1
		},
	})
}

// members are the processes of a fleet.
type members struct {
	t     *testing.T
	fleet *fleet
	cmds  []*exec.Cmd
	born  int
}

func (m *members) spawn() *exec.Cmd {
	p := fleetProcess{Fleet: m.fleet}
	for i := range perProcess {
		p.Replicas = append(p.Replicas, fmt.Sprintf("process%d.%d", m.born, i))
	}
	m.born++
	cmd := childCommand("fleet", p)
	require.NoError(m.t, cmd.Start())
	return cmd
}

// replaceOne kills a process and starts another.
func (m *members) replaceOne() {
	i := rand.N(len(m.cmds))
	m.cmds[i].Process.Kill()
	m.cmds[i].Wait()
	m.cmds[i] = m.spawn()
}

// runFleet runs a fleet while it is harmed, and then checks it.
func runFleet(t *testing.T, p *postgres, h *harm) {
	d := stress(t)
	replicas := goroutines + processes*perProcess
	f := &fleet{
		URL: p.url(), Dir: t.TempDir(), Faulty: h != nil,
		Every:   time.Duration(float64(replicas) / min(6, maxRotation/d.Seconds()) * float64(time.Second)),
		Refresh: time.Hour, // what is known is known by the watch
	}
	if f.Faulty {
		f.Refresh = time.Second
	} else {
		h = &harm{pause: func() time.Duration { return 100 * time.Millisecond }, do: func(*members) int { return 0 }}
	}
	require.NoError(t, os.Mkdir(f.objects(), 0o700))
	m := &members{t: t, fleet: f}
	var own sync.WaitGroup
	defer own.Wait()
	defer f.tell(isOver, "") // whatever fails
	own.Go(func() {
		var names []string
		for i := range goroutines {
			names = append(names, fmt.Sprintf("goroutine%d", i))
		}
		runReplicas(f, names)
	})
	for range processes {
		m.cmds = append(m.cmds, m.spawn())
	}
	// For so long, and until there is something to prove.
	done := 0
	for begin := time.Now(); time.Since(begin) < d+patience; {
		time.Sleep(h.pause())
		done += h.do(m)
		if time.Since(begin) >= d && done >= h.least {
			if n := countEvents(t, f.Dir); n[rotated] > 3 && n[read] > 100 {
				break
			}
		}
	}
	if f.Faulty {
		t.Logf("%d %s", done, h.what)
	}
	require.GreaterOrEqual(t, done, h.least, h.what)
	require.NoError(t, f.tell(isOver, ""))
	if !f.Faulty {
		require.Eventually(t, func() bool { return countEvents(t, f.Dir)[idle] == replicas }, patience, 100*time.Millisecond, "all end")
		require.NoError(t, f.tell(isLast, fmt.Sprint(openFleet(t, p).Stats().Generation)))
	}
	own.Wait()
	for _, cmd := range m.cmds {
		require.NoError(t, cmd.Wait())
	}
	checkFleet(t, p, f)
}

// openFleet opens the ring as it is in the end.
func openFleet(t *testing.T, p *postgres) *keyring.Ring {
	s, err := sqlstore.Open(t.Context(), p.open(t), sqlstore.PostgreSQL, "fleet/ring", nil)
	require.NoError(t, err)
	ring, err := keyring.Open(t.Context(), s, fleetRoot(), nil)
	require.NoError(t, err)
	return ring
}

// checkFleet compares what replicas recorded with what the store holds.
func checkFleet(t *testing.T, p *postgres, f *fleet) {
	ring := openFleet(t, p)
	versions := make(map[string]bool)
	for _, info := range ring.Versions() {
		versions[info.ID] = true
	}

	count := make(map[string]int)
	winners := make(map[string]string) // of each version of the document: who replaced it
	swapTimes := make(map[string]time.Time)
	generations := make(map[string][]event) // what each replica saw, and when
	for replica, events := range readEvents(t, f.Dir) {
		for _, e := range events {
			count[e.Kind]++
			switch e.Kind {
			case bug:
				t.Errorf("%s: %s", replica, e.Err)
			case swapped:
				require.Empty(t, winners[e.From], "%s and %s both replaced document %q", winners[e.From], replica, e.From)
				winners[e.From] = replica
				swapTimes[e.From] = e.At
			case rotated:
				require.True(t, versions[e.ID], "version %s, which a rotation of %s returned, is lost", e.ID, replica)
			case sawDocument:
				generations[replica] = append(generations[replica], e)
			case finished:
				if !f.Faulty {
					require.Equal(t, ring.Stats().Generation, e.Gen, "%s does not know of the last rotation", replica)
				}
			}
		}
	}
	// Each change of this ring is a version, so generations count them.
	require.EqualValues(t, len(versions), ring.Stats().Generation)
	if f.Faulty {
		require.LessOrEqual(t, count[swapped], len(versions), "acknowledged writes that are not there")
	} else {
		require.Equal(t, len(versions), count[swapped], "one write for each version")
		require.Zero(t, count[swapUnsure]+count[notRotated]+count[notYetRead])
		require.Equal(t, goroutines+processes*perProcess, count[finished])
	}
	require.Greater(t, count[rotated], 3)
	require.Greater(t, count[read], 100)

	names, err := listObjects(f.objects())
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(names), count[wrote])
	mode := sse.NewManaged(ring)
	for _, name := range names {
		require.NoError(t, readObject(t.Context(), f.objects(), name, mode))
	}
	t.Logf("%d versions; %d rotations returned, of which %d failed; %d objects written and read back; %d reads by replicas, of which %d had to wait",
		len(versions), count[rotated]+count[notRotated], count[notRotated], len(names), count[read]+count[notYetRead], count[notYetRead])
	if !f.Faulty {
		logSpread(t, swapTimes, generations)
	}
}

// logSpread logs how long it took until all replicas knew of a rotation.
func logSpread(t *testing.T, swapTimes map[string]time.Time, generations map[string][]event) {
	var times []time.Time // of each generation, in order
	for _, at := range swapTimes {
		times = append(times, at)
	}
	slices.SortFunc(times, time.Time.Compare)
	var delays []time.Duration
	for i, at := range times {
		slowest := time.Duration(0)
		for _, seen := range generations {
			if seen[0].At.After(at) { // it was not there yet
				continue
			}
			j := slices.IndexFunc(seen, func(e event) bool { return e.Gen >= uint64(i+1) })
			if j >= 0 {
				slowest = max(slowest, seen[j].At.Sub(at))
			}
		}
		delays = append(delays, slowest)
	}
	slices.Sort(delays)
	t.Logf("until all replicas knew of a rotation: median %v, at most %v",
		delays[len(delays)/2].Round(time.Millisecond), delays[len(delays)-1].Round(time.Millisecond))
}

// countEvents returns how many events of each kind were recorded so far.
func countEvents(t *testing.T, dir string) map[string]int {
	n := make(map[string]int)
	for _, events := range readEvents(t, dir) {
		for _, e := range events {
			n[e.Kind]++
		}
	}
	return n
}

// readEvents returns what each replica recorded.
func readEvents(t *testing.T, dir string) map[string][]event {
	paths, err := filepath.Glob(filepath.Join(dir, "*.events"))
	require.NoError(t, err)
	all := make(map[string][]event)
	for _, path := range paths {
		data, err := os.ReadFile(path)
		require.NoError(t, err)
		name := strings.TrimSuffix(filepath.Base(path), ".events")
		lines := bufio.NewScanner(bytes.NewReader(data))
		for lines.Scan() {
			var e event
			if json.Unmarshal(lines.Bytes(), &e) == nil { // or else a killed process wrote half of it
				all[name] = append(all[name], e)
			}
		}
		require.NoError(t, lines.Err())
	}
	return all
}
