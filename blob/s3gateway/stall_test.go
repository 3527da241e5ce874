package s3gateway_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/stretchr/testify/require"
	"github.com/versity/versitygw/backend"
	"github.com/versity/versitygw/s3err"

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

// TestStoreStalls uses stores that stall at each point of a request. The request fails. Clients
// may be as slow as they like.
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

// TestWaits: only requests for which the store moves bytes itself may take long.
func TestWaits(t *testing.T) {
	const short, long = time.Minute, time.Hour
	for _, tc := range []struct {
		name, method, query, source string
		wait                        time.Duration
	}{
		{"GetObject", http.MethodGet, "", "", short},
		{"PutObject", http.MethodPut, "", "", short},
		{"UploadPart", http.MethodPut, "?partNumber=1&uploadId=u", "", short},
		{"ListParts", http.MethodGet, "?uploadId=u", "", short},
		{"AbortMultipartUpload", http.MethodDelete, "?uploadId=u", "", short},
		{"CreateMultipartUpload", http.MethodPost, "?uploads=", "", short},
		{"DeleteObjects", http.MethodPost, "?delete=", "", short},
		{"RestoreObject", http.MethodPost, "?restore=", "", short},
		{"CompleteMultipartUpload", http.MethodPost, "?uploadId=u", "", long},
		{"CopyObject", http.MethodPut, "", "photos/k", long},
		{"UploadPartCopy", http.MethodPut, "?partNumber=1&uploadId=u", "photos/k", long},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r, err := http.NewRequestWithContext(t.Context(), tc.method, "http://store.test/photos/k"+tc.query, nil)
			require.NoError(t, err)
			if tc.source != "" {
				r.Header.Set("x-amz-copy-source", tc.source)
			}
			require.Equal(t, tc.wait, s3gateway.WaitOf(r))
		})
	}
}

// slowStore is a store that is slow to report that a bucket does not exist.
type slowStore struct{ backend.BackendUnsupported }

const slowAnswer = 10 * time.Minute

func (slowStore) HeadBucket(_ context.Context, in *s3.HeadBucketInput) (*s3.HeadBucketOutput, error) {
	time.Sleep(slowAnswer)
	return nil, s3err.GetBucketErr(s3err.ErrNoSuchBucket, *in.Bucket)
}

// TestCompletionsTakeTurns repeats a request to complete an upload, which takes long. The
// second request does not wait as long.
func TestCompletionsTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := s3gateway.NewOver(slowStore{})
		complete := func() string {
			_, _, err := g.CompleteMultipartUpload(t.Context(), &s3.CompleteMultipartUploadInput{
				Bucket: ptr(bucket), Key: ptr("k"), UploadId: ptr("u"), MultipartUpload: &types.CompletedMultipartUpload{},
			})
			answer, _ := errors.AsType[s3err.S3Error](err)
			return answer.BaseError().Code
		}
		first := make(chan string)
		go func() { first <- complete() }()
		synctest.Wait()
		start := time.Now()
		require.Equal(t, "OperationAborted", complete())
		require.Less(t, time.Since(start), slowAnswer/2)
		require.Equal(t, "NoSuchBucket", <-first)
		require.Equal(t, slowAnswer, time.Since(start), "the first one is not cut short")
	})
}
