package bucket

import (
	"log/slog"
	"net/http"
	"time"

	"github.com/blobseal/blobseal/blob/signedurl"
)

// accessLog logs each request without its URL, since whoever reads a URL may use it.
func accessLog(logger *slog.Logger, signer *signedurl.Signer, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		begin := time.Now()
		seen := &recordedResponse{ResponseWriter: w}
		key := ""
		if permit, err := signer.Verify(r); err == nil {
			key = permit.Key
		}
		cut := true
		defer func() {
			logger.Info("request", "method", r.Method, "key", key, "status", seen.status, "code", w.Header().Get(signedurl.ErrorCodeHeader), "bytes", seen.bytes, "cut", cut,
				"duration", time.Since(begin).Round(time.Microsecond).String(), "remote", r.RemoteAddr)
		}()
		next.ServeHTTP(seen, r)
		cut = false // the handler panics if an object is damaged
		if seen.status == 0 {
			seen.status = http.StatusOK
		}
	})
}

// recordedResponse records the status and the size of a response.
type recordedResponse struct {
	http.ResponseWriter
	status int
	bytes  int64
}

func (a *recordedResponse) WriteHeader(status int) {
	if a.status == 0 || a.status < 200 {
		a.status = status
	}
	a.ResponseWriter.WriteHeader(status)
}

func (a *recordedResponse) Write(p []byte) (int, error) {
	if a.status == 0 {
		a.status = http.StatusOK
	}
	n, err := a.ResponseWriter.Write(p)
	a.bytes += int64(n)
	return n, err
}

// Unwrap returns the writer below, for [http.ResponseController].
func (a *recordedResponse) Unwrap() http.ResponseWriter { return a.ResponseWriter }
