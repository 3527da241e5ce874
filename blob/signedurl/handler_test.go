package signedurl_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	gcblob "gocloud.dev/blob"
	"gocloud.dev/blob/driver"
	"gocloud.dev/gcerrors"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/blob/internal/blobtest"
	"github.com/blobseal/blobseal/blob/signedurl"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/kmstest"
	"github.com/blobseal/blobseal/sse"
)

// TestBucketsRespondAlike sends one script of requests to plain and to encrypted
// buckets. Their responses differ only in the ETag of a PUT.
func TestBucketsRespondAlike(t *testing.T) {
	big := string(pattern(40_000))
	safe := map[string]string{
		"Content-Security-Policy": contentPolicy,
		"Referrer-Policy":         "no-referrer",
		"X-Content-Type-Options":  "nosniff",
		"Cache-Control":           "private, no-cache, no-transform",
	}
	with := func(more ...string) map[string]string {
		h := map[string]string{"Accept-Ranges": "bytes", "Etag": "set", "Last-Modified": "set"}
		for k, v := range safe {
			h[k] = v
		}
		for i := 0; i < len(more); i += 2 {
			h[more[i]] = more[i+1]
		}
		for k, v := range h {
			if v == "" {
				delete(h, k)
			}
		}
		return h
	}
	// In headers, ETAG, MODIFIED and EARLIER stand for those of the object.
	steps := []struct {
		name    string
		method  string
		key     string
		signed  string // "GET", or "PUT text/plain"; empty means the method
		header  []string
		body    string
		edit    func(*testing.T, string) string
		status  int
		want    string
		code    string            // of an error
		headers map[string]string // nil: not looked at
	}{
		{name: "get what is not there", method: "GET", key: "a", status: 404, code: "NoSuchKey"},
		{name: "head what is not there", method: "HEAD", key: "a", status: 404, code: "NoSuchKey"},
		{name: "delete what is not there", method: "DELETE", key: "a", status: 204},

		{name: "put", method: "PUT", key: "a", header: []string{"Content-Type", "text/plain"}, body: "hello world", status: 200, headers: map[string]string{"Content-Length": "0"}},
		{
			name: "get", method: "GET", key: "a", status: 200, want: "hello world",
			headers: with("Content-Length", "11", "Content-Type", "text/plain"),
		},
		{
			name: "head", method: "HEAD", key: "a", signed: "GET", status: 200,
			headers: with("Content-Length", "11", "Content-Type", "text/plain"),
		},
		{name: "another key", method: "GET", key: "b", status: 404, code: "NoSuchKey"},

		{name: "range", method: "GET", key: "a", header: []string{"Range", "bytes=2-5"}, status: 206, want: "llo ", headers: with("Content-Length", "4", "Content-Range", "bytes 2-5/11", "Content-Type", "text/plain")},
		{name: "range to the end", method: "GET", key: "a", header: []string{"Range", "bytes=6-"}, status: 206, want: "world"},
		{name: "range beyond the end", method: "GET", key: "a", header: []string{"Range", "bytes=6-1000"}, status: 206, want: "world", headers: with("Content-Length", "5", "Content-Range", "bytes 6-10/11", "Content-Type", "text/plain")},
		{name: "suffix", method: "GET", key: "a", header: []string{"Range", "bytes=-3"}, status: 206, want: "rld"},
		{name: "long suffix", method: "GET", key: "a", header: []string{"Range", "bytes=-300"}, status: 206, want: "hello world"},
		{name: "whole as a range", method: "GET", key: "a", header: []string{"Range", "bytes=0-"}, status: 206, want: "hello world"},
		{name: "ranges", method: "GET", key: "a", header: []string{"Range", "bytes=0-0, 4-5,-2"}, status: 200, want: "hello world"},
		{name: "head of ranges", method: "HEAD", signed: "GET", key: "a", header: []string{"Range", "bytes=0-0,4-5"}, status: 200},
		{name: "range that is not there", method: "GET", key: "a", header: []string{"Range", "bytes=11-"}, status: 416, code: "InvalidRange", headers: errorHeader("InvalidRange", 416, "Content-Range", "bytes */11")},
		{name: "malformed range", method: "GET", key: "a", header: []string{"Range", "bytes=x"}, status: 416, code: "InvalidRange"},
		{name: "range of another unit", method: "GET", key: "a", header: []string{"Range", "lines=1-2"}, status: 416, code: "InvalidRange"},

		{name: "if-none-match", method: "GET", key: "a", header: []string{"If-None-Match", "ETAG"}, status: 304, headers: with("Accept-Ranges", "", "Last-Modified", "")},
		{name: "if-none-match, weak", method: "GET", key: "a", header: []string{"If-None-Match", `"x", W/ETAG`}, status: 304},
		{name: "if-none-match any", method: "HEAD", signed: "GET", key: "a", header: []string{"If-None-Match", "*"}, status: 304},
		{name: "if-none-match another", method: "GET", key: "a", header: []string{"If-None-Match", `"x"`}, status: 200, want: "hello world"},
		{name: "if-match", method: "GET", key: "a", header: []string{"If-Match", "ETAG"}, status: 200, want: "hello world"},
		{name: "if-match another", method: "GET", key: "a", header: []string{"If-Match", `"x"`}, status: 412, code: "PreconditionFailed"},
		{name: "if-modified-since", method: "GET", key: "a", header: []string{"If-Modified-Since", "MODIFIED"}, status: 304},
		{name: "if-modified-since earlier", method: "GET", key: "a", header: []string{"If-Modified-Since", "EARLIER"}, status: 200, want: "hello world"},
		{name: "if-unmodified-since", method: "GET", key: "a", header: []string{"If-Unmodified-Since", "MODIFIED"}, status: 200, want: "hello world"},
		{name: "if-unmodified-since earlier", method: "GET", key: "a", header: []string{"If-Unmodified-Since", "EARLIER"}, status: 412, code: "PreconditionFailed"},
		{name: "if-range", method: "GET", key: "a", header: []string{"If-Range", "ETAG", "Range", "bytes=0-1"}, status: 206, want: "he"},
		{name: "if-range of another", method: "GET", key: "a", header: []string{"If-Range", `"x"`, "Range", "bytes=0-1"}, status: 200, want: "hello world"},
		{name: "if-range by time", method: "GET", key: "a", header: []string{"If-Range", "MODIFIED", "Range", "bytes=0-1"}, status: 206, want: "he"},
		{name: "if-range by another time", method: "GET", key: "a", header: []string{"If-Range", "EARLIER", "Range", "bytes=0-1"}, status: 200, want: "hello world"},

		{name: "put by the URL for get", method: "PUT", signed: "GET", key: "a", body: "x", status: 403, code: signedurl.CodeMethod},
		{name: "put by the URL for delete", method: "PUT", signed: "DELETE", key: "a", body: "x", status: 403, code: signedurl.CodeMethod},
		{name: "get by the URL for put", method: "GET", signed: "PUT", key: "a", status: 403, code: signedurl.CodeMethod},
		{name: "get by the URL for delete", method: "GET", signed: "DELETE", key: "a", status: 403, code: signedurl.CodeMethod},
		{name: "head by the URL for put", method: "HEAD", signed: "PUT", key: "a", status: 403, code: signedurl.CodeMethod},
		{name: "delete by the URL for get", method: "DELETE", signed: "GET", key: "a", status: 403, code: signedurl.CodeMethod},
		{name: "delete by the URL for put", method: "DELETE", signed: "PUT", key: "a", status: 403, code: signedurl.CodeMethod},
		{name: "another type than signed", method: "PUT", signed: "PUT text/plain", key: "a", header: []string{"Content-Type", "text/html"}, body: "x", status: 403, code: signedurl.CodeContentType},
		{name: "no type though signed", method: "PUT", signed: "PUT text/plain", key: "a", body: "x", status: 403, code: signedurl.CodeContentType},
		{name: "type though absence is signed", method: "PUT", signed: "PUT -", key: "a", header: []string{"Content-Type", "text/html"}, body: "x", status: 403, code: signedurl.CodeContentType},
		{name: "no query", method: "GET", key: "a", edit: func(_ *testing.T, u string) string { u, _, _ = strings.Cut(u, "?"); return u }, status: 403, code: signedurl.CodeSignature},
		{name: "another key than signed", method: "GET", key: "b", edit: func(t *testing.T, u string) string { return queryWith(t, u, "obj", "a") }, status: 403, code: signedurl.CodeSignature},
		{name: "another method than signed", method: "DELETE", signed: "GET", key: "a", edit: func(t *testing.T, u string) string { return queryWith(t, u, "method", "DELETE") }, status: 403, code: signedurl.CodeSignature},
		{name: "longer than signed", method: "GET", key: "a", edit: func(t *testing.T, u string) string { return queryWith(t, u, "expiry", "9999999999") }, status: 403, code: signedurl.CodeSignature},
		{name: "as another", method: "GET", key: "a", edit: func(t *testing.T, u string) string { return queryWith(t, u, "by", "root") }, status: 403, code: signedurl.CodeSignature},
		{name: "post", method: "POST", signed: "PUT", key: "a", body: "x", status: 403, code: signedurl.CodeMethod},
		{name: "nothing of that changed it", method: "GET", key: "a", status: 200, want: "hello world"},

		{name: "put of the signed type", method: "PUT", signed: "PUT text/csv", key: "a", header: []string{"Content-Type", "text/csv"}, body: "1,2", status: 200},
		{name: "and it has that", method: "GET", key: "a", status: 200, want: "1,2", headers: with("Content-Length", "3", "Content-Type", "text/csv")},
		{name: "put of the signed absence", method: "PUT", signed: "PUT -", key: "a", body: "<html>", status: 200},
		{name: "and it was not guessed", method: "HEAD", signed: "GET", key: "a", status: 200, headers: with("Content-Length", "6", "Content-Type", "application/octet-stream")},
		{name: "put with attributes", method: "PUT", key: "a", body: "zipped", status: 200, header: []string{
			"Content-Type", "text/plain", "Content-Encoding", "gzip", "Content-Language", "de", "Content-Disposition", `attachment; filename="x"`, "Cache-Control", "max-age=60",
		}},
		{name: "get with attributes", method: "GET", key: "a", status: 200, want: "zipped", headers: with("Content-Length", "6",
			"Content-Type", "text/plain", "Content-Encoding", "gzip", "Content-Language", "de", "Content-Disposition", `attachment; filename="x"`, "Cache-Control", "max-age=60, no-transform")},
		{name: "head with attributes", method: "HEAD", signed: "GET", key: "a", status: 200, headers: with("Content-Length", "6",
			"Content-Type", "text/plain", "Content-Encoding", "gzip", "Content-Language", "de", "Content-Disposition", `attachment; filename="x"`, "Cache-Control", "max-age=60, no-transform")},

		{name: "put with its digest", method: "PUT", key: "a", header: []string{"Content-Md5", digest("digested")}, body: "digested", status: 200},
		{name: "put with another's digest", method: "PUT", key: "a", header: []string{"Content-Md5", digest("other")}, body: "x", status: 400, code: "BadDigest"},
		{name: "put with a malformed digest", method: "PUT", key: "a", header: []string{"Content-Md5", "AAAA"}, body: "x", status: 400, code: "InvalidDigest"},
		{name: "put if there is none", method: "PUT", key: "a", header: []string{"If-None-Match", "*"}, body: "x", status: 412, code: "PreconditionFailed"},
		{name: "put if there is none, wrong digest", method: "PUT", key: "a", header: []string{"If-None-Match", "*", "Content-Md5", digest("other")}, body: "x", status: 400, code: "BadDigest"},
		{name: "put if another", method: "PUT", key: "a", header: []string{"If-None-Match", "ETAG"}, body: "x", status: 501, code: "NotImplemented"},
		{name: "put if the same", method: "PUT", key: "a", header: []string{"If-Match", "ETAG"}, body: "x", status: 501, code: "NotImplemented"},
		{name: "put if unmodified", method: "PUT", key: "a", header: []string{"If-Unmodified-Since", "MODIFIED"}, body: "x", status: 501, code: "NotImplemented"},
		{name: "put of a part", method: "PUT", key: "a", header: []string{"Content-Range", "bytes 0-0/2"}, body: "x", status: 400, code: "InvalidArgument"},
		{name: "put of a malformed type", method: "PUT", key: "a", header: []string{"Content-Type", "no type"}, body: "x", status: 400, code: "InvalidArgument"},
		{name: "put too much", method: "PUT", key: "a", body: strings.Repeat("x", 50_001), status: 413, code: "EntityTooLarge"},
		{name: "nothing of that stored", method: "GET", key: "a", status: 200, want: "digested"},

		{name: "delete if", method: "DELETE", key: "a", header: []string{"If-Match", "ETAG"}, status: 501, code: "NotImplemented"},
		{name: "delete", method: "DELETE", key: "a", status: 204, headers: map[string]string{}},
		{name: "gone", method: "GET", key: "a", status: 404, code: "NoSuchKey"},
		{name: "put anew if there is none", method: "PUT", key: "a", header: []string{"If-None-Match", "*"}, body: "new", status: 200},
		{name: "is there", method: "GET", key: "a", status: 200, want: "new"},

		{name: "put nothing", method: "PUT", key: "empty", status: 200},
		{name: "get nothing", method: "GET", key: "empty", status: 200, headers: with("Content-Length", "0", "Content-Type", "application/octet-stream")},
		{name: "range of nothing", method: "GET", key: "empty", header: []string{"Range", "bytes=0-5"}, status: 200},
		{name: "suffix of nothing", method: "GET", key: "empty", header: []string{"Range", "bytes=-5"}, status: 200},
		{name: "put much", method: "PUT", key: "big", header: []string{"Content-Type", "a/b"}, body: big, status: 200},
		{name: "get much", method: "GET", key: "big", status: 200, want: big},
		{name: "get across chunks", method: "GET", key: "big", header: []string{"Range", "bytes=16000-33000"}, status: 206, want: big[16000:33001]},

		{name: "a strange key", method: "PUT", key: "../a b/ü?&#%", body: "strange", status: 200},
		{name: "is found by it", method: "GET", key: "../a b/ü?&#%", status: 200, want: "strange"},
	}
	beds := newBeds(t, &signedurl.HandlerOptions{MaxSize: 50_000})
	plain := map[string]answer{}
	for i, b := range beds {
		t.Run(b.name, func(t *testing.T) {
			for n, s := range steps {
				method, contentType, _ := strings.Cut(max(s.signed, s.method), " ")
				if s.signed != "" {
					method, contentType, _ = strings.Cut(s.signed, " ")
				} else if method == "HEAD" {
					method = "GET"
				}
				opts := &driver.SignedURLOptions{Method: method, ContentType: contentType}
				if contentType == "-" {
					opts.ContentType, opts.EnforceAbsentContentType = "", true
				}
				signed, err := b.signer.SignedURL(t.Context(), s.key, opts)
				require.NoError(t, err, s.name)
				if s.edit != nil {
					signed = s.edit(t, signed)
				}
				header := append([]string(nil), s.header...)
				for i := range header {
					header[i] = b.fillIn(t, s.key, header[i])
				}
				var body io.Reader
				if s.body != "" {
					body = strings.NewReader(s.body)
				}
				got := b.do(t, s.method, signed, body, header...).alike()
				require.Equal(t, s.status, got.status, "%s: %q\n%s", s.name, got.body, b.log)
				require.False(t, got.broken, s.name)
				want := s.want
				if s.code != "" && s.method != "HEAD" {
					want = errorXML(s.code, s.status)
				}
				require.True(t, want == got.body, "%s: %.200q", s.name, got.body)
				require.Equal(t, s.code, got.header[signedurl.ErrorCodeHeader], s.name)
				if s.method == "PUT" && s.status == 200 && strings.HasPrefix(b.name, "encrypted") {
					require.Equal(t, "set", got.header["Etag"], s.name)
					delete(got.header, "Etag") // which a plain bucket does not tell
				}
				if s.headers != nil {
					delete(got.header, "Date")
					require.Equal(t, s.headers, got.header, s.name)
				}
				id := fmt.Sprint(n)
				if i == 0 {
					plain[id] = got
				}
				require.Equal(t, plain[id], got, s.name)
			}
			require.NotContains(t, b.log.String(), "signature=")
			require.NotContains(t, b.log.String(), "level=ERROR")
		})
	}
}

// fillIn replaces ETAG, MODIFIED and EARLIER by those of the object.
func (b *bed) fillIn(t *testing.T, key, value string) string {
	for _, name := range []string{"ETAG", "MODIFIED", "EARLIER"} {
		if !strings.Contains(value, name) {
			continue
		}
		attrs, err := b.bucket.Attributes(t.Context(), key)
		require.NoError(t, err)
		value = strings.NewReplacer(
			"ETAG", b.do(t, "HEAD", b.url(t, key, "GET", ""), nil).header["Etag"],
			"MODIFIED", attrs.ModTime.UTC().Format(http.TimeFormat),
			"EARLIER", attrs.ModTime.Add(-time.Hour).UTC().Format(http.TimeFormat),
		).Replace(value)
	}
	return value
}

// TestHandlerPrincipal: the option decides who a request acts for, or else the URL.
func TestHandlerPrincipal(t *testing.T) {
	alice, bob := kms.Principal{ID: "alice", Type: "User"}, kms.Principal{ID: "bob"}
	for _, tc := range []struct {
		name   string
		signed kms.Principal
		option func(*http.Request) kms.Principal
		want   kms.Principal
	}{
		{"nobody", kms.Principal{}, nil, kms.Principal{}},
		{"bound", alice, nil, alice},
		{"by the request", alice, func(r *http.Request) kms.Principal { return kms.Principal{ID: r.Header.Get("X-Who")} }, bob},
		{"not by the request", alice, func(*http.Request) kms.Principal { return kms.Principal{} }, alice},
	} {
		t.Run(tc.name, func(t *testing.T) {
			fake := kmstest.NewFake("key")
			cipher, err := sse.NewKMS(fake, "key", nil)
			require.NoError(t, err)
			b := newEncrypted(t, "encrypted", blobtest.NewMem(t), cipher, &signedurl.HandlerOptions{Principal: tc.option})
			var mu sync.Mutex
			var asked []kms.Principal
			fake.Hook(func(ctx context.Context, _ kmstest.Call) error {
				mu.Lock()
				defer mu.Unlock()
				asked = append(asked, kms.PrincipalFrom(ctx))
				return nil
			})
			ctx := t.Context()
			if tc.signed != (kms.Principal{}) {
				ctx = kms.WithPrincipal(ctx, tc.signed)
			}
			for _, method := range []string{"PUT", "GET"} {
				u, err := b.signer.SignedURL(ctx, "k", &driver.SignedURLOptions{Method: method})
				require.NoError(t, err)
				require.Equal(t, 200, b.do(t, method, u, strings.NewReader("content"), "X-Who", "bob").status)
			}
			require.Equal(t, []kms.Principal{tc.want, tc.want}, asked)
		})
	}
}

// TestOuterHeadersStay: middleware keeps the headers that it set.
func TestOuterHeadersStay(t *testing.T) {
	b := newBed(t, "plain", blobtest.NewMem(t), nil)
	b.write(t, "k", []byte("content"), nil)
	for key, status := range map[string]int{"k": 200, "missing": 404} {
		rec := httptest.NewRecorder()
		rec.Header().Set("X-Served-By", "me")
		h := signedurl.NewHandler(b.bucket, b.signer, nil)
		h.ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), "GET", b.url(t, key, "GET", ""), nil))
		require.Equal(t, status, rec.Code)
		require.Equal(t, "me", rec.Header().Get("X-Served-By"))
	}
}

// TestBucketUsesTheSigner: an encrypted bucket takes a Signer among its options.
func TestBucketUsesTheSigner(t *testing.T) {
	b := newBed(t, "plain", blobtest.NewMem(t), nil)
	encrypted := blobtest.NewBucket(t, blobtest.NewMem(t), &blob.Options{Signer: b.signer})
	u, err := encrypted.SignedURL(t.Context(), "k", &gcblob.SignedURLOptions{Expiry: time.Minute})
	require.NoError(t, err)
	want, err := b.signer.SignedURL(t.Context(), "k", &driver.SignedURLOptions{Expiry: time.Minute})
	require.NoError(t, err)
	require.Equal(t, want, u)
	_, err = encrypted.SignedURL(t.Context(), "k", &gcblob.SignedURLOptions{Expiry: 30 * 24 * time.Hour})
	require.Equal(t, gcerrors.InvalidArgument, gcerrors.Code(err))
	require.ErrorIs(t, err, sse.ErrInvalid)
}

// TestConcurrentRequests: while others write and delete, each response is one whole
// version of the object, or an error.
func TestConcurrentRequests(t *testing.T) {
	const size = 50_000
	versions := map[string]bool{}
	var bodies []string
	for i := range 8 {
		body := string(bytes.Repeat([]byte{byte('a' + i)}, size+i))
		versions[body] = true
		bodies = append(bodies, body)
	}
	for _, b := range newBeds(t, nil) {
		t.Run(b.name, func(t *testing.T) {
			get, put, del := b.url(t, "k", "GET", ""), b.url(t, "k", "PUT", ""), b.url(t, "k", "DELETE", "")
			var wg sync.WaitGroup
			for worker := range 4 {
				wg.Go(func() {
					for i := range 25 {
						switch {
						case worker == 0:
							got := b.do(t, "PUT", put, strings.NewReader(bodies[i%len(bodies)]))
							if got.status != 200 {
								t.Errorf("PUT: %d", got.status)
							}
						case worker == 1 && i%5 == 4:
							if got := b.do(t, "DELETE", del, nil); got.status != 204 && got.status != 404 {
								t.Errorf("DELETE: %d", got.status)
							}
						default:
							got := b.do(t, "GET", get, nil)
							switch {
							case got.status == 200 && !got.broken && !versions[got.body]:
								t.Errorf("GET: %d bytes of no version", len(got.body))
							case got.status == 500 && strings.HasSuffix(b.name, "file"):
								// fileblob reads its file of attributes while it is being written
							case got.status != 200 && got.status != 404 && got.status != 503:
								t.Errorf("GET: %d", got.status)
							}
						}
					}
				})
			}
			wg.Wait()
		})
	}
}

// TestHandlerConformance has the cases of gocloud's testSignedURL, for each bucket.
func TestHandlerConformance(t *testing.T) {
	for _, b := range newBeds(t, nil) {
		t.Run(b.name, func(t *testing.T) {
			const key, contents, allowed, different = "blob-for-signing", "hello world", "text/plain", "application/octet-stream"
			urls := map[string]string{"get": b.url(t, key, "GET", ""), "put": b.url(t, key, "PUT", ""), "putType": b.url(t, key, "PUT", allowed), "delete": b.url(t, key, "DELETE", "")}
			absent, err := b.signer.SignedURL(t.Context(), key, &driver.SignedURLOptions{Method: "PUT", EnforceAbsentContentType: true})
			require.NoError(t, err)
			urls["putAbsent"] = absent
			urls["none"], _, _ = strings.Cut(urls["get"], "?")
			for _, tc := range []struct {
				method, url, contentType string
				ok                       bool
			}{
				{"PUT", "get", "", false},
				{"PUT", "delete", "", false},
				{"PUT", "putType", allowed, true},
				{"PUT", "putType", different, false},
				{"PUT", "putType", "", false},
				{"PUT", "putAbsent", "", true},
				{"PUT", "putAbsent", different, false},
				{"PUT", "put", "", true},
				{"GET", "delete", "", false},
				{"GET", "put", "", false},
				{"GET", "none", "", false},
				{"GET", "get", "", true},
				{"DELETE", "get", "", false},
				{"DELETE", "put", "", false},
				{"DELETE", "delete", "", true},
			} {
				var header []string
				if tc.contentType != "" {
					header = []string{"Content-Type", tc.contentType}
				}
				got := b.do(t, tc.method, urls[tc.url], strings.NewReader(contents), header...)
				require.Equal(t, tc.ok, got.status/100 == 2, "%+v: %d", tc, got.status)
				if tc.method == "GET" && tc.ok {
					require.Equal(t, contents, got.body)
				}
			}
			require.Equal(t, 404, b.do(t, "GET", urls["get"], nil).status)
		})
	}
}
