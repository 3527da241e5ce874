package etcdstore_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/blobseal/blobseal/internal/freeport"
)

// etcd is a server of a test's own: a cluster of one.
type etcd struct {
	t             testing.TB
	dir           string
	client, peers int // ports
	cmd           *exec.Cmd
	log           *bytes.Buffer
}

// startEtcd starts a server, which ends with the test.
func startEtcd(t testing.TB) *etcd {
	t.Helper()
	if _, err := exec.LookPath("etcd"); err != nil {
		t.Skip("no etcd: apt-get install etcd-server")
	}
	e := &etcd{t: t, dir: t.TempDir(), client: freeport.Get(t), peers: freeport.Get(t)}
	e.start()
	t.Cleanup(e.kill)
	return e
}

func (e *etcd) start() {
	e.t.Helper()
	client, peers := fmt.Sprintf("http://127.0.0.1:%d", e.client), fmt.Sprintf("http://127.0.0.1:%d", e.peers)
	e.cmd = exec.Command("etcd", "--name", "test", "--data-dir", filepath.Join(e.dir, "data"),
		"--listen-client-urls", client, "--advertise-client-urls", client,
		"--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers, "--initial-cluster", "test="+peers)
	e.log = new(bytes.Buffer)
	e.cmd.Stderr = e.log
	require.NoError(e.t, e.cmd.Start())
	c := e.connect(e.t, e.address())
	deadline := time.Now().Add(2 * time.Minute)
	for {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		_, err := c.Get(ctx, "x")
		cancel()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			e.kill()
			require.NoError(e.t, err, "etcd does not answer: %s", e.log)
		}
	}
}

// kill ends the server as a crash would.
func (e *etcd) kill() {
	e.cmd.Process.Signal(syscall.SIGKILL)
	e.cmd.Wait()
}

func (e *etcd) address() string { return fmt.Sprintf("127.0.0.1:%d", e.client) }

func (e *etcd) connect(t testing.TB, address string) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{address}, DialTimeout: 5 * time.Second, Logger: zap.NewNop()})
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

// proxy is a network between a client and a server that can be cut.
type proxy struct {
	listener net.Listener
	server   string

	mu    sync.Mutex
	cut   bool
	conns map[net.Conn]bool
}

func newProxy(t testing.TB, server string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &proxy{listener: l, server: server, conns: make(map[net.Conn]bool)}
	t.Cleanup(func() {
		l.Close()
		p.setCut(true)
	})
	go p.serve()
	return p
}

func (p *proxy) address() string { return p.listener.Addr().String() }

func (p *proxy) serve() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", p.server)
		if err != nil || !p.add(client, server) {
			client.Close()
			if server != nil {
				server.Close()
			}
			continue
		}
		for _, pair := range [][2]net.Conn{{client, server}, {server, client}} {
			go func() {
				io.Copy(pair[0], pair[1])
				pair[0].Close()
				pair[1].Close()
			}()
		}
	}
}

func (p *proxy) add(conns ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		p.conns[c] = true
	}
	return !p.cut
}

// setCut cuts the network, or mends it.
func (p *proxy) setCut(cut bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = cut
	for c := range p.conns {
		if cut {
			c.Close()
			delete(p.conns, c)
		}
	}
}
