package signedurl_test

import (
	"bytes"
	"context"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/blob/internal/blobtest"
	"github.com/blobseal/blobseal/blob/signedurl"
	"github.com/blobseal/blobseal/internal/testbed/fakeclock"
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

// TestSlowDownloadGoesOn: a client has the timeout for each piece, and not for the
// whole. A fast client gets large pieces until it becomes slow.
func TestSlowDownloadGoesOn(t *testing.T) {
	const idle, small, large = signedurl.DefaultIdleTimeout, 16 << 10, 256 << 10
	for name, tc := range map[string]struct {
		wait  func(received int) time.Duration // before each small piece
		whole bool
		last  int // size of the last piece
	}{
		"fast":     {func(int) time.Duration { return 0 }, true, large},
		"slow":     {func(int) time.Duration { return idle - 1 }, true, small},
		"too slow": {func(int) time.Duration { return idle + 1 }, false, small},
		"becomes slow": {func(received int) time.Duration {
			switch {
			case received < 4*large:
				return 0
			case received < 5*large: // which may be one piece
				return idle/16 - 1
			}
			return idle - 1
		}, true, small},
	} {
		t.Run(name, func(t *testing.T) {
			fakeclock.Test(t, func(t *testing.T) {
				bucket := blobtest.NewMem(t)
				require.NoError(t, bucket.WriteAll(t.Context(), "k", make([]byte, 8*large), nil))
				signer := newSigner(t, "http://photos.example/shared", secretOf(1), nil)
				signed, err := signer.Sign(&signedurl.Permit{Key: "k", Expires: time.Now().Add(time.Hour)})
				require.NoError(t, err)
				client, server := net.Pipe()
				received := 0
				var receiver sync.WaitGroup
				receiver.Go(func() {
					for err := error(nil); err == nil; {
						time.Sleep(tc.wait(received))
						var n int
						n, err = io.ReadFull(client, make([]byte, small))
						received += n
					}
				})
				w := &connWriter{httptest.NewRecorder(), server, nil}
				req := httptest.NewRequestWithContext(t.Context(), "GET", signed.String(), nil)
				handler := signedurl.NewHandler(bucket, signer, &signedurl.HandlerOptions{Logger: slog.New(slog.DiscardHandler)})
				serve := func() { handler.ServeHTTP(w, req) }
				if tc.whole {
					serve()
				} else {
					require.PanicsWithValue(t, http.ErrAbortHandler, serve)
				}
				server.Close()
				receiver.Wait()
				client.Close()
				require.Equal(t, tc.whole, received == 8*large)
				require.Equal(t, tc.last, w.pieces[len(w.pieces)-1])
			})
		})
	}
}

// connWriter is a ResponseWriter that sends each piece of a body over conn at once.
type connWriter struct {
	*httptest.ResponseRecorder
	conn   net.Conn
	pieces []int // their sizes
}

func (w *connWriter) Write(p []byte) (int, error) {
	w.pieces = append(w.pieces, len(p))
	return w.conn.Write(p)
}

func (w *connWriter) SetWriteDeadline(at time.Time) error { return w.conn.SetWriteDeadline(at) }
