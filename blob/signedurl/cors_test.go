package signedurl_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/blob/internal/blobtest"
	"github.com/blobseal/blobseal/blob/signedurl"
)

// TestOrigins: scripts of the allowed origins, and no others, may use signed URLs,
// and read what went wrong.
func TestOrigins(t *testing.T) {
	const app = "https://app.example"
	b := newBed(t, "plain", blobtest.NewMem(t), &signedurl.HandlerOptions{Origins: []string{app}})
	b.write(t, "k", []byte("content"), nil)
	get, put := b.url(t, "k", "GET", ""), b.url(t, "k", "PUT", "")
	preflight := func(origin string) answer {
		return b.do(t, "OPTIONS", put, nil, "Origin", origin, "Access-Control-Request-Method", "PUT", "Access-Control-Request-Headers", "content-type,if-none-match")
	}
	got := preflight(app)
	require.Equal(t, http.StatusNoContent, got.status)
	require.Equal(t, app, got.header["Access-Control-Allow-Origin"])
	require.Equal(t, "PUT", got.header["Access-Control-Allow-Methods"])
	require.Equal(t, "content-type,if-none-match", got.header["Access-Control-Allow-Headers"])
	require.Equal(t, "600", got.header["Access-Control-Max-Age"])
	require.Empty(t, preflight("https://other.example").header["Access-Control-Allow-Origin"])

	for name, tc := range map[string]struct {
		method, url string
		status      int
		header      []string
	}{
		"get":       {"GET", get, 200, nil},
		"range":     {"GET", get, 206, []string{"Range", "bytes=0-1"}},
		"no range":  {"GET", get, 416, []string{"Range", "bytes=9-"}},
		"not there": {"GET", b.url(t, "missing", "GET", ""), 404, nil},
		"refused":   {"GET", put, 403, nil},
		"put":       {"PUT", put, 200, nil},
	} {
		got := b.do(t, tc.method, tc.url, strings.NewReader("content"), append(tc.header, "Origin", app)...)
		require.Equal(t, tc.status, got.status, name)
		require.Equal(t, app, got.header["Access-Control-Allow-Origin"], name)
		require.Contains(t, got.header["Access-Control-Expose-Headers"], signedurl.ErrorCodeHeader, name)
		require.Contains(t, got.header["Vary"], "Origin", name)
		got = b.do(t, tc.method, tc.url, strings.NewReader("content"), append(tc.header, "Origin", "https://other.example")...)
		require.Equal(t, tc.status, got.status, name)
		require.Empty(t, got.header["Access-Control-Allow-Origin"], name)
	}

	closed := newBed(t, "plain", blobtest.NewMem(t), nil)
	got = closed.do(t, "OPTIONS", closed.url(t, "k", "PUT", ""), nil, "Origin", app, "Access-Control-Request-Method", "PUT")
	require.Equal(t, 403, got.status)
	require.Empty(t, got.header["Access-Control-Allow-Origin"])
}
