//go:build linux

package e2e_test

import (
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// network is the state of a proxy.
type network int

const (
	whole  network = iota
	cut            // connections are refused and reset
	silent         // nothing arrives, and nobody says so
)

// proxy is a network between a replica and a server.
type proxy struct {
	listener net.Listener
	server   string

	mu      sync.Mutex
	changed sync.Cond
	state   network
	delay   time.Duration // before each piece of an answer
	closed  bool
	conns   map[net.Conn]bool
}

func newProxy(t testing.TB, server string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &proxy{listener: l, server: server, conns: make(map[net.Conn]bool)}
	p.changed.L = &p.mu
	var serving sync.WaitGroup
	serving.Go(func() { p.serve(&serving) })
	t.Cleanup(func() {
		l.Close()
		p.mu.Lock()
		p.closed = true
		p.mu.Unlock()
		p.set(cut)
		serving.Wait()
	})
	return p
}

func (p *proxy) port() int { return p.listener.Addr().(*net.TCPAddr).Port }

// url is where clients connect to a database behind the proxy.
func (p *proxy) url() string {
	return fmt.Sprintf("postgres://postgres@127.0.0.1:%d/postgres?sslmode=disable&connect_timeout=60", p.port())
}

// slow has each answer of the server take that long.
func (p *proxy) slow(delay time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = delay
}

// set makes the network be in that state.
func (p *proxy) set(state network) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state = state
	p.changed.Broadcast()
	if state == cut {
		for c := range p.conns {
			c.Close()
		}
		clear(p.conns)
	}
}

// lead has new connections lead to another server, and ends the others.
func (p *proxy) lead(server string) {
	p.set(cut)
	p.mu.Lock()
	p.server = server
	p.mu.Unlock()
	p.set(whole)
}

func (p *proxy) target() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.server
}

func (p *proxy) serve(serving *sync.WaitGroup) {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", p.target())
		if err != nil || !p.add(client, server) {
			client.Close()
			if server != nil {
				server.Close()
			}
			continue
		}
		serving.Go(func() { p.copy(client, server, true) })
		serving.Go(func() { p.copy(server, client, false) })
	}
}

func (p *proxy) add(conns ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state == cut {
		return false
	}
	for _, c := range conns {
		p.conns[c] = true
	}
	return true
}

// copy forwards what arrives while the network is not silent.
func (p *proxy) copy(dst, src net.Conn, answers bool) {
	defer dst.Close()
	defer src.Close()
	buf := make([]byte, 1<<16)
	for {
		n, err := src.Read(buf)
		p.mu.Lock()
		for p.state == silent && !p.closed {
			p.changed.Wait()
		}
		delay := p.delay
		p.mu.Unlock()
		if answers && n > 0 {
			time.Sleep(delay)
		}
		if _, werr := dst.Write(buf[:n]); err != nil || werr != nil {
			return
		}
	}
}
