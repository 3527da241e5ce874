package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/internal/testbed/await"
	"github.com/blobseal/blobseal/internal/testbed/captured"
	"github.com/blobseal/blobseal/kms/audit"
)

// serving is a server that runs until stop.
type serving struct {
	base string
	log  *captured.Buffer
	stop context.CancelFunc
	code chan int
	says *captured.Buffer
}

func serve(t *testing.T, flags ...string) *serving {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	s := &serving{log: new(captured.Buffer), says: new(captured.Buffer), stop: stop, code: make(chan int, 1)}
	command := args("bucket", "serve", bucketURL, "--secret-file", "my.key", "--listen", "127.0.0.1:0", "--json", flags)
	go func() { s.code <- run(ctx, command, strings.NewReader(""), s.log, s.says) }()
	require.Eventually(t, func() bool {
		return strings.Contains(s.log.String(), "\n") || strings.Contains(s.says.String(), "\n")
	}, await.Longest, time.Millisecond, "the server says where it is")
	var first struct {
		BaseURL string `json:"base_url"`
	}
	require.NoError(t, json.Unmarshal([]byte(strings.SplitAfter(s.log.String(), "\n")[0]), &first), "%s", s.says)
	s.base = first.BaseURL
	t.Cleanup(stop)
	return s
}

// ends stops the server and returns what it logged of requests.
func (s *serving) ends(t *testing.T) (requests []map[string]any) {
	t.Helper()
	s.stop()
	require.Equal(t, 0, await.Value(t, s.code, "the server to end"), s.says)
	require.Empty(t, s.says.String())
	for _, line := range lines(t, s.log.String()) {
		if line["msg"] == "request" {
			requests = append(requests, line)
		}
	}
	return requests
}

// sign returns a URL of the server.
func (s *serving) sign(t *testing.T, flags ...string) string {
	t.Helper()
	return strings.TrimSuffix(ok(t, args("bucket", "sign", "--secret-file", "my.key", "--base-url", s.base, flags)...), "\n")
}

// send makes a request and returns the answer's status and body.
func send(t *testing.T, method, url string, body io.Reader, headers ...string) (int, string) {
	t.Helper()
	req, err := http.NewRequest(method, url, body)
	require.NoError(t, err)
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return res.StatusCode, string(text)
}

func TestBucketServe(t *testing.T) {
	album(t, ring, "2026/cat.jpg")
	put(t, photos, "kms.jpg", "under a service's key")
	s := serve(t, args(ring, "--kms", "my.kms", "--kms-key", "alias/photos")...)
	cat := s.sign(t, "2026/cat.jpg")

	status, body := send(t, http.MethodGet, cat, nil)
	require.Equal(t, 200, status)
	require.Equal(t, "picture of 2026/cat.jpg", body)
	status, body = send(t, http.MethodGet, cat, nil, "Range", "bytes=11-13")
	require.Equal(t, 206, status)
	require.Equal(t, "202", body[:3])
	status, body = send(t, http.MethodGet, s.sign(t, "kms.jpg"), nil)
	require.Equal(t, 200, status)
	require.Equal(t, "under a service's key", body)

	upload := s.sign(t, "--method", "PUT", "--content-type", "image/x-dog", "--expiry", "10m", "dog.jpg")
	status, _ = send(t, http.MethodPut, upload, strings.NewReader("a dog"), "Content-Type", "image/x-cat")
	require.Equal(t, 403, status)
	status, _ = send(t, http.MethodPut, upload, strings.NewReader("a dog"), "Content-Type", "image/x-dog")
	require.Equal(t, 200, status)
	require.Equal(t, "a dog", get(t, ring, "dog.jpg"), "sealed under the ring")
	status, _ = send(t, http.MethodDelete, s.sign(t, "--method", "DELETE", "dog.jpg"), nil)
	require.Equal(t, 204, status)
	require.NoFileExists(t, "photos/dog.jpg")

	status, _ = send(t, http.MethodDelete, cat, nil)
	require.Equal(t, 403, status, "it is for reading")
	status, _ = send(t, http.MethodGet, strings.ReplaceAll(cat, "cat", "dog"), nil)
	require.Equal(t, 403, status, "it is for another object")
	status, _ = send(t, http.MethodGet, s.sign(t, "none.jpg"), nil)
	require.Equal(t, 404, status)

	requests := s.ends(t)
	require.Len(t, requests, 9)
	require.Equal(t, "ContentTypeMismatch", requests[3]["code"])
	require.Equal(t, "2026/cat.jpg", requests[0]["key"])
	require.Equal(t, 200.0, requests[0]["status"])
	require.Equal(t, float64(len("picture of 2026/cat.jpg")), requests[0]["bytes"])
	require.Equal(t, "", requests[7]["key"], "of what is not signed nothing is said")
	query, err := url.Parse(cat)
	require.NoError(t, err)
	for name, values := range query.Query() {
		if value := values[0]; len(value) >= 16 && value != "2026/cat.jpg" {
			require.NotContains(t, s.log.String(), value, name)
		}
	}
	require.NotContains(t, s.log.String(), "signature")
}

// TestBucketServeLetsGo: clients that announce a body and do not send it, and
// clients that do not read, give their connections back, however many they are.
func TestBucketServeLetsGo(t *testing.T) {
	album(t, ring, "a")
	s := serve(t, args(ring, "--max-connections", "50")...)
	u, err := url.Parse(s.base)
	require.NoError(t, err)
	for range 100 { // twice as many as there may be
		conn, err := net.Dial("tcp", u.Host)
		require.NoError(t, err)
		defer conn.Close()
		require.NoError(t, conn.SetDeadline(time.Now().Add(2*time.Minute)))
		_, err = io.WriteString(conn, "PUT /x?obj=x HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
		require.NoError(t, err)
		defer func() {
			answer, err := io.ReadAll(conn)
			require.NoError(t, err, "wait for the server to close the connection")
			require.Contains(t, string(answer), "403 Forbidden")
		}()
	}
}

func TestBucketServeOrigins(t *testing.T) {
	album(t, ring, "a")
	s := serve(t, args(ring, "--allow-origin", "https://app.example.com")...)
	req, err := http.NewRequest(http.MethodOptions, s.sign(t, "a"), nil)
	require.NoError(t, err)
	req.Header.Set("Origin", "https://app.example.com")
	req.Header.Set("Access-Control-Request-Method", "GET")
	res, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	require.Equal(t, 204, res.StatusCode)
	require.Equal(t, "https://app.example.com", res.Header.Get("Access-Control-Allow-Origin"))
	blobseal(args("bucket", "serve", bucketURL, "--secret-file", "my.key", ring, "--allow-origin", "app.example.com")...).
		fails(t, 2, "--allow-origin")
}

func TestBucketSignBinds(t *testing.T) {
	album(t, ring, "a")
	s := serve(t, ring...)
	status, _ := send(t, http.MethodPut, s.sign(t, "--method", "PUT", "--max-size", "3", "b"), strings.NewReader("long"))
	require.Equal(t, 413, status)
	res, err := http.Get(s.sign(t, "--response-content-type", "text/csv", "--response-content-disposition", "attachment", "--response-cache-control", "no-store", "a"))
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	require.Equal(t, "text/csv attachment no-store, no-transform",
		strings.Join([]string{res.Header.Get("Content-Type"), res.Header.Get("Content-Disposition"), res.Header.Get("Cache-Control")}, " "))
	status, _ = send(t, http.MethodGet, s.sign(t, "--if-match", res.Header.Get("Etag"), "a"), nil)
	require.Equal(t, 200, status)
	status, _ = send(t, http.MethodGet, s.sign(t, "--if-match", `"x"`, "a"), nil)
	require.Equal(t, 412, status)
}

// TestBucketPutTypes: browsers run or show an object by its type, so put goes by
// the name, and only without an extension by the data.
func TestBucketPutTypes(t *testing.T) {
	album(t, ring)
	s := serve(t, ring...)
	for key, want := range map[string]string{
		"a.css": "text/css", "a.js": "text/javascript", "a.json": "application/json", "a.svg": "image/svg+xml", "a.unknown": "text/plain", "a": "text/plain",
	} {
		put(t, ring, key, "{}")
		res, err := http.Head(s.sign(t, key))
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		got, _, _ := strings.Cut(res.Header.Get("Content-Type"), ";")
		require.Equal(t, want, got, key)
	}
}

// What was damaged in the store breaks the answer, and is logged.
func TestBucketServeDamaged(t *testing.T) {
	album(t, ring)
	put(t, ring, "big", strings.Repeat("x", 4_000_000))
	data := read(t, "photos/big")
	data[3_500_000] ^= 1
	write(t, "photos/big", data)
	s := serve(t, ring...)
	res, err := http.Get(s.sign(t, "big"))
	require.NoError(t, err)
	_, err = io.Copy(io.Discard, res.Body)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	require.NoError(t, res.Body.Close())
	requests := s.ends(t)
	require.Equal(t, true, requests[0]["cut"])
	require.Less(t, requests[0]["bytes"], 3_500_000.0)
	require.Contains(t, s.log.String(), "chunk")
}

// A request that is under way when the server is interrupted ends well; after the
// grace, it is cut off.
func TestBucketServeStops(t *testing.T) {
	for name, test := range map[string]struct {
		grace string
		code  int
	}{"gracefully": {"30s", 0}, "not for ever": {"10ms", 1}} {
		t.Run(name, func(t *testing.T) {
			album(t, ring)
			uploads := t.TempDir()
			t.Setenv("TMPDIR", uploads)
			s := serve(t, args(ring, "--grace", test.grace)...)
			body, w := io.Pipe()
			type outcome struct {
				status int
				err    error
			}
			answered := make(chan outcome, 1)
			req, err := http.NewRequest(http.MethodPut, s.sign(t, "--method", "PUT", "slow"), body)
			require.NoError(t, err)
			go func() {
				res, err := http.DefaultClient.Do(req)
				if err != nil {
					answered <- outcome{err: err}
					return
				}
				res.Body.Close()
				answered <- outcome{status: res.StatusCode}
			}()
			_, err = w.Write(bytes.Repeat([]byte("x"), 100_000)) // which the server reads
			require.NoError(t, err)
			require.Eventually(t, func() bool {
				began, err := os.ReadDir(uploads)
				return err == nil && len(began) > 0
			}, await.Longest, time.Millisecond, "the server writes")
			s.stop()
			if test.code != 0 {
				require.Equal(t, test.code, await.Value(t, s.code, "the server to end"))
				require.Regexp(t, `\Ablobseal: requests did not end within 10ms, and were cut off\n\z`, s.says.String())
				w.CloseWithError(io.ErrUnexpectedEOF)
				require.Error(t, await.Value(t, answered, "the answer").err)
				require.NoFileExists(t, "photos/slow")
				return
			}
			_, err = w.Write([]byte("end"))
			require.NoError(t, err)
			require.NoError(t, w.Close())
			require.Equal(t, outcome{status: 200}, await.Value(t, answered, "the answer"))
			require.Equal(t, 0, await.Value(t, s.code, "the server to end"), s.says)
			require.Equal(t, 100_003, len(get(t, ring, "slow")))
		})
	}
}

func TestBucketServeOldSecret(t *testing.T) {
	album(t, ring, "a")
	s := serve(t, args(ring, "--accept-secret-file", "other.key", "--base-url", "http://photos.example.com/p/")...)
	old := ok(t, "bucket", "sign", "--secret-file", "other.key", "--base-url", "http://photos.example.com/p/", "a")
	u, err := url.Parse(strings.TrimSpace(old))
	require.NoError(t, err)
	listen := lines(t, s.log.String())[0]["listen"].(string)
	status, body := send(t, http.MethodGet, "http://"+listen+u.RequestURI(), nil)
	require.Equal(t, 200, status)
	require.Equal(t, "picture of a", body)
	s.ends(t)
}

// TestBucketServeStatus asks the address for monitoring how the server is.
func TestBucketServeStatus(t *testing.T) {
	album(t, ring, "a")
	s := serve(t, args(ring, "--status-listen", "127.0.0.1:0")...)
	var first struct {
		Status string `json:"status_listen"`
	}
	require.NoError(t, json.Unmarshal([]byte(strings.SplitAfter(s.log.String(), "\n")[0]), &first))
	at := "http://" + first.Status
	status, body := send(t, http.MethodGet, at+"/healthz", nil)
	require.Equal(t, 200, status)
	require.Equal(t, "ok\n", body)

	status, _ = send(t, http.MethodGet, s.sign(t, "a"), nil)
	require.Equal(t, 200, status)
	status, body = send(t, http.MethodGet, at+"/metrics", nil)
	require.Equal(t, 200, status)
	require.Regexp(t, `(?m)^blobseal_key_operation\w*_count\{[^}]*\} [1-9]`, body)
	require.NotContains(t, body, "2026", "no object names")
	status, _ = send(t, http.MethodGet, s.base+"metrics", nil)
	require.NotEqual(t, 200, status, "not on the public address")

	require.NoError(t, os.Rename("photos", "gone"))
	status, body = send(t, http.MethodGet, at+"/healthz", nil)
	require.Equal(t, 503, status)
	require.NotEmpty(t, body)
	require.NoError(t, os.Rename("gone", "photos"))
	s.ends(t)
}

// TestBucketServeKeyMetrics: a server reports how its key service, the cache in front of
// it and the audit trail are doing.
func TestBucketServeKeyMetrics(t *testing.T) {
	album(t, photos, "a", "b")
	s := serve(t, args(photos, "--bucket-key", "--status-listen", "127.0.0.1:0")...)
	var first struct {
		Status string `json:"status_listen"`
	}
	require.NoError(t, json.Unmarshal([]byte(strings.SplitAfter(s.log.String(), "\n")[0]), &first))
	measured := func(metric string) float64 {
		_, body := send(t, http.MethodGet, "http://"+first.Status+"/metrics", nil)
		name, label, _ := strings.Cut(metric, " ")
		for line := range strings.Lines(body) {
			if strings.HasPrefix(line, name) && strings.Contains(line, label) {
				value, err := strconv.ParseFloat(line[strings.LastIndex(line, " ")+1:len(line)-1], 64)
				require.NoError(t, err)
				return value
			}
		}
		t.Fatalf("no %s in %s", metric, body)
		return 0
	}
	for _, key := range []string{"c", "d", "e"} { // one data key for all
		status, _ := send(t, http.MethodPut, s.sign(t, "--method", "PUT", key), strings.NewReader(key))
		require.Equal(t, 200, status)
	}
	require.EqualValues(t, 1, measured(`blobseal_kms_cache_uses_total blobseal_cache_result="miss"`))
	require.EqualValues(t, 2, measured(`blobseal_kms_cache_uses_total blobseal_cache_result="hit"`))
	require.Zero(t, measured(`blobseal_kms_cache_uses_total blobseal_cache_result="stale"`))
	require.EqualValues(t, 1, measured(`blobseal_kms_operation_duration_seconds_count blobseal_operation="GenerateDataKey"`))
	require.Less(t, measured(`blobseal_localkms_refresh_age_seconds blobseal_service="my.kms"`), await.Longest.Seconds())
	require.EqualValues(t, 3, measured(`blobseal_audit_records_total blobseal_outcome="success"`))
	require.Zero(t, measured(`blobseal_audit_records_total blobseal_outcome="failed"`))

	signer := signerOf(t)
	require.Eventually(t, func() bool {
		sink, err := audit.OpenFileSink("my.kms/audit.jsonl", &audit.FileSinkOptions{Signer: signer})
		return err == nil && sink.Close() == nil
	}, await.Longest, 10*time.Millisecond, "the server closes the trail, which it verifies when it opens it again")
	damage(t, "my.kms/audit.jsonl", 300)
	status, _ := send(t, http.MethodGet, s.sign(t, "c"), nil)
	require.NotEqual(t, 200, status, "what cannot be recorded is not done")
	require.EqualValues(t, 1, measured(`blobseal_audit_records_total blobseal_outcome="failed"`))
	s.ends(t)
}
