package web

import (
	"crypto/rand"
	"io"
	"log"
	"net/http"
	"testing"

	"github.com/go-chi/chi/v5/middleware"
	"github.com/gorilla/handlers"
	"github.com/klauspost/compress/gzhttp"
	"github.com/stretchr/testify/require"
)

// middlewares are handlers that services put around all of their handlers.
var middlewares = map[string]func(http.Handler) http.Handler{
	"none":             func(h http.Handler) http.Handler { return h },
	"chi recoverer":    middleware.Recoverer,
	"chi compress":     middleware.Compress(5),
	"gorilla recovery": handlers.RecoveryHandler(handlers.RecoveryLogger(log.New(io.Discard, "", 0))),
	"gorilla compress": handlers.CompressHandler,
	"gzhttp":           func(h http.Handler) http.Handler { return gzhttp.GzipHandler(h) },
	"gorilla, both": func(h http.Handler) http.Handler {
		return handlers.RecoveryHandler(handlers.RecoveryLogger(log.New(io.Discard, "", 0)))(handlers.CompressHandler(h))
	},
	"gorilla, the other way": func(h http.Handler) http.Handler {
		return handlers.CompressHandler(handlers.RecoveryHandler(handlers.RecoveryLogger(log.New(io.Discard, "", 0)))(h))
	},
	"chi, both": func(h http.Handler) http.Handler { return middleware.Recoverer(middleware.Compress(5)(h)) },
	"gzhttp and a recovery that swallows all": func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			defer func() { _ = recover() }()
			gzhttp.GzipHandler(h)(w, r)
		})
	},
}

// TestMiddleware: whatever middleware is around the handler, a damaged object never
// ends cleanly, and a whole one arrives.
func TestMiddleware(t *testing.T) {
	content := make([]byte, 1<<20)
	rand.Read(content) // what compresses well is sent only at its end
	for name, wrap := range middlewares {
		t.Run(name, func(t *testing.T) {
			b := newBed(t, "", nil, wrap)
			b.write(t, "whole", "text/plain", content)
			b.write(t, "damaged", "text/plain", content)
			b.damage(t, "damaged", 1)
			for _, encoding := range []string{"gzip", "identity"} {
				client := &http.Client{Transport: &http.Transport{DisableCompression: encoding == "identity"}}
				resp, body, err := get(t, client, b.sign(t, permit("GET", "whole")))
				require.NoError(t, err)
				require.Equal(t, 200, resp.StatusCode)
				require.Len(t, body, len(content))
				require.Contains(t, resp.Header.Get("Cache-Control"), "no-transform")

				_, body, err = get(t, client, b.sign(t, permit("GET", "damaged")))
				require.Error(t, err, "%d bytes ended cleanly", len(body))
			}
		})
	}
}
