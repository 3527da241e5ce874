package s3gateway_test

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"
)

// outage is what a faulty store does with requests.
type outage int32

const (
	healthy    outage = iota
	down              // closes each connection
	slow              // 300 ms later
	oneInSeven        // fails one request in seven, in four ways
)

// faultyProxy stands between a gateway and another S3 server and fails.
type faultyProxy struct {
	url      string
	state    atomic.Int32
	requests atomic.Int64
	failed   atomic.Int64
}

func (p *faultyProxy) set(o outage) { p.state.Store(int32(o)) }

// startFaultyProxy starts a proxy to the server of an URL, which ends with the test.
func startFaultyProxy(t *testing.T, to string) *faultyProxy {
	p := &faultyProxy{}
	reverse := reverseProxy(t, to)
	reverse.ErrorHandler = func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) }
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { p.serve(w, r, reverse) }))
	t.Cleanup(server.Close)
	p.url = server.URL
	return p
}

// serve passes on only complete requests. If a connection ends early, the engine, unlike S3,
// stores the beginning of the body (fasthttp reads io.EOF), and so would replace an object by
// its beginning.
func (p *faultyProxy) serve(w http.ResponseWriter, r *http.Request, store http.Handler) {
	p.requests.Add(1)
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	switch outage(p.state.Load()) {
	case down:
		panic(http.ErrAbortHandler)
	case slow:
		time.Sleep(300 * time.Millisecond)
	case oneInSeven:
		if rand.IntN(7) == 0 { // every seventh would fail each operation of seven requests
			p.fail(int(p.failed.Add(1)%4), w, r, store)
			return
		}
	}
	store.ServeHTTP(w, r)
}

// fail fails a request: with a status, or by cutting the connection before the store
// has the request, or after it has done what the request asks for.
func (p *faultyProxy) fail(way int, w http.ResponseWriter, r *http.Request, store http.Handler) {
	switch way {
	case 0, 1:
		io.Copy(io.Discard, r.Body)
		status, code := 500, "InternalError"
		if way == 1 {
			status, code = 503, "SlowDown"
		}
		w.WriteHeader(status)
		io.WriteString(w, "<Error><Code>"+code+"</Code><Message>a fault</Message></Error>")
		return
	case 2:
		store.ServeHTTP(httptest.NewRecorder(), r)
	case 3: // in the middle of a response's body, if it has one
		if r.Method == http.MethodGet {
			answer := httptest.NewRecorder()
			store.ServeHTTP(answer, r)
			for name, values := range answer.Header() {
				w.Header()[name] = values
			}
			w.WriteHeader(answer.Code)
			body := answer.Body.Bytes()
			w.Write(body[:len(body)/2])
			http.NewResponseController(w).Flush()
		}
	}
	panic(http.ErrAbortHandler)
}
