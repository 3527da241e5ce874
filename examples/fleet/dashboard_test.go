package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestDrawDashboard writes the picture of the dashboard of package sseotel, in about 20
// minutes: Prometheus scrapes the replicas of a fleet while the test harms them, and
// the panels' queries are drawn. It runs on request alone:
//
//	BLOBSEAL_DRAW=sse/sseotel go test ./examples/fleet -run TestDrawDashboard -timeout 1h -v
func TestDrawDashboard(t *testing.T) {
	out := os.Getenv("BLOBSEAL_DRAW")
	if out == "" {
		t.Skip("set BLOBSEAL_DRAW to the folder of package sseotel")
	}
	if !filepath.IsAbs(out) {
		out = filepath.Join("..", "..", out)
	}
	minute := time.Minute
	if text := os.Getenv("BLOBSEAL_DRAW_MINUTE"); text != "" { // to try the test out
		var err error
		minute, err = time.ParseDuration(text)
		require.NoError(t, err)
	}
	f := newHarmedFleet(t)
	begin := time.Now()
	url := startPrometheus(t, f.targets, filepath.Join(out, "alerts.yaml"))
	for _, name := range []string{"ann", "bob", "cid"} {
		f.start(name)
	}
	at := func(minutes float64, what string, harm func()) {
		time.Sleep(time.Until(begin.Add(time.Duration(minutes * float64(minute)))))
		t.Logf("%v: %s", time.Since(begin).Round(time.Second), what)
		harm()
	}
	at(1, "ann is killed, and starts again", func() { f.kill("ann"); f.start("ann") })
	at(2, "bob rotates", func() { f.ask("bob", "rotate") })
	at(3, "the ring's table is gone", func() { f.rename("blobseal_documents", "gone") })
	at(4, "an object is damaged", func() { f.damage() })
	at(5, "objects are swapped", func() { f.swap() })
	at(10, "cid cannot rotate", func() {
		for range 4 {
			f.ask("cid", "rotate")
		}
	})
	at(12, "objects are as they were", func() { f.repair() })
	at(19, "the ring's table is back", func() { f.rename("gone", "blobseal_documents") })
	at(20, "bob is killed, and starts again", func() { f.kill("bob"); f.start("bob") })
	at(21, "the end", func() {})
	draw(t, url, out, begin, time.Now())
}

// harmedFleet is a fleet under load.
type harmedFleet struct {
	t       *testing.T
	dir     string
	metrics string
	targets string // file of Prometheus' targets
	db      *sql.DB

	mu       sync.Mutex
	replicas map[string]*loaded
	extra    []string // names to get besides
}

// loaded is a replica with the goroutine that sends it requests.
type loaded struct {
	mu       sync.Mutex // held for one request
	cmd      *exec.Cmd
	requests *os.File
	replies  *bufio.Scanner
	address  string
	stop     context.CancelFunc
	stopped  chan struct{}
}

func newHarmedFleet(t *testing.T) *harmedFleet {
	f := &harmedFleet{t: t, dir: t.TempDir(), metrics: t.TempDir(), replicas: map[string]*loaded{}}
	f.targets = filepath.Join(f.metrics, "targets.json")
	require.NoError(t, os.WriteFile(f.targets, []byte("[]"), 0o600))
	key := make([]byte, 32)
	rand.Read(key)
	require.NoError(t, os.WriteFile(filepath.Join(f.dir, "root.key"), key, 0o600))
	_, err := openService(t.Context(), f.dir, true)
	require.NoError(t, err)
	f.db, err = sql.Open("sqlite", "file:"+filepath.Join(f.dir, "fleet.db")+"?_pragma=busy_timeout(30000)")
	require.NoError(t, err)
	t.Cleanup(func() {
		for name := range f.replicas {
			f.kill(name)
		}
		f.db.Close()
	})
	return f
}

// start starts a replica, waits for its metrics, and puts load on it.
func (f *harmedFleet) start(name string) {
	before, err := os.ReadDir(f.metrics)
	require.NoError(f.t, err)
	read, write, err := os.Pipe()
	require.NoError(f.t, err)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), replicaEnv+"="+f.dir, metricsEnv+"="+f.metrics)
	cmd.Stdin, cmd.Stderr = read, os.Stderr
	replies, err := cmd.StdoutPipe()
	require.NoError(f.t, err)
	require.NoError(f.t, cmd.Start())
	read.Close()
	ctx, stop := context.WithCancel(context.Background())
	r := &loaded{cmd: cmd, requests: write, replies: bufio.NewScanner(replies), stop: stop, stopped: make(chan struct{})}
	require.Eventually(f.t, func() bool {
		now, err := os.ReadDir(f.metrics)
		if err != nil || len(now) == len(before) {
			return false
		}
		for _, entry := range now {
			if text, _ := os.ReadFile(filepath.Join(f.metrics, entry.Name())); !f.knows(string(text)) && strings.HasPrefix(string(text), "127.") {
				r.address = string(text)
			}
		}
		return r.address != ""
	}, time.Minute, 50*time.Millisecond, "%s serves no metrics", name)
	f.mu.Lock()
	f.replicas[name] = r
	f.mu.Unlock()
	f.writeTargets()
	go f.load(ctx, name, r)
}

func (f *harmedFleet) knows(address string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range f.replicas {
		if r.address == address {
			return true
		}
	}
	return false
}

func (f *harmedFleet) writeTargets() {
	type group struct {
		Targets []string          `json:"targets"`
		Labels  map[string]string `json:"labels"`
	}
	groups := []group{}
	f.mu.Lock()
	for name, r := range f.replicas {
		groups = append(groups, group{[]string{r.address}, map[string]string{"instance": name}})
	}
	f.mu.Unlock()
	text, err := json.Marshal(groups)
	require.NoError(f.t, err)
	require.NoError(f.t, os.WriteFile(f.targets+".new", text, 0o600))
	require.NoError(f.t, os.Rename(f.targets+".new", f.targets))
}

// load sends requests, about ten a second.
func (f *harmedFleet) load(ctx context.Context, name string, r *loaded) {
	defer close(r.stopped)
	text := strings.Repeat("meow ", 800)
	for i := 0; ctx.Err() == nil; i++ {
		object := fmt.Sprintf("%s%d", name, i%20)
		r.ask("put " + object + " " + text)
		r.ask("get " + object)
		f.mu.Lock()
		extra := f.extra
		f.mu.Unlock()
		if len(extra) > 0 && i%5 == 0 {
			r.ask("get " + extra[i/5%len(extra)])
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func (r *loaded) ask(request string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	fmt.Fprintln(r.requests, request)
	r.replies.Scan() // what fails, shows in the metrics
	return r.replies.Text()
}

func (f *harmedFleet) ask(name, request string) {
	f.mu.Lock()
	r := f.replicas[name]
	f.mu.Unlock()
	f.t.Log(name, request, r.ask(request))
}

func (f *harmedFleet) kill(name string) {
	f.mu.Lock()
	r := f.replicas[name]
	f.mu.Unlock()
	r.stop()
	r.cmd.Process.Kill()
	r.cmd.Wait()
	<-r.stopped
	r.requests.Close()
}

// rename hides the table that holds the ring, or brings it back.
func (f *harmedFleet) rename(from, to string) {
	_, err := f.db.ExecContext(f.t.Context(), "ALTER TABLE "+from+" RENAME TO "+to)
	require.NoError(f.t, err)
}

func (f *harmedFleet) object(name string) string { return filepath.Join(f.dir, "objects", name) }

// damage changes a byte of an object, and has it read.
func (f *harmedFleet) damage() {
	data, err := os.ReadFile(f.object("ann0"))
	require.NoError(f.t, err)
	data[len(data)-1] ^= 1
	require.NoError(f.t, os.WriteFile(f.object("damaged"), data, 0o600))
	// Under its own name, between two writes of the load.
	for range 20 {
		require.NoError(f.t, os.WriteFile(f.object("ann0"), data, 0o600))
		f.replicas["bob"].ask("get ann0")
	}
}

// swap puts an object under another name, and has it read.
func (f *harmedFleet) swap() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.extra = []string{"damaged"}
}

func (f *harmedFleet) repair() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.extra = nil
}

// startPrometheus starts a server that scrapes the targets, and returns its URL.
func startPrometheus(t *testing.T, targets, rules string) string {
	program, err := exec.LookPath("prometheus")
	require.NoError(t, err)
	rules, err = filepath.Abs(rules)
	require.NoError(t, err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := listener.Addr().String()
	listener.Close()
	dir := t.TempDir()
	config := filepath.Join(dir, "prometheus.yaml")
	require.NoError(t, os.WriteFile(config, fmt.Appendf(nil, `
global: {scrape_interval: 2s, evaluation_interval: 5s}
rule_files: [%q]
scrape_configs:
  - job_name: fleet
    file_sd_configs: [{files: [%q], refresh_interval: 1s}]
`, rules, targets), 0o600))
	cmd := exec.Command(program, "--config.file="+config, "--storage.tsdb.path="+dir, "--web.listen-address="+address, "--log.level=error")
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return "http://" + address
}
