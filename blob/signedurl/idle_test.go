package signedurl_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/blob/signedurl"
)

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
