package main

import (
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
	"github.com/stretchr/testify/require"
)

// s3Server is a server with the API of S3, in this process, with a bucket, photos.
// Before it writes, it calls beforePut, if that is set.
type s3Server struct {
	url []string

	mu         sync.Mutex
	beforePut  func(*http.Request)
	conditions []string // the If-Match of each PUT
	careless   bool     // it ignores If-Match
}

// withoutChecksums removes the checksums from a response, as S3 does for ranges.
type withoutChecksums struct {
	http.ResponseWriter
	begun bool
}

func (w *withoutChecksums) WriteHeader(status int) {
	w.begun = true
	maps.DeleteFunc(w.Header(), func(name string, _ []string) bool { return strings.HasPrefix(name, "X-Amz-Checksum-") })
	w.ResponseWriter.WriteHeader(status)
}

func (w *withoutChecksums) Write(p []byte) (int, error) {
	if !w.begun {
		w.WriteHeader(http.StatusOK)
	}
	return w.ResponseWriter.Write(p)
}

func newS3(t *testing.T) *s3Server {
	t.Setenv("AWS_ACCESS_KEY_ID", "id")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	t.Setenv("AWS_MAX_ATTEMPTS", "1")
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	backend := s3mem.New()
	require.NoError(t, backend.CreateBucket("photos"))
	api := gofakes3.New(backend, gofakes3.WithLogger(gofakes3.DiscardLog())).Server()
	s := new(s3Server)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut {
			s.mu.Lock()
			s.conditions = append(s.conditions, r.Header.Get("If-Match"))
			before := s.beforePut
			if !strings.Contains(r.URL.Path, "/.blobseal-probe-") {
				s.beforePut = nil
			} else {
				before, s.conditions = nil, s.conditions[:len(s.conditions)-1]
			}
			if s.careless {
				r.Header.Del("If-Match")
			}
			s.mu.Unlock()
			if before != nil {
				before(r)
			}
		}
		api.ServeHTTP(&withoutChecksums{ResponseWriter: w}, r)
	}))
	t.Cleanup(server.Close)
	s.url = []string{"--bucket", "s3://photos?region=us-east-1&use_path_style=true&response_checksum_validation=when_required&endpoint=" + server.URL}
	return s
}

// takeConditions returns the If-Match of each PUT since it was called last.
func (s *s3Server) takeConditions() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	taken := s.conditions
	s.conditions = nil
	return taken
}

// TestBucketS3 has a key's life on S3. What is replaced there says If-Match.
func TestBucketS3(t *testing.T) {
	s3 := newS3(t)
	workspace(t)
	old := ringKeys(t).Versions[0].ID
	plain := random(50_000)
	write(t, "cat.jpg", plain)
	for _, name := range []string{"a", "2026/b"} {
		require.Empty(t, ok(t, args("bucket", "put", s3.url, ring, "cat.jpg", name)...))
	}
	blobseal(args("bucket", "put", s3.url, ring, "cat.jpg", "a")...).fails(t, 3, "a: already exists; --force replaces it")
	require.Equal(t, string(plain[20_000:20_100]), ok(t, args("bucket", "get", s3.url, ring, "--range", "20000-20099", "a", "-")...))
	blobseal(args("bucket", "get", s3.url, ring, "none", "-")...).fails(t, 5, "none: no such object")
	ok(t, args("ring", "rotate", ring)...)

	s3.takeConditions()
	require.Contains(t, ok(t, args("bucket", "rewrap", s3.url, ring)...), "s3://photos: 2 objects rewrapped to SSE-S3 version ")
	conditions := s3.takeConditions()
	require.Len(t, conditions, 2)
	for _, etag := range conditions {
		require.Regexp(t, `^"[0-9a-f]{32}"$`, etag)
	}
	require.Contains(t, ok(t, args("bucket", "inventory", s3.url)...), "s3://photos: 2 objects, ")
	require.Contains(t, ok(t, args("bucket", "check", s3.url, ring)...), ", 2 good (")
	ok(t, args("bucket", "retire", s3.url, ring, old)...)
	require.Equal(t, string(plain), ok(t, args("bucket", "get", s3.url, ring, "2026/b", "-")...))

	blobseal("bucket", "inventory", "--bucket", s3.url[1][:5]+"none"+s3.url[1][len("s3://photos"):]).fails(t, 5, "s3://none: no such bucket")
}

// Another process writes an object when the rewrap has looked at it for the last
// time: its write stays.
func TestBucketS3Race(t *testing.T) {
	s3 := newS3(t)
	workspace(t)
	write(t, "old", []byte("old"))
	ok(t, args("bucket", "put", s3.url, ring, "old", "a")...)
	ok(t, args("ring", "rotate", ring)...)
	write(t, "newer", []byte("newer"))
	s3.beforePut = func(*http.Request) {
		ok(t, args("bucket", "put", s3.url, ring, "--force", "newer", "a")...)
	}
	out := ok(t, args("bucket", "rewrap", s3.url, ring)...)
	require.Contains(t, out, " 1 current, 0 unmatched, 0 deleted meanwhile, 0 failed")
	require.Equal(t, "newer", ok(t, args("bucket", "get", s3.url, ring, "a", "-")...))
}

// A server that ignores If-Match could lose a service's write.
func TestBucketS3WithoutConditions(t *testing.T) {
	s3 := newS3(t)
	s3.careless = true
	workspace(t)
	write(t, "plain", []byte("text"))
	ok(t, args("bucket", "put", s3.url, ring, "plain", "a")...)
	ok(t, args("ring", "rotate", ring)...)
	const says = "s3://photos: the server ignores If-Match, so the command could undo a write of a service (stop all writers and give --exclusive)"
	blobseal(args("bucket", "rewrap", s3.url, ring)...).fails(t, 3, says)
	blobseal(args("bucket", "encrypt-existing", s3.url, ring)...).fails(t, 3, says)
	require.Contains(t, ok(t, args("bucket", "inventory", s3.url)...), "s3://photos: 1 object, ", "the probe is gone")
	ok(t, args("bucket", "rewrap", s3.url, ring, "--dry-run")...)
	require.Contains(t, ok(t, args("bucket", "rewrap", s3.url, ring, "--exclusive")...), "s3://photos: 1 object rewrapped to ")
}
