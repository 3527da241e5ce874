// Package freeport finds ports for the servers of tests, and starts such servers.
package freeport

import (
	"fmt"
	"math/rand/v2"
	"net"
	"testing"
)

// Get returns a port of 127.0.0.1 for a server that takes it later, and perhaps
// again: one of those that the system does not give, meanwhile, to who asks for any.
func Get(t testing.TB) int {
	t.Helper()
	port, err := Find()
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// Find is Get for programs.
func Find() (int, error) {
	for attempt := 0; ; attempt++ {
		port := 10_000 + rand.IntN(20_000) // Linux begins at 32,768
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			return port, l.Close()
		}
		if attempt == 100 {
			return 0, fmt.Errorf("freeport: no free port: %w", err)
		}
	}
}
