package s3gateway_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/blob/s3gateway"
)

// slowReader waits before each Read, until ctx ends if wait is below zero.
type slowReader struct {
	io.Reader
	wait time.Duration
	end  <-chan struct{}
}

func (r *slowReader) Read(p []byte) (int, error) {
	if r.wait < 0 {
		<-r.end
		return 0, io.ErrUnexpectedEOF
	}
	time.Sleep(r.wait)
	return r.Reader.Read(p)
}

// storeFunc is a store that answers requests.
type storeFunc func(*http.Request) (*http.Response, error)

func (f storeFunc) Do(r *http.Request) (*http.Response, error) { return f(r) }

// TestStoreStalls has stores that do nothing any more, at each point of a request. The
// request fails. Clients may be as slow as they like.
func TestStoreStalls(t *testing.T) {
	const wait, patience = time.Minute, 10 * time.Minute
	hang := func(r *http.Request) (*http.Response, error) {
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	answer := func(r *http.Request, wait time.Duration) (*http.Response, error) {
		body := &slowReader{strings.NewReader("answer"), wait, r.Context().Done()}
		return &http.Response{StatusCode: 200, Body: io.NopCloser(body)}, nil
	}
	for _, tc := range []struct {
		name  string
		store storeFunc
		ok    bool
	}{
		{"healthy", func(r *http.Request) (*http.Response, error) {
			_, err := io.Copy(io.Discard, r.Body) // at the pace of the client
			require.NoError(t, err)
			time.Sleep(wait - time.Second)
			return answer(r, wait-time.Second)
		}, true},
		{"does not answer", hang, false},
		{"takes some of the body", func(r *http.Request) (*http.Response, error) {
			r.Body.Read(make([]byte, 1))
			return hang(r)
		}, false},
		{"answers before it has the body", func(r *http.Request) (*http.Response, error) {
			go func() {
				time.Sleep(wait / 2)
				r.Body.Read(make([]byte, 1))
			}()
			return answer(r, 0)
		}, true},
		{"sends no body", func(r *http.Request) (*http.Response, error) { return answer(r, -1) }, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				body := &slowReader{strings.NewReader("request"), patience, nil}
				r, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "http://store.test/k", body)
				require.NoError(t, err)
				response, err := s3gateway.DoInTime(tc.store, r, wait)
				var got []byte
				if err == nil {
					time.Sleep(patience) // before the client reads
					got, err = io.ReadAll(response.Body)
					time.Sleep(patience)
					require.NoError(t, response.Body.Close())
				}
				if tc.ok {
					require.NoError(t, err)
					require.Equal(t, "answer", string(got))
				} else {
					require.ErrorContains(t, err, "store.test, does nothing for 1m0s")
				}
			})
		})
	}
}
