package s3test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// wire is a transport that records requests.
type wire struct {
	base http.RoundTripper

	mu       sync.Mutex
	requests []*request
	before   func(*request) // called before each request is sent
}

// request is one that went through a wire.
type request struct {
	op       string // as S3 names it
	key      string
	rng      string // Range, without its unit
	ifMatch  string
	status   int // 0 until there is an answer
	sent     atomic.Int64
	received atomic.Int64 // of the answer's body
}

func (w *wire) RoundTrip(r *http.Request) (*http.Response, error) {
	_, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	noted := &request{
		op: operation(r, key), key: key,
		rng: strings.TrimPrefix(r.Header.Get("Range"), "bytes="), ifMatch: r.Header.Get("If-Match"),
	}
	w.mu.Lock()
	w.requests = append(w.requests, noted)
	before := w.before
	w.mu.Unlock()
	if before != nil {
		before(noted)
	}
	if r.Body != nil && r.Body != http.NoBody {
		r = r.Clone(r.Context())
		r.Body = counted{r.Body, &noted.sent}
	}
	response, err := w.base.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	noted.status = response.StatusCode
	w.mu.Unlock()
	response.Body = counted{response.Body, &noted.received}
	return response, nil
}

// operation returns S3's name of a request.
func operation(r *http.Request, key string) string {
	q := r.URL.Query()
	switch {
	case r.Method == http.MethodGet && key == "":
		return "ListObjectsV2"
	case q.Has("partNumber") && r.Header.Get("X-Amz-Copy-Source") != "":
		return "UploadPartCopy"
	case q.Has("partNumber"):
		return "UploadPart"
	case q.Has("uploadId") && r.Method == http.MethodGet:
		return "ListParts"
	case q.Has("tagging") && r.Method == http.MethodGet:
		return "GetObjectTagging"
	case q.Has("uploads"):
		return "CreateMultipartUpload"
	case q.Has("uploadId") && r.Method == http.MethodPost:
		return "CompleteMultipartUpload"
	case q.Has("uploadId") && r.Method == http.MethodDelete:
		return "AbortMultipartUpload"
	}
	return map[string]string{
		http.MethodGet: "GetObject", http.MethodHead: "HeadObject", http.MethodPut: "PutObject", http.MethodDelete: "DeleteObject",
	}[r.Method]
}

// observe makes the wire call fn before each request from now on.
func (w *wire) observe(fn func(*request)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.before = fn
}

// beforeRequest makes the wire call fn once, before the nth request from now on, counted from
// 0. result returns fn's error, or an error if there was no such request.
func (w *wire) beforeRequest(nth int, fn func() error) (result func() error) {
	var mu sync.Mutex
	left, err := nth, fmt.Errorf("there were no %d requests", nth+1)
	w.observe(func(*request) {
		mu.Lock()
		defer mu.Unlock()
		if left--; left == -1 {
			err = fn()
		}
	})
	return func() error {
		mu.Lock()
		defer mu.Unlock()
		return err
	}
}

// beforeFirst makes the wire call fn once, before the first request from now on for one of
// these operations. If fn fails, the test fails.
func (w *wire) beforeFirst(t testing.TB, fn func() error, operations ...string) {
	var once sync.Once
	w.observe(func(q *request) {
		if slices.Contains(operations, q.op) {
			once.Do(func() {
				if err := fn(); err != nil {
					t.Error(err)
				}
			})
		}
	})
}

// meeting returns a function in which n callers wait for each other, until ctx ends.
func meeting(ctx context.Context, n int) (meet func() error) {
	var missing sync.WaitGroup
	missing.Add(n)
	together := make(chan struct{})
	go func() {
		missing.Wait()
		close(together)
	}()
	return func() error {
		missing.Done()
		select {
		case <-together:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// take returns the requests since the last call.
func (w *wire) take() []*request {
	w.mu.Lock()
	defer w.mu.Unlock()
	taken := w.requests
	w.requests = nil
	return taken
}

// has reports whether a request for op was answered with a status since the last take.
func (w *wire) has(op string, status int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.ContainsFunc(w.requests, func(r *request) bool { return r.op == op && r.status == status })
}

// ops returns the operations of requests, with their ranges, in alphabetical order: parallel
// requests arrive in any order.
func ops(requests []*request) []string {
	var names []string
	for _, r := range requests {
		names = append(names, strings.TrimSpace(r.op+" "+r.rng))
	}
	slices.Sort(names)
	return names
}

// counted counts the bytes that are read.
type counted struct {
	io.ReadCloser
	n *atomic.Int64
}

func (c counted) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.n.Add(int64(n))
	return n, err
}
