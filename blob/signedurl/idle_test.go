package signedurl_test

import (
	"bytes"
	"context"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/blob/signedurl"
)

// TestStalledHTTP2 stalls uploads and downloads over HTTP/2, where a stream, and
// not the connection, ends.
func TestStalledHTTP2(t *testing.T) {
	s := newScript(make([]byte, 64<<20))
	signer := newSigner(t, signerBase, secretOf(1), nil)
	handler := signedurl.NewHandler(s.bucket(), signer, &signedurl.HandlerOptions{
		IdleTimeout: 100 * time.Millisecond, Logger: slog.New(slog.DiscardHandler),
	})
	done := make(chan string, 2)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() { done <- r.Proto }()
		handler.ServeHTTP(w, r)
	}))
	server.EnableHTTP2 = true
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	defer server.Close()
	body, stalled := io.Pipe()
	defer stalled.Close()
	for method, body := range map[string]io.Reader{"GET": nil, "PUT": body} {
		link := strings.Replace(sign(t, signer, "k", method, ""), "https://photos.example", server.URL, 1)
		req, err := http.NewRequestWithContext(t.Context(), method, link, body)
		require.NoError(t, err)
		if resp, err := server.Client().Do(req); err == nil {
			defer resp.Body.Close() // without reading it
			require.Equal(t, map[string]int{"GET": 200, "PUT": 408}[method], resp.StatusCode)
		}
		select {
		case proto := <-done:
			require.Equal(t, "HTTP/2.0", proto)
		case <-time.After(patience):
			t.Fatalf("wait for the handler to cut a client that stalls a %s", method)
		}
	}
	_, _, readers := s.state()
	require.Zero(t, readers)
	for _, w := range s.writes {
		require.False(t, w.committed)
	}
}

// TestSlowBucket: the time that the bucket takes is not held against the client.
func TestSlowBucket(t *testing.T) {
	const idle = time.Second
	for _, http2 := range []bool{false, true} {
		name := map[bool]string{false: "HTTP/1.1", true: "HTTP/2.0"}[http2]
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScript(pattern(10_000))
			var once sync.Once
			s.read = func(_ context.Context, pos int64) error {
				if pos > 0 {
					once.Do(func() { time.Sleep(idle * 3 / 2) })
				}
				return nil
			}
			s.write = func() { time.Sleep(idle * 3 / 2) }
			signer := newSigner(t, signerBase, secretOf(1), nil)
			server := httptest.NewUnstartedServer(signedurl.NewHandler(s.bucket(), signer, &signedurl.HandlerOptions{IdleTimeout: idle}))
			server.EnableHTTP2 = http2
			server.StartTLS()
			defer server.Close()
			send := func(method string, body io.Reader) *http.Response {
				link := strings.Replace(sign(t, signer, "k", method, ""), "https://photos.example", server.URL, 1)
				req, err := http.NewRequestWithContext(t.Context(), method, link, body)
				require.NoError(t, err)
				resp, err := server.Client().Do(req)
				require.NoError(t, err)
				require.Equal(t, 200, resp.StatusCode)
				require.Equal(t, name, resp.Proto)
				return resp
			}
			resp := send("GET", nil)
			defer resp.Body.Close()
			got, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			require.True(t, bytes.Equal(s.content, got))
			require.NoError(t, send("PUT", bytes.NewReader(pattern(1<<20))).Body.Close())
		})
	}
}
