package kmstest_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/kms/kmstest"
)

func TestGate(t *testing.T) {
	service := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "served") })
	gate := kmstest.NewGate(service, func(r *http.Request) string {
		if r.URL.Path == "/unseen" {
			return ""
		}
		return r.Method + " " + r.URL.Path
	})
	server := httptest.NewServer(gate)
	t.Cleanup(func() { gate.Close(); server.Close() })
	get := func(ctx context.Context, path string) (string, error) {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL+path, nil)
		require.NoError(t, err)
		response, err := server.Client().Do(request)
		if err != nil {
			return "", err
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		return string(body), err
	}
	require200 := func(path, want string) {
		t.Helper()
		body, err := get(t.Context(), path)
		require.NoError(t, err)
		require.Equal(t, want, body)
	}
	require200("/a", "served")
	gate.Fail("/b", kmstest.Answer(http.StatusTeapot, "fault"))
	require200("/a", "served")
	require200("/b", "fault")
	require200("/unseen", "served")
	require.Equal(t, []string{"GET /a", "GET /a", "GET /b"}, gate.Asked())
	require.Empty(t, gate.Asked())
	for _, begin := range []string{"", "half"} {
		gate.Fail("", kmstest.Drop(begin))
		body, err := get(t.Context(), "/a")
		require.Error(t, err)
		require.Equal(t, begin, body)
	}
	for _, stall := range []http.HandlerFunc{gate.Stall, gate.StallAfter("half")} {
		gate.Fail("", stall)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		_, err := get(ctx, "/a")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		cancel()
	}
	gate.Repair()
	require200("/b", "served")
}
