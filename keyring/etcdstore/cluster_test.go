//go:build linux

package etcdstore_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/blobseal/blobseal/internal/testbed/await"
	"github.com/blobseal/blobseal/internal/testbed/freeport"
)

// cluster is an etcd of three members on one machine. Each member reaches the others
// through their proxies, which can isolate a member from its peers. Clients reach an
// isolated member, which has to refuse them by itself.
type cluster struct {
	t       testing.TB
	members []*member

	mu       sync.Mutex
	isolated *member
	requests map[*request]bool // the running ones
}

// member is one process of a cluster.
type member struct {
	name  string
	id    string // by which its peers name it; empty until the cluster has answered once
	dir   string
	ports struct{ client, peer int }
	proxy *httptest.Server // in front of the peers' port
	cmd   *exec.Cmd
	log   *bytes.Buffer
}

// request is one between two members. Raft's streams are requests that do not end.
type request struct {
	from   string // id of the sender; empty: it carries no message of Raft
	to     *member
	cancel context.CancelFunc
}

func (r *request) concerns(m *member) bool { return r.from == m.id || r.to == m }

// startCluster starts three members, which end with the test.
func startCluster(t testing.TB) *cluster {
	t.Helper()
	if _, err := exec.LookPath("etcd"); err != nil {
		t.Skip("no etcd: apt-get install etcd-server")
	}
	c := &cluster{t: t, requests: make(map[*request]bool)}
	for i := range 3 {
		m := &member{name: fmt.Sprint("member", i), dir: t.TempDir()}
		m.ports.client, m.ports.peer = freeport.Get(t), freeport.Get(t)
		m.proxy = httptest.NewServer(c.proxyTo(m))
		t.Cleanup(m.proxy.Close)
		c.members = append(c.members, m)
	}
	for _, m := range c.members {
		c.start(m)
		t.Cleanup(func() { c.kill(m) })
	}
	client := c.connect()
	require.Eventually(t, func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		list, err := client.MemberList(ctx)
		if err != nil {
			return false
		}
		known := 0
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, got := range list.Members {
			for _, m := range c.members {
				if m.name == got.Name { // a member has a name once it has published it
					m.id = fmt.Sprintf("%x", got.ID)
					known++
				}
			}
		}
		return known == len(c.members)
	}, await.Longest, 100*time.Millisecond, "all members have joined")
	return c
}

// start starts a member, and does not wait for it.
func (c *cluster) start(m *member) {
	c.t.Helper()
	var all []string
	for _, other := range c.members {
		all = append(all, other.name+"="+other.proxy.URL)
	}
	client := fmt.Sprintf("http://127.0.0.1:%d", m.ports.client)
	m.cmd = exec.Command("etcd", "--name", m.name, "--data-dir", filepath.Join(m.dir, "data"),
		"--listen-client-urls", client, "--advertise-client-urls", client,
		"--listen-peer-urls", fmt.Sprintf("http://127.0.0.1:%d", m.ports.peer), "--initial-advertise-peer-urls", m.proxy.URL,
		"--initial-cluster", strings.Join(all, ","))
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	m.log = new(bytes.Buffer)
	m.cmd.Stderr = m.log
	require.NoError(c.t, m.cmd.Start())
}

// kill ends a member as a crash would.
func (c *cluster) kill(m *member) {
	m.cmd.Process.Signal(syscall.SIGKILL)
	m.cmd.Wait()
}

// isolate cuts a member off from its peers. nil restores the network.
func (c *cluster) isolate(m *member) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.isolated = m
	for r := range c.requests {
		if m != nil && r.concerns(m) {
			r.cancel()
		}
	}
}

// proxyTo passes the requests of a member's peers on to it.
func (c *cluster) proxyTo(m *member) http.Handler {
	server := &url.URL{Scheme: "http", Host: fmt.Sprintf("127.0.0.1:%d", m.ports.peer)}
	proxy := &httputil.ReverseProxy{
		Rewrite:  func(r *httputil.ProxyRequest) { r.SetURL(server) },
		ErrorLog: log.New(io.Discard, "", 0),
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		this := &request{r.Header.Get("X-Server-From"), m, cancel}
		c.mu.Lock()
		cut := c.isolated != nil && this.concerns(c.isolated)
		c.requests[this] = true
		c.mu.Unlock()
		defer func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			delete(c.requests, this)
		}()
		if cut {
			panic(http.ErrAbortHandler) // closes the connection
		}
		proxy.ServeHTTP(w, r.WithContext(ctx))
	})
}

func (m *member) address() string { return fmt.Sprintf("127.0.0.1:%d", m.ports.client) }

// connect returns a client of these members, or of all.
func (c *cluster) connect(members ...*member) *clientv3.Client {
	c.t.Helper()
	if len(members) == 0 {
		members = c.members
	}
	var addresses []string
	for _, m := range members {
		addresses = append(addresses, m.address())
	}
	client, err := clientv3.New(clientv3.Config{Endpoints: addresses, DialTimeout: 5 * time.Second,
		DialKeepAliveTime: 10 * time.Second, DialKeepAliveTimeout: 3 * time.Second, Logger: zap.NewNop()})
	require.NoError(c.t, err)
	c.t.Cleanup(func() { client.Close() })
	return client
}

// leader returns the member that leads the others.
func (c *cluster) leader(client *clientv3.Client) *member {
	c.t.Helper()
	var leader *member
	require.Eventually(c.t, func() bool {
		for _, m := range c.members {
			ctx, cancel := context.WithTimeout(c.t.Context(), 5*time.Second)
			status, err := client.Status(ctx, m.address())
			cancel()
			if err == nil && status.Leader != 0 && status.Leader == status.Header.MemberId {
				leader = m
				return true
			}
		}
		return false
	}, await.Longest, 50*time.Millisecond, "the cluster has a leader")
	return leader
}

// healthy waits until each member answers through a client of its own.
func (c *cluster) healthy(direct []*clientv3.Client) {
	c.t.Helper()
	for i, client := range direct {
		require.Eventually(c.t, func() bool {
			ctx, cancel := context.WithTimeout(c.t.Context(), 5*time.Second)
			defer cancel()
			_, err := client.Get(ctx, "x")
			return err == nil
		}, await.Longest, 50*time.Millisecond, "%s answers again", c.members[i].name)
	}
}
