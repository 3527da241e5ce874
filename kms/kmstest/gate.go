package kmstest

import (
	"io"
	"net/http"
	"strings"
	"sync"
)

// Gate stands in front of a key service that speaks HTTP, in a test. It records
// requests and can answer in the service's place. It is safe for concurrent use.
type Gate struct {
	service http.Handler
	name    func(*http.Request) string
	closing chan struct{}

	mu       sync.Mutex
	fault    http.HandlerFunc
	faultAt  string
	requests []string
}

// NewGate returns a gate. name returns what to call a request in [Gate.Asked], or ""
// for a request that the gate passes on unseen. Close the gate before its server.
func NewGate(service http.Handler, name func(*http.Request) string) *Gate {
	return &Gate{service: service, name: name, closing: make(chan struct{})}
}

// ServeHTTP implements [http.Handler].
func (g *Gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name := g.name(r)
	if name == "" {
		g.service.ServeHTTP(w, r)
		return
	}
	g.mu.Lock()
	g.requests = append(g.requests, name)
	fault := g.fault
	if !strings.Contains(name, g.faultAt) {
		fault = nil
	}
	g.mu.Unlock()
	if fault == nil {
		fault = g.service.ServeHTTP
	}
	fault(w, r)
}

// Fail answers requests whose names contain at by fault.
func (g *Gate) Fail(at string, fault http.HandlerFunc) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.faultAt, g.fault = at, fault
}

// Repair ends the fault.
func (g *Gate) Repair() { g.Fail("", nil) }

// Asked returns the names of the requests since the last call of Asked.
func (g *Gate) Asked() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	requests := g.requests
	g.requests = nil
	return requests
}

// Stall is a fault: no answer until the caller goes away or the gate is closed.
func (g *Gate) Stall(_ http.ResponseWriter, r *http.Request) {
	io.Copy(io.Discard, r.Body) // or the server does not notice that the caller goes
	select {
	case <-r.Context().Done():
	case <-g.closing:
	}
}

// StallAfter returns a fault: the beginning of an answer, then as Stall.
func (g *Gate) StallAfter(begin string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, begin)
		http.NewResponseController(w).Flush()
		g.Stall(w, r)
	}
}

// Close ends all stalls.
func (g *Gate) Close() { close(g.closing) }

// Answer returns a fault: this status and this body, as JSON.
func Answer(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		io.WriteString(w, body)
	}
}

// Drop returns a fault: the connection ends after the first bytes of a body, or
// without an answer if begin is "".
func Drop(begin string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err) // the server of a test allows it
		}
		if begin != "" {
			io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"+begin)
		}
		conn.Close()
	}
}

// Outages are faults that no service causes, but a proxy, a network or a bug does.
// Each is [kms.ErrUnavailable].
func Outages() map[string]http.HandlerFunc {
	page := "<html><body>" + strings.Repeat("nginx ", 1000) + "</body></html>"
	return map[string]http.HandlerFunc{
		"gateway":                  Answer(http.StatusBadGateway, page),
		"not found by a proxy":     Answer(http.StatusNotFound, page),
		"bad request by a proxy":   Answer(http.StatusBadRequest, page),
		"forbidden by a proxy":     Answer(http.StatusForbidden, page),
		"redirected to a login":    func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/login", http.StatusSeeOther) },
		"connection dropped":       Drop(""),
		"answer cut":               Drop(`{"data":{"derived":true,"kid":"https://`),
		"garbage":                  Answer(http.StatusOK, page),
		"no answer":                Answer(http.StatusOK, ""),
		"no content":               Answer(http.StatusNoContent, ""),
		"nothing":                  Answer(http.StatusOK, `{}`),
		"null":                     Answer(http.StatusOK, `null`),
		"an object without errors": Answer(http.StatusInternalServerError, `{}`),
	}
}
