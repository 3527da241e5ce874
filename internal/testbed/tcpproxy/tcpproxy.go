// Package tcpproxy puts a network between clients and a server that a test can break.
package tcpproxy

import (
	"net"
	"sync"
	"testing"
	"time"
)

// State is the state of a network.
type State int

const (
	Whole  State = iota
	Cut          // connections are refused and reset
	Silent       // nothing arrives, and neither side is told
)

// Proxy is a network in front of a server. It is whole at first.
type Proxy struct {
	listener net.Listener

	mu      sync.Mutex
	changed sync.Cond
	server  string // address
	state   State
	delay   time.Duration
	closed  bool
	conns   map[net.Conn]bool
}

// Start starts a proxy to the server at an address. It ends with the test.
func Start(t testing.TB, server string) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{listener: l, server: server, conns: make(map[net.Conn]bool)}
	p.changed.L = &p.mu
	var serving sync.WaitGroup
	serving.Go(func() { p.serve(&serving) })
	t.Cleanup(func() {
		l.Close()
		p.mu.Lock()
		p.closed = true
		p.mu.Unlock()
		p.Set(Cut)
		serving.Wait()
	})
	return p
}

// Address returns where clients connect to.
func (p *Proxy) Address() string { return p.listener.Addr().String() }

// Delay makes the server take this long before each piece of an answer.
func (p *Proxy) Delay(delay time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = delay
}

// Set changes the state of the network.
func (p *Proxy) Set(state State) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state = state
	p.changed.Broadcast()
	if state == Cut {
		for c := range p.conns {
			c.Close()
		}
		clear(p.conns)
	}
}

// Redirect ends all connections, and leads new ones to another server.
func (p *Proxy) Redirect(server string) {
	p.Set(Cut)
	p.mu.Lock()
	p.server = server
	p.mu.Unlock()
	p.Set(Whole)
}

func (p *Proxy) target() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.server
}

func (p *Proxy) serve(serving *sync.WaitGroup) {
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

// add keeps connections, unless the network is cut.
func (p *Proxy) add(conns ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state == Cut {
		return false
	}
	for _, c := range conns {
		p.conns[c] = true
	}
	return true
}

// copy forwards what arrives while the network is not silent.
func (p *Proxy) copy(dst, src net.Conn, answers bool) {
	defer dst.Close()
	defer src.Close()
	buf := make([]byte, 1<<16)
	for {
		n, err := src.Read(buf)
		p.mu.Lock()
		for p.state == Silent && !p.closed {
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
