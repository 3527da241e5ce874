// Package freeport finds ports for the servers of tests, and starts such servers.
package freeport

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
)

// Get returns a free port of 127.0.0.1 for a server that begins to listen later, and may
// restart. The system does not assign the port to sockets that ask for any port.
func Get(t testing.TB) int {
	t.Helper()
	port, err := Find()
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// given holds the ports that this process has found, so that parallel tests that stop their
// servers for a while do not take each other's ports.
var given sync.Map

// Find is Get for programs.
func Find() (int, error) {
	err := errors.New("all ports are taken")
	for range 1000 {
		port := 10_000 + rand.IntN(20_000) // Linux assigns ports from 32,768 on
		if _, taken := given.LoadOrStore(port, true); taken {
			continue
		}
		var l net.Listener
		if l, err = net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			return port, l.Close()
		}
	}
	return 0, fmt.Errorf("freeport: no free port: %w", err)
}
