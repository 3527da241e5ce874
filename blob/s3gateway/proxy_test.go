package s3gateway_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// proxy stands between a gateway and another S3 server. It counts what passes.
type proxy struct {
	url string

	mu       sync.Mutex
	sent     int64                                   // bytes of requests' bodies
	received int64                                   // bytes of responses' bodies
	before   func(operation string, r *http.Request) // may change the store, or the request
}

// notImplemented is the method of a request that the proxy refuses.
const notImplemented = "NOT-IMPLEMENTED"

// startProxy starts a proxy to the server of an URL, which ends with the test.
func startProxy(t *testing.T, to string) *proxy {
	p := &proxy{}
	reverse := reverseProxy(t, to)
	reverse.ModifyResponse = func(r *http.Response) error {
		r.Body = &counted{r.Body, p, &p.received}
		return nil
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		operation := operationOf(r)
		p.mu.Lock()
		before := p.before
		p.mu.Unlock()
		if before != nil {
			before(operation, r)
		}
		if r.Method == notImplemented {
			io.Copy(io.Discard, r.Body)
			w.WriteHeader(http.StatusNotImplemented)
			io.WriteString(w, "<Error><Code>NotImplemented</Code><Message>no</Message></Error>")
			return
		}
		r.Body = &counted{r.Body, p, &p.sent}
		reverse.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	p.url = server.URL
	return p
}

// reverseProxy returns a proxy to the server of an URL.
func reverseProxy(t *testing.T, to string) *httputil.ReverseProxy {
	target, err := url.Parse(to)
	require.NoError(t, err)
	return &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(target)
		r.Out.Host = r.In.Host // which is signed
	}}
}

// operationOf names the operations that tests tell apart.
func operationOf(r *http.Request) string {
	query := r.URL.Query()
	switch _, uploads := query["uploads"]; {
	case r.Method == http.MethodPut && query.Has("partNumber") && r.Header.Get("x-amz-copy-source") != "":
		return "UploadPartCopy"
	case r.Method == http.MethodPut && query.Has("partNumber"):
		return "UploadPart"
	case r.Method == http.MethodPost && query.Has("uploadId"):
		return "CompleteMultipartUpload"
	case r.Method == http.MethodPost && uploads:
		return "CreateMultipartUpload"
	case r.Method == http.MethodDelete && query.Has("uploadId"):
		return "AbortMultipartUpload"
	}
	return r.Method
}

// reset sets the counts to zero.
func (p *proxy) reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sent, p.received = 0, 0
}

// counts returns the bytes of bodies that have passed.
func (p *proxy) counts() (sent, received int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sent, p.received
}

// intercept has before called ahead of each request, or nothing if it is nil.
func (p *proxy) intercept(before func(operation string, r *http.Request)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.before = before
}

// counted adds what is read to a count.
type counted struct {
	io.ReadCloser
	p *proxy
	n *int64
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.ReadCloser.Read(b)
	c.p.mu.Lock()
	defer c.p.mu.Unlock()
	*c.n += int64(n)
	return n, err
}

// urlEscape escapes a key for the header that names the source of a copy.
func urlEscape(key string) string {
	return strings.ReplaceAll((&url.URL{Path: key}).EscapedPath(), "+", "%2B")
}
