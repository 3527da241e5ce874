package signedurl_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/md5"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/require"
	gcblob "gocloud.dev/blob"
	"gocloud.dev/blob/driver"
	"gocloud.dev/blob/fileblob"
	"gocloud.dev/gcerrors"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/blob/signedurl"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/audit"
	"github.com/blobseal/blobseal/kms/kmstest"
	"github.com/blobseal/blobseal/sse"
)

func digest(content string) string {
	sum := md5.Sum([]byte(content))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// TestEveryBucketAnswersAlike runs one script of requests against plain and
// encrypted buckets: a client cannot tell one from the other.
func TestEveryBucketAnswersAlike(t *testing.T) {
	const forbidden = "Forbidden\n"
	big := string(pattern(40_000))
	safe := map[string]string{
		"Content-Security-Policy": "default-src 'none'; sandbox",
		"Referrer-Policy":         "no-referrer",
		"X-Content-Type-Options":  "nosniff",
		"Cache-Control":           "private, no-cache",
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
	// In headers, ETAG, MODIFIED, EARLIER and LATER stand for those of the object.
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
		headers map[string]string // nil: not looked at
	}{
		{name: "get what is not there", method: "GET", key: "a", status: 404, want: "Not Found\n"},
		{name: "head what is not there", method: "HEAD", key: "a", status: 404},
		{name: "delete what is not there", method: "DELETE", key: "a", status: 404, want: "Not Found\n"},

		{name: "put", method: "PUT", key: "a", header: []string{"Content-Type", "text/plain"}, body: "hello world", status: 200, headers: map[string]string{"Content-Length": "0"}},
		{
			name: "get", method: "GET", key: "a", status: 200, want: "hello world",
			headers: with("Content-Length", "11", "Content-Type", "text/plain"),
		},
		{
			name: "head", method: "HEAD", key: "a", signed: "GET", status: 200,
			headers: with("Content-Length", "11", "Content-Type", "text/plain"),
		},
		{name: "another key", method: "GET", key: "b", status: 404, want: "Not Found\n"},

		{name: "range", method: "GET", key: "a", header: []string{"Range", "bytes=2-5"}, status: 206, want: "llo ", headers: with("Content-Length", "4", "Content-Range", "bytes 2-5/11", "Content-Type", "text/plain")},
		{name: "range to the end", method: "GET", key: "a", header: []string{"Range", "bytes=6-"}, status: 206, want: "world"},
		{name: "range beyond the end", method: "GET", key: "a", header: []string{"Range", "bytes=6-1000"}, status: 206, want: "world", headers: with("Content-Length", "5", "Content-Range", "bytes 6-10/11", "Content-Type", "text/plain")},
		{name: "suffix", method: "GET", key: "a", header: []string{"Range", "bytes=-3"}, status: 206, want: "rld"},
		{name: "long suffix", method: "GET", key: "a", header: []string{"Range", "bytes=-300"}, status: 206, want: "hello world"},
		{name: "whole as a range", method: "GET", key: "a", header: []string{"Range", "bytes=0-"}, status: 206, want: "hello world"},
		{name: "ranges", method: "GET", key: "a", header: []string{"Range", "bytes=0-0, 4-5,-2"}, status: 206, want: "[bytes 0-0/11 text/plain]h[bytes 4-5/11 text/plain]o [bytes 9-10/11 text/plain]ld"},
		{name: "ranges that overlap too much", method: "GET", key: "a", header: []string{"Range", "bytes=0-9,1-10"}, status: 200, want: "hello world"},
		{name: "too many ranges", method: "GET", key: "a", header: []string{"Range", "bytes=0-0" + strings.Repeat(",3-3", 16)}, status: 200, want: "hello world"},
		{name: "head of ranges", method: "HEAD", signed: "GET", key: "a", header: []string{"Range", "bytes=0-0,4-5"}, status: 206},
		{name: "range that is not there", method: "GET", key: "a", header: []string{"Range", "bytes=11-"}, status: 416, want: "invalid range: failed to overlap\n", headers: map[string]string{"Content-Length": "33", "Content-Type": "text/plain; charset=utf-8", "Content-Range": "bytes */11", "X-Content-Type-Options": "nosniff", "Content-Security-Policy": "default-src 'none'; sandbox", "Referrer-Policy": "no-referrer"}},
		{name: "malformed range", method: "GET", key: "a", header: []string{"Range", "bytes=x"}, status: 416, want: "invalid range\n"},
		{name: "range of another unit", method: "GET", key: "a", header: []string{"Range", "lines=1-2"}, status: 416, want: "invalid range\n"},

		{name: "if-none-match", method: "GET", key: "a", header: []string{"If-None-Match", "ETAG"}, status: 304, headers: with("Accept-Ranges", "", "Last-Modified", "")},
		{name: "if-none-match, weak", method: "GET", key: "a", header: []string{"If-None-Match", `"x", W/ETAG`}, status: 304},
		{name: "if-none-match any", method: "HEAD", signed: "GET", key: "a", header: []string{"If-None-Match", "*"}, status: 304},
		{name: "if-none-match another", method: "GET", key: "a", header: []string{"If-None-Match", `"x"`}, status: 200, want: "hello world"},
		{name: "if-match", method: "GET", key: "a", header: []string{"If-Match", "ETAG"}, status: 200, want: "hello world"},
		{name: "if-match another", method: "GET", key: "a", header: []string{"If-Match", `"x"`}, status: 412},
		{name: "if-modified-since", method: "GET", key: "a", header: []string{"If-Modified-Since", "MODIFIED"}, status: 304},
		{name: "if-modified-since earlier", method: "GET", key: "a", header: []string{"If-Modified-Since", "EARLIER"}, status: 200, want: "hello world"},
		{name: "if-unmodified-since", method: "GET", key: "a", header: []string{"If-Unmodified-Since", "MODIFIED"}, status: 200, want: "hello world"},
		{name: "if-unmodified-since earlier", method: "GET", key: "a", header: []string{"If-Unmodified-Since", "EARLIER"}, status: 412},
		{name: "if-range", method: "GET", key: "a", header: []string{"If-Range", "ETAG", "Range", "bytes=0-1"}, status: 206, want: "he"},
		{name: "if-range of another", method: "GET", key: "a", header: []string{"If-Range", `"x"`, "Range", "bytes=0-1"}, status: 200, want: "hello world"},
		{name: "if-range by time", method: "GET", key: "a", header: []string{"If-Range", "MODIFIED", "Range", "bytes=0-1"}, status: 206, want: "he"},
		{name: "if-range by another time", method: "GET", key: "a", header: []string{"If-Range", "EARLIER", "Range", "bytes=0-1"}, status: 200, want: "hello world"},

		{name: "put by the URL for get", method: "PUT", signed: "GET", key: "a", body: "x", status: 403, want: forbidden},
		{name: "put by the URL for delete", method: "PUT", signed: "DELETE", key: "a", body: "x", status: 403, want: forbidden},
		{name: "get by the URL for put", method: "GET", signed: "PUT", key: "a", status: 403, want: forbidden},
		{name: "get by the URL for delete", method: "GET", signed: "DELETE", key: "a", status: 403, want: forbidden},
		{name: "head by the URL for put", method: "HEAD", signed: "PUT", key: "a", status: 403},
		{name: "delete by the URL for get", method: "DELETE", signed: "GET", key: "a", status: 403, want: forbidden},
		{name: "delete by the URL for put", method: "DELETE", signed: "PUT", key: "a", status: 403, want: forbidden},
		{name: "another type than signed", method: "PUT", signed: "PUT text/plain", key: "a", header: []string{"Content-Type", "text/html"}, body: "x", status: 403, want: forbidden},
		{name: "no type though signed", method: "PUT", signed: "PUT text/plain", key: "a", body: "x", status: 403, want: forbidden},
		{name: "type though absence is signed", method: "PUT", signed: "PUT -", key: "a", header: []string{"Content-Type", "text/html"}, body: "x", status: 403, want: forbidden},
		{name: "no query", method: "GET", key: "a", edit: func(_ *testing.T, u string) string { u, _, _ = strings.Cut(u, "?"); return u }, status: 403, want: forbidden,
			headers: map[string]string{"Content-Length": "10", "Content-Type": "text/plain; charset=utf-8", "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}},
		{name: "another key than signed", method: "GET", key: "b", edit: func(t *testing.T, u string) string { return queryWith(t, u, "obj", "a") }, status: 403, want: forbidden},
		{name: "another method than signed", method: "DELETE", signed: "GET", key: "a", edit: func(t *testing.T, u string) string { return queryWith(t, u, "method", "DELETE") }, status: 403, want: forbidden},
		{name: "longer than signed", method: "GET", key: "a", edit: func(t *testing.T, u string) string { return queryWith(t, u, "expiry", "9999999999") }, status: 403, want: forbidden},
		{name: "as another", method: "GET", key: "a", edit: func(t *testing.T, u string) string { return queryWith(t, u, "by", "root") }, status: 403, want: forbidden},
		{name: "post", method: "POST", signed: "PUT", key: "a", body: "x", status: 405, want: "Method Not Allowed\n",
			headers: map[string]string{"Allow": "GET, HEAD, PUT, DELETE", "Content-Length": "19", "Content-Type": "text/plain; charset=utf-8", "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}},
		{name: "nothing of that changed it", method: "GET", key: "a", status: 200, want: "hello world"},

		{name: "put of the signed type", method: "PUT", signed: "PUT text/csv", key: "a", header: []string{"Content-Type", "text/csv"}, body: "1,2", status: 200},
		{name: "and it has that", method: "GET", key: "a", status: 200, want: "1,2", headers: with("Content-Length", "3", "Content-Type", "text/csv")},
		{name: "put of the signed absence", method: "PUT", signed: "PUT -", key: "a", body: "<html>", status: 200},
		{name: "and it was sniffed", method: "HEAD", signed: "GET", key: "a", status: 200, headers: with("Content-Length", "6", "Content-Type", "text/html; charset=utf-8")},
		{name: "put with attributes", method: "PUT", key: "a", body: "zipped", status: 200, header: []string{
			"Content-Type", "text/plain", "Content-Encoding", "gzip", "Content-Language", "de", "Content-Disposition", `attachment; filename="x"`, "Cache-Control", "max-age=60",
		}},
		{name: "get with attributes", method: "GET", key: "a", status: 200, want: "zipped", headers: with("Content-Length", "6",
			"Content-Type", "text/plain", "Content-Encoding", "gzip", "Content-Language", "de", "Content-Disposition", `attachment; filename="x"`, "Cache-Control", "max-age=60")},
		{name: "head with attributes", method: "HEAD", signed: "GET", key: "a", status: 200, headers: with("Content-Length", "6",
			"Content-Type", "text/plain", "Content-Encoding", "gzip", "Content-Language", "de", "Content-Disposition", `attachment; filename="x"`, "Cache-Control", "max-age=60")},

		{name: "put with its digest", method: "PUT", key: "a", header: []string{"Content-Md5", digest("digested")}, body: "digested", status: 200},
		{name: "put with another's digest", method: "PUT", key: "a", header: []string{"Content-Md5", digest("other")}, body: "x", status: 400, want: "Bad Request\n"},
		{name: "put with a malformed digest", method: "PUT", key: "a", header: []string{"Content-Md5", "AAAA"}, body: "x", status: 400, want: "Bad Request\n"},
		{name: "put if there is none", method: "PUT", key: "a", header: []string{"If-None-Match", "*"}, body: "x", status: 412, want: "Precondition Failed\n"},
		{name: "put if there is none, wrong digest", method: "PUT", key: "a", header: []string{"If-None-Match", "*", "Content-Md5", digest("other")}, body: "x", status: 400, want: "Bad Request\n"},
		{name: "put if another", method: "PUT", key: "a", header: []string{"If-None-Match", "ETAG"}, body: "x", status: 501, want: "Not Implemented\n"},
		{name: "put if the same", method: "PUT", key: "a", header: []string{"If-Match", "ETAG"}, body: "x", status: 501, want: "Not Implemented\n"},
		{name: "put if unmodified", method: "PUT", key: "a", header: []string{"If-Unmodified-Since", "MODIFIED"}, body: "x", status: 501, want: "Not Implemented\n"},
		{name: "put of a part", method: "PUT", key: "a", header: []string{"Content-Range", "bytes 0-0/2"}, body: "x", status: 400, want: "Bad Request\n"},
		{name: "put of a malformed type", method: "PUT", key: "a", header: []string{"Content-Type", "no type"}, body: "x", status: 400, want: "Bad Request\n"},
		{name: "put too much", method: "PUT", key: "a", body: strings.Repeat("x", 50_001), status: 413, want: "Request Entity Too Large\n"},
		{name: "nothing of that stored", method: "GET", key: "a", status: 200, want: "digested"},

		{name: "delete if", method: "DELETE", key: "a", header: []string{"If-Match", "ETAG"}, status: 501, want: "Not Implemented\n"},
		{name: "delete", method: "DELETE", key: "a", status: 204, headers: map[string]string{}},
		{name: "gone", method: "GET", key: "a", status: 404, want: "Not Found\n"},
		{name: "put anew if there is none", method: "PUT", key: "a", header: []string{"If-None-Match", "*"}, body: "new", status: 200},
		{name: "is there", method: "GET", key: "a", status: 200, want: "new"},

		{name: "put nothing", method: "PUT", key: "empty", status: 200},
		{name: "get nothing", method: "GET", key: "empty", status: 200, headers: with("Content-Length", "0", "Content-Type", "text/plain; charset=utf-8")},
		{name: "range of nothing", method: "GET", key: "empty", header: []string{"Range", "bytes=0-5"}, status: 200},
		{name: "suffix of nothing", method: "GET", key: "empty", header: []string{"Range", "bytes=-5"}, status: 200},
		{name: "put much", method: "PUT", key: "big", header: []string{"Content-Type", "a/b"}, body: big, status: 200},
		{name: "get much", method: "GET", key: "big", status: 200, want: big},
		{name: "get across chunks", method: "GET", key: "big", header: []string{"Range", "bytes=16000-33000"}, status: 206, want: big[16000:33001]},
		{name: "get much in parts", method: "GET", key: "big", header: []string{"Range", "bytes=-1,16383-16384,0-19999"}, status: 206,
			want: "[bytes 39999-39999/40000 a/b]" + big[39999:] + "[bytes 16383-16384/40000 a/b]" + big[16383:16385] + "[bytes 0-19999/40000 a/b]" + big[:20000]},

		{name: "as many ranges as may be", method: "GET", key: "big", header: []string{"Range", "bytes=0-0" + strings.Repeat(",0-0", 15)}, status: 206, want: strings.Repeat("[bytes 0-0/40000 a/b]"+big[:1], 16)},
		{name: "one range more", method: "GET", key: "big", header: []string{"Range", "bytes=0-0" + strings.Repeat(",0-0", 16)}, status: 200, want: big},

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
				require.True(t, s.want == got.body, "%s: %.200q", s.name, got.body)
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

// fillIn puts what the object has in place of its names.
func (b *bed) fillIn(t *testing.T, key, value string) string {
	for _, name := range []string{"ETAG", "MODIFIED", "EARLIER"} {
		if !strings.Contains(value, name) {
			continue
		}
		attrs, err := b.bucket.Attributes(t.Context(), key)
		require.NoError(t, err)
		value = strings.NewReplacer(
			"ETAG", attrs.ETag,
			"MODIFIED", attrs.ModTime.UTC().Format(http.TimeFormat),
			"EARLIER", attrs.ModTime.Add(-time.Hour).UTC().Format(http.TimeFormat),
		).Replace(value)
	}
	return value
}

// TestRefusalsAreAllTheSame: from its answer nobody learns why a URL is no good, nor
// whether the object exists.
func TestRefusalsAreAllTheSame(t *testing.T) {
	for _, b := range newBeds(t, nil) {
		t.Run(b.name, func(t *testing.T) {
			b.write(t, "there", []byte("x"), nil)
			good := b.url(t, "there", "GET", "")
			parsed, err := url.Parse(good)
			require.NoError(t, err)
			other := newSigner(t, b.server.URL+"/shared", secretOf(9), &signedurl.SignerOptions{Now: b.clock.now})
			elsewhere := newSigner(t, b.server.URL+"/docs", secretOf(1), &signedurl.SignerOptions{Now: b.clock.now})
			onPath := func(signed string) string { return strings.Replace(signed, "/docs?", "/shared?", 1) }
			urls := map[string]string{
				"tampered":        good + "A",
				"another key":     queryWith(t, good, "obj", "not there"),
				"not there":       queryWith(t, b.url(t, "not there", "GET", ""), "expiry", "9999999999"),
				"another secret":  sign(t, other, "there", "GET", ""),
				"another base":    onPath(sign(t, elsewhere, "there", "GET", "")),
				"for put":         b.url(t, "there", "PUT", ""),
				"for delete":      b.url(t, "not there", "DELETE", ""),
				"no query":        strings.TrimSuffix(good, "?"+parsed.RawQuery),
				"malformed":       good + "&%zz",
				"of another time": queryWith(t, good, "expiry", "0"),
			}
			want := answer{}
			for name, u := range urls {
				got := b.do(t, "GET", u, nil)
				require.Equal(t, 403, got.status, name)
				delete(got.header, "Date")
				if want.status == 0 {
					want = got
				}
				require.Equal(t, want, got, name)
			}
			require.Equal(t, 200, b.do(t, "GET", good, nil).status)
			b.clock.advance(2 * time.Hour)
			expired := b.do(t, "GET", good, nil)
			delete(expired.header, "Date")
			require.Equal(t, want, expired)
		})
	}
}

// TestEveryRangeIsItsBytes compares ranges around the edges of chunks with the
// bytes themselves.
func TestEveryRangeIsItsBytes(t *testing.T) {
	const chunk = 16384
	rng := rand.New(rand.NewPCG(1, 2))
	for _, b := range newBeds(t, nil) {
		t.Run(b.name, func(t *testing.T) {
			for _, size := range []int{1, 2, chunk - 1, chunk, chunk + 1, 2 * chunk, 3*chunk + 17, 1<<20 + 5} {
				content := pattern(size)
				b.write(t, "k", content, &gcblob.WriterOptions{ContentType: "a/b"})
				u := b.url(t, "k", "GET", "")
				require.True(t, b.do(t, "GET", u, nil).body == string(content))

				edges := []int{0, 1, chunk - 1, chunk, chunk + 1, 2*chunk - 1, 2 * chunk, size / 2, size - 2, size - 1}
				pick := func() int {
					if rng.IntN(3) == 0 {
						return rng.IntN(size)
					}
					return min(max(edges[rng.IntN(len(edges))], 0), size-1)
				}
				for range 25 {
					var specs []string
					var want strings.Builder
					total := 0
					for range 1 + rng.IntN(3) {
						first, last := pick(), pick()
						if first > last {
							first, last = last, first
						}
						total += last - first + 1
						spec := fmt.Sprintf("%d-%d", first, last)
						switch {
						case last == size-1 && rng.IntN(2) == 0:
							spec = fmt.Sprintf("%d-", first)
						case last == size-1 && rng.IntN(2) == 0:
							spec = fmt.Sprintf("-%d", size-first)
						}
						specs = append(specs, spec)
						fmt.Fprintf(&want, "[bytes %d-%d/%d a/b]%s", first, last, size, content[first:last+1])
					}
					wanted := want.String()
					switch {
					case total > size: // more than the object: all of it
						wanted = string(content)
					case len(specs) == 1:
						_, wanted, _ = strings.Cut(wanted, "]")
					}
					got := b.do(t, "GET", u, nil, "Range", "bytes="+strings.Join(specs, ", "))
					require.False(t, got.broken)
					require.True(t, wanted == got.body, "%d: %v", size, specs)
				}
			}
		})
	}
}

// TestHandlerReadsWhatItNeeds: nothing is opened that is not sent, and no more of
// it is read.
func TestHandlerReadsWhatItNeeds(t *testing.T) {
	content := pattern(300_000)
	for _, tc := range []struct {
		name   string
		method string
		header []string
		status int
		opens  []string
		got    int
	}{
		{"whole", "GET", nil, 200, []string{"0+-1"}, 300_000},
		{"head", "HEAD", nil, 200, nil, 0},
		{"head of a range", "HEAD", []string{"Range", "bytes=1-5"}, 206, nil, 0},
		{"head of ranges", "HEAD", []string{"Range", "bytes=1-5,7-8"}, 206, nil, 0},
		{"range", "GET", []string{"Range", "bytes=1000-1999"}, 206, []string{"1000+1000"}, 1000},
		{"from the begin", "GET", []string{"Range", "bytes=0-9"}, 206, []string{"0+10"}, 10},
		{"to the end", "GET", []string{"Range", "bytes=299990-"}, 206, []string{"299990+10"}, 10},
		{"suffix", "GET", []string{"Range", "bytes=-7"}, 206, []string{"299993+7"}, 7},
		{"ranges", "GET", []string{"Range", "bytes=5-9, 100000-199999 ,-1"}, 206, []string{"5+5", "100000+100000", "299999+1"}, 100_006},
		{"ranges one after the other", "GET", []string{"Range", "bytes=0-9,10-19"}, 206, []string{"0+10", "10+10"}, 20},
		{"not modified", "GET", []string{"If-None-Match", `"e"`}, 304, nil, 0},
		{"condition failed", "GET", []string{"If-Match", `"x"`}, 412, nil, 0},
		{"no such range", "GET", []string{"Range", "bytes=300000-"}, 416, nil, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newScript(content)
			b := newBed(t, "script", s.bucket(), nil)
			got := b.do(t, tc.method, b.url(t, "k", "GET", ""), nil, tc.header...)
			require.Equal(t, tc.status, got.status)
			<-b.done
			opens, read, readers := s.state()
			require.Equal(t, tc.opens, opens)
			require.Equal(t, tc.got, read)
			require.Zero(t, readers)
		})
	}
}

// TestHandlerErrorsBeforeTheFirstByte: they have a status of their own, in any kind
// of request, and tell the client nothing else.
func TestHandlerErrorsBeforeTheFirstByte(t *testing.T) {
	for _, tc := range []struct {
		err    error
		status int
	}{
		{kms.ErrUnavailable, 503},
		{audit.ErrNotRecorded, 503},
		{keyring.ErrStore, 503},
		{fmt.Errorf("%w: %w: %w", sse.ErrKey, keyring.ErrUnknownKey, keyring.ErrStore), 503},
		{kms.ErrDenied, 403},
		{fmt.Errorf("%w: %w", sse.ErrKey, kms.ErrNotFound), 400},
		{kms.ErrDisabled, 400},
		{kms.ErrPendingDeletion, 400},
		{fmt.Errorf("%w: %w", sse.ErrKey, kms.ErrCiphertext), 500},
		{keyring.ErrDisabled, 403},
		{keyring.ErrDestroyed, 403},
		{sse.ErrMode, 400},
		{fmt.Errorf("%w: %w", sse.ErrKey, keyring.ErrUnknownKey), 500},
		{sse.ErrKey, 500},
		{sse.ErrCorrupt, 500},
		{sse.ErrTruncated, 500},
		{sse.ErrFormat, 500},
		{sse.ErrVersion, 500},
		{blob.ErrPlain, 500},
		{blob.ErrChanged, 503},
		{context.DeadlineExceeded, 503},
		{gcerrors.ErrNotFound, 500}, // the bare error of no bucket
		{errors.New("disk on fire"), 500},
	} {
		for _, at := range []string{"attributes", "open", "first read"} {
			t.Run(fmt.Sprintf("%v/%s", tc.err, at), func(t *testing.T) {
				s := newScript([]byte("secret content"))
				wrapped := fmt.Errorf("on k at 10.0.0.1: %w", tc.err)
				switch at {
				case "attributes":
					s.attrErr = wrapped
				case "open":
					s.openErr = wrapped
				default:
					s.read = func(context.Context, int64) error { return wrapped }
				}
				b := newBed(t, "script", s.bucket(), nil)
				u := b.url(t, "k", "GET", "")
				for _, header := range [][]string{nil, {"Range", "bytes=1-2"}, {"Range", "bytes=1-2,4-5"}} {
					got := b.do(t, "GET", u, nil, header...)
					delete(got.header, "Date")
					require.Equal(t, answer{
						status: tc.status,
						header: map[string]string{
							"Cache-Control": "no-store", "Content-Type": "text/plain; charset=utf-8", "X-Content-Type-Options": "nosniff",
							"Content-Length": strconv.Itoa(len(http.StatusText(tc.status)) + 1),
						},
						body: http.StatusText(tc.status) + "\n",
					}, got)
				}
				_, _, readers := s.state()
				require.Zero(t, readers)
				require.Contains(t, b.log.String(), "10.0.0.1")
				require.Equal(t, tc.status >= 500, strings.Contains(b.log.String(), "level=ERROR"))
			})
		}
	}
}

// TestHandlerBreaksOff: after the first byte, what goes wrong shows as a broken
// answer; also if all bytes are there and only the end does not come.
func TestHandlerBreaksOff(t *testing.T) {
	fail := errors.New("disk on fire")
	readErr := func(at int64) func(*script) {
		return func(s *script) {
			s.read = func(_ context.Context, pos int64) error {
				if pos >= at {
					return fail
				}
				return nil
			}
		}
	}
	for _, tc := range []struct {
		name   string
		set    func(*script)
		ranges string
		prior  bool // something was sent
	}{
		{"in the middle", readErr(5_000), "", true},
		{"at the end", readErr(10_000), "", true},
		{"at the end of a range", readErr(6_000), "bytes=3000-5999", true},
		{"in the second range", readErr(6_000), "bytes=0-9,6000-6010", true},
		{"at the end of the last range", readErr(10_000), "bytes=0-9,9900-", true},
		{"at the end of one read", readErr(500), "bytes=0-499", false},
		{"too short", func(s *script) { s.opened = func(_ int, r *scriptReader) { r.data = r.data[:5_000] } }, "", true},
		{"cut by one byte", func(s *script) { s.opened = func(_ int, r *scriptReader) { r.data = r.data[:9_999] } }, "", true},
		{"too long", func(s *script) {
			s.opened = func(_ int, r *scriptReader) { r.data = append(bytes.Clone(r.data), 'x') }
		}, "", true},
		{"second range of another object", func(s *script) {
			s.opened = func(n int, r *scriptReader) {
				if n == 2 {
					r.attrs.Size++
				}
			}
		}, "bytes=0-9,6000-6010", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newScript(pattern(10_000))
			tc.set(s)
			b := newBed(t, "script", s.bucket(), nil)
			req, err := http.NewRequestWithContext(t.Context(), "GET", b.url(t, "k", "GET", ""), nil)
			require.NoError(t, err)
			if tc.ranges != "" {
				req.Header.Set("Range", tc.ranges)
			}
			resp, err := b.server.Client().Do(req)
			if err != nil { // broken before the headers left the server's buffer
				require.True(t, tc.prior)
			} else {
				defer resp.Body.Close()
				body, err := io.ReadAll(resp.Body)
				if tc.prior {
					require.ErrorIs(t, err, io.ErrUnexpectedEOF)
					if resp.StatusCode == 200 {
						require.Less(t, len(body), 10_000)
						require.True(t, bytes.HasPrefix(s.content, body))
					}
				} else {
					require.NoError(t, err)
					require.Equal(t, 500, resp.StatusCode)
				}
			}
			<-b.done
			_, _, readers := s.state()
			require.Zero(t, readers)
			require.Contains(t, b.log.String(), "level=ERROR")
		})
	}
}

// TestHandlerStartsAnewIfReplaced: an object that is replaced between the look at
// its attributes and the first read is not sent under the other's name.
func TestHandlerStartsAnewIfReplaced(t *testing.T) {
	for _, tc := range []struct {
		name   string
		times  int // that the object is found replaced
		ranges string
		status int
	}{
		{"once", 1, "", 200},
		{"twice", 2, "", 200},
		{"once in ranges", 1, "bytes=0-1,4-5", 206},
		{"always", 1000, "", 503},
	} {
		for _, what := range []string{"size", "time"} {
			t.Run(tc.name+"/"+what, func(t *testing.T) {
				s := newScript([]byte("secret content"))
				s.opened = func(n int, r *scriptReader) {
					if n > tc.times {
						return
					}
					if what == "size" {
						r.attrs.Size++
					} else {
						r.attrs.ModTime = r.attrs.ModTime.Add(time.Second)
					}
				}
				b := newBed(t, "script", s.bucket(), nil)
				got := b.do(t, "GET", b.url(t, "k", "GET", ""), nil, "Range", tc.ranges)
				require.Equal(t, tc.status, got.status)
				<-b.done
				opens, _, readers := s.state()
				require.Zero(t, readers)
				if tc.status == 503 {
					require.Len(t, opens, 3)
				}
			})
		}
	}
}

// TestHandlerOfWhatIsUnpacked: an object that the store unpacks on its way has no
// size that a client could be told. To try again does not help.
func TestHandlerOfWhatIsUnpacked(t *testing.T) {
	s := newScript([]byte("secret content"))
	s.opened = func(_ int, r *scriptReader) { r.attrs.Size = -1 }
	b := newBed(t, "script", s.bucket(), nil)
	require.Equal(t, 500, b.do(t, "GET", b.url(t, "k", "GET", ""), nil).status)
	opens, _, readers := s.state()
	require.Len(t, opens, 1)
	require.Zero(t, readers)
	require.Contains(t, b.log.String(), "Content-Encoding")
}

// TestDisconnectWhileReading: when the client goes, the bucket's reader is
// cancelled and closed.
func TestDisconnectWhileReading(t *testing.T) {
	for _, ranges := range []string{"", "bytes=0-49999", "bytes=0-39999,45000-49999"} {
		t.Run(ranges, func(t *testing.T) {
			s := newScript(pattern(100_000))
			s.read = func(ctx context.Context, pos int64) error {
				if pos < 30_000 {
					return nil
				}
				<-ctx.Done() // a store that hangs
				return ctx.Err()
			}
			b := newBed(t, "script", s.bucket(), nil)
			ctx, cancel := context.WithCancel(t.Context())
			req, err := http.NewRequestWithContext(ctx, "GET", b.url(t, "k", "GET", ""), nil)
			require.NoError(t, err)
			if ranges != "" {
				req.Header.Set("Range", ranges)
			}
			resp, err := b.server.Client().Do(req)
			require.NoError(t, err)
			_, err = io.ReadFull(resp.Body, make([]byte, 10_000))
			require.NoError(t, err)
			cancel()
			_ = resp.Body.Close()
			<-b.done
			_, _, readers := s.state()
			require.Zero(t, readers)
			require.NotContains(t, b.log.String(), "level=ERROR")
		})
	}
}

// failingConn is a connection that fails: at once, or after some writes.
type failingConn struct {
	http.ResponseWriter
	good int
	when func() // called before it fails
}

func (w *failingConn) Write(p []byte) (int, error) {
	if w.good--; w.good < 0 {
		w.when()
		return 0, errors.New("write: i/o timeout")
	}
	return w.ResponseWriter.Write(p)
}

// TestHandlerAborts: an answer that was begun ends with http.ErrAbortHandler, be it
// the object or the connection that fails; also while the store hangs.
func TestHandlerAborts(t *testing.T) {
	for _, ranges := range []string{"", "bytes=0-4999", "bytes=0-4999,7000-7001"} {
		writes := 4 // of 1000 bytes, before the store hangs
		if strings.Contains(ranges, ",") {
			writes++ // the head of the part; and the store hangs while the last one fails
		}
		for good := range writes {
			t.Run(fmt.Sprintf("connection/%s/%d", ranges, good), func(t *testing.T) {
				s := newScript(pattern(10_000))
				hangs := make(chan struct{})
				s.read = func(ctx context.Context, pos int64) error {
					if pos < 4000 {
						return nil
					}
					close(hangs)
					<-ctx.Done()
					return ctx.Err()
				}
				b := newBed(t, "script", s.bucket(), nil)
				r := httptest.NewRequestWithContext(t.Context(), "GET", b.url(t, "k", "GET", ""), nil)
				r.Header.Set("Range", ranges)
				conn := &failingConn{httptest.NewRecorder(), good, func() {
					if good == 4 {
						<-hangs
					}
				}}
				require.PanicsWithValue(t, http.ErrAbortHandler, func() {
					signedurl.NewHandler(s.bucket(), b.signer, nil).ServeHTTP(conn, r)
				})
				_, _, readers := s.state()
				require.Zero(t, readers)
			})
		}
		t.Run("object/"+ranges, func(t *testing.T) {
			s := newScript(pattern(10_000))
			s.read = func(_ context.Context, pos int64) error {
				if pos >= 4000 {
					return errors.New("disk on fire")
				}
				return nil
			}
			b := newBed(t, "script", s.bucket(), nil)
			r := httptest.NewRequestWithContext(t.Context(), "GET", b.url(t, "k", "GET", ""), nil)
			r.Header.Set("Range", ranges)
			require.PanicsWithValue(t, http.ErrAbortHandler, func() {
				signedurl.NewHandler(s.bucket(), b.signer, nil).ServeHTTP(httptest.NewRecorder(), r)
			})
		})
	}
}

// TestDisconnectWhileWriting: what did not come whole is not stored.
func TestDisconnectWhileWriting(t *testing.T) {
	sizes := map[string]int{"nothing": 0, "below sniffing": 100, "some": 5_000, "much": 3_000_000}
	for _, b := range newBeds(t, nil) {
		for name, sent := range sizes {
			for _, how := range []string{"Content-Length: 4000000", "Transfer-Encoding: chunked"} {
				for _, contentType := range []string{"", "Content-Type: a/b\r\n"} {
					t.Run(strings.Join([]string{b.name, name, how, contentType}, "/"), func(t *testing.T) {
						u, err := url.Parse(b.url(t, "k", "PUT", ""))
						require.NoError(t, err)
						conn, err := net.Dial("tcp", u.Host)
						require.NoError(t, err)
						fmt.Fprintf(conn, "PUT %s HTTP/1.1\r\nHost: %s\r\n%s%s\r\n\r\n", u.RequestURI(), u.Host, contentType, how)
						if strings.HasPrefix(how, "Transfer") {
							fmt.Fprintf(conn, "%x\r\n", 4_000_000)
						}
						_, err = conn.Write(pattern(sent))
						require.NoError(t, err)
						require.NoError(t, conn.Close())
						<-b.done
						require.False(t, b.has(t, "k"))
					})
				}
			}
		}
		// Nor does it hurt what was there.
		t.Run(b.name+"/replacing", func(t *testing.T) {
			b.write(t, "old", []byte("old"), nil)
			req, err := http.NewRequestWithContext(t.Context(), "PUT", b.url(t, "old", "PUT", ""),
				io.MultiReader(bytes.NewReader(pattern(100_000)), iotest.ErrReader(errors.New("the client fails"))))
			require.NoError(t, err)
			_, err = b.server.Client().Do(req)
			require.Error(t, err)
			<-b.done
			got, err := b.bucket.ReadAll(t.Context(), "old")
			require.NoError(t, err)
			require.Equal(t, "old", string(got))
		})
	}
}

// TestPutCommitsOnce: the bucket's writer is closed in every case, and published
// only if all is well.
func TestPutCommitsOnce(t *testing.T) {
	for _, tc := range []struct {
		name   string
		body   io.Reader
		header []string
		status int
		commit bool
	}{
		{"well", strings.NewReader("body"), nil, 200, true},
		{"of unknown length", io.MultiReader(strings.NewReader("bo"), strings.NewReader("dy")), nil, 200, true},
		{"wrong digest", strings.NewReader("body"), []string{"Content-Md5", digest("other")}, 400, false},
		{"too long, unknown length", io.MultiReader(bytes.NewReader(make([]byte, 1001))), nil, 413, false},
		{"as long as it may be", bytes.NewReader(make([]byte, 1000)), nil, 200, true},
		{"longest, unknown length", io.MultiReader(bytes.NewReader(make([]byte, 1000))), nil, 200, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newScript(nil)
			b := newBed(t, "script", s.bucket(), &signedurl.HandlerOptions{MaxSize: 1000})
			got := b.do(t, "PUT", b.url(t, "k", "PUT", ""), tc.body, append(tc.header, "Content-Type", "a/b")...)
			require.Equal(t, tc.status, got.status)
			<-b.done
			require.Len(t, s.writes, 1)
			require.True(t, s.writes[0].closed)
			require.Equal(t, tc.commit, s.writes[0].committed)
			require.Equal(t, "a/b", s.writes[0].contentType)
		})
	}
	t.Run("too long is refused at once", func(t *testing.T) {
		s := newScript(nil)
		b := newBed(t, "script", s.bucket(), &signedurl.HandlerOptions{MaxSize: 1000})
		require.Equal(t, 413, b.do(t, "PUT", b.url(t, "k", "PUT", ""), bytes.NewReader(make([]byte, 1001))).status)
		require.Empty(t, s.writes)
	})
	// A server, or what stands before the handler, that hands a body on as it comes.
	for name, body := range map[string]string{"shorter than it says": "bod", "longer than it says": "body and more"} {
		t.Run(name, func(t *testing.T) {
			mem := newMem(t)
			b := newBed(t, "plain", mem, nil)
			r := httptest.NewRequest("PUT", b.url(t, "k", "PUT", ""), strings.NewReader(body))
			r.ContentLength = 4
			rec := httptest.NewRecorder()
			signedurl.NewHandler(mem, b.signer, nil).ServeHTTP(rec, r)
			require.Equal(t, 400, rec.Code)
			_, err := mem.ReadAll(t.Context(), "k")
			require.ErrorIs(t, err, gcerrors.ErrNotFound)
		})
	}
	t.Run("without a limit", func(t *testing.T) {
		s := newScript(nil)
		b := newBed(t, "script", s.bucket(), &signedurl.HandlerOptions{MaxSize: -1})
		require.Equal(t, 200, b.do(t, "PUT", b.url(t, "k", "PUT", ""), bytes.NewReader(make([]byte, 1001))).status)
	})
	t.Run("the bucket refuses", func(t *testing.T) {
		s := newScript(nil)
		s.openErr = fmt.Errorf("no: %w", blob.ErrPolicy)
		b := newBed(t, "script", s.bucket(), nil)
		require.Equal(t, 403, b.do(t, "PUT", b.url(t, "k", "PUT", ""), strings.NewReader("x"), "Content-Type", "a/b").status)
	})
}

// TestRefusedPutDoesNotTakeTheBody: a client that waits for leave to send gets the
// refusal first.
func TestRefusedPutDoesNotTakeTheBody(t *testing.T) {
	b := newBed(t, "plain", newMem(t), nil)
	u, err := url.Parse(b.url(t, "k", "GET", ""))
	require.NoError(t, err)
	conn, err := net.Dial("tcp", u.Host)
	require.NoError(t, err)
	defer conn.Close()
	fmt.Fprintf(conn, "PUT %s HTTP/1.1\r\nHost: %s\r\nContent-Length: 1000000\r\nExpect: 100-continue\r\n\r\n", u.RequestURI(), u.Host)
	line, err := bufio.NewReader(conn).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "HTTP/1.1 403 Forbidden\r\n", line)
}

// TestDamagedObjects: of an encrypted object that was damaged in the store the
// client gets authentic bytes, and never a clean end.
func TestDamagedObjects(t *testing.T) {
	const chunk, stored = 16384, 16400
	content := pattern(3*chunk + 100)
	whole := func(n int) func([]byte) []byte { return func(b []byte) []byte { return b[:len(b)-n] } }
	flip := func(fromEnd int) func([]byte) []byte {
		return func(b []byte) []byte { b[len(b)-fromEnd] ^= 1; return b }
	}
	for _, tc := range []struct {
		name      string
		damage    func([]byte) []byte
		ranges    string
		authentic int // bytes that may be sent
		ok        bool
	}{
		{"first chunk", flip(3*stored + 116), "", 0, false},
		{"second chunk", flip(2*stored + 116), "", chunk, false},
		{"last chunk", flip(1), "", 3 * chunk, false},
		{"cut in the last chunk", whole(10), "", 3 * chunk, false},
		{"last chunk cut off", whole(116), "", 3 * chunk, false},
		{"one more byte", func(b []byte) []byte { return append(b, 0) }, "", 3*chunk + 100, false},
		{"envelope", func(b []byte) []byte { b[200] ^= 1; return b }, "", 0, false},
		{"magic", func(b []byte) []byte { b[0] ^= 1; return b }, "", 0, false},
		{"empty", func(b []byte) []byte { return nil }, "", 0, false},
		{"range beside the damage", flip(2*stored + 116), "bytes=0-99", 100, true},
		{"range in the damage", flip(2*stored + 116), "bytes=16384-16390", 0, false},
		{"ranges, the second in the damage", flip(2*stored + 116), "bytes=0-99,16384-16390", 0, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := newEncrypted(t, "encrypted", newMem(t), sse.NewManaged(newRing(t)), nil)
			b.write(t, "k", content, &gcblob.WriterOptions{ContentType: "a/b"})
			raw, err := b.inner.ReadAll(t.Context(), "k")
			require.NoError(t, err)
			attrs, err := b.inner.Attributes(t.Context(), "k")
			require.NoError(t, err)
			require.NoError(t, b.inner.WriteAll(t.Context(), "k", tc.damage(raw), &gcblob.WriterOptions{Metadata: attrs.Metadata, ContentType: "a/b"}))

			req, err := http.NewRequestWithContext(t.Context(), "GET", b.url(t, "k", "GET", ""), nil)
			require.NoError(t, err)
			if tc.ranges != "" {
				req.Header.Set("Range", tc.ranges)
			}
			resp, err := b.server.Client().Do(req)
			if err != nil {
				return // broken before its headers left
			}
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			clean := err == nil && resp.StatusCode < 300
			require.Equal(t, tc.ok, clean, "%d %v", resp.StatusCode, err)
			if resp.StatusCode == 200 || tc.ok {
				require.LessOrEqual(t, len(body), tc.authentic)
				require.True(t, bytes.HasPrefix(content, body))
			}
		})
	}
}

// TestEmptyObjectIsProved: also an object without a byte is not there for whom its
// key does not open it.
func TestEmptyObjectIsProved(t *testing.T) {
	fake := kmstest.NewFake("key")
	cipher, err := sse.NewKMS(fake, "key", nil)
	require.NoError(t, err)
	b := newEncrypted(t, "encrypted", newMem(t), cipher, nil)
	b.write(t, "k", nil, nil)
	u := b.url(t, "k", "GET", "")
	require.Equal(t, 200, b.do(t, "GET", u, nil).status)
	fake.Disable("key")
	require.Equal(t, 400, b.do(t, "GET", u, nil).status)
	require.Equal(t, 200, b.do(t, "HEAD", u, nil).status)
}

// TestKeyServiceErrorsThroughTheHandler uses the real thing: an encrypted bucket
// whose key service has every kind of trouble.
func TestKeyServiceErrorsThroughTheHandler(t *testing.T) {
	fake := kmstest.NewFake("key")
	cipher, err := sse.NewKMS(fake, "key", nil)
	require.NoError(t, err)
	b := newEncrypted(t, "encrypted", newMem(t), cipher, nil)
	b.write(t, "k", []byte("content"), nil)
	get, put := b.url(t, "k", "GET", ""), b.url(t, "new", "PUT", "")
	for _, tc := range []struct {
		name   string
		set    func()
		status int
		unset  func()
	}{
		{"down", func() { fake.Fail(kms.ErrUnavailable, -1) }, 503, fake.Recover},
		{"denied", func() { fake.Fail(kms.ErrDenied, -1) }, 403, fake.Recover},
		{"disabled", func() { fake.Disable("key") }, 400, func() { fake.Enable("key") }},
		{"to be deleted", func() { fake.ScheduleDeletion("key") }, 400, func() { fake.Enable("key") }},
		{"gone", func() { fake.RemoveKey("key") }, 400, func() {}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.set()
			for _, header := range [][]string{nil, {"Range", "bytes=1-2"}, {"Range", "bytes=1-2,4-5"}} {
				got := b.do(t, "GET", get, nil, header...)
				require.Equal(t, tc.status, got.status)
				require.Equal(t, http.StatusText(tc.status)+"\n", got.body)
			}
			require.Equal(t, 200, b.do(t, "HEAD", get, nil).status) // which needs no key
			require.Equal(t, tc.status, b.do(t, "PUT", put, strings.NewReader("x")).status)
			tc.unset()
			require.False(t, b.has(t, "new"))
		})
	}
}

// TestCustomerKeysDoNotCome: objects of SSE-C are not to be had by a URL alone.
func TestCustomerKeysDoNotCome(t *testing.T) {
	inner := newMem(t)
	theirs := newBucketWith(t, inner, newCustomer(t, 1), &blob.Options{Policy: blob.Policy{AllowCustomerKeys: true}})
	require.NoError(t, theirs.WriteAll(t.Context(), "k", []byte("content"), nil))
	b := newEncrypted(t, "encrypted", inner, sse.NewManaged(newRing(t)), nil)
	require.Equal(t, 400, b.do(t, "GET", b.url(t, "k", "GET", ""), nil).status)
}

// TestHandlerPrincipal: who asks is bound in the URL, and the option overrides it.
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
			b := newEncrypted(t, "encrypted", newMem(t), cipher, &signedurl.HandlerOptions{Principal: tc.option})
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

func TestHandlerHeaders(t *testing.T) {
	b := newBed(t, "plain", newMem(t), &signedurl.HandlerOptions{Header: http.Header{
		"Cache-Control":           {"no-store"},
		"Content-Security-Policy": nil,
		"x-more":                  {"1", "2"},
	}})
	b.write(t, "k", []byte("content"), &gcblob.WriterOptions{CacheControl: "public", ContentType: "a/b"})
	got := b.do(t, "GET", b.url(t, "k", "GET", ""), nil).alike()
	delete(got.header, "Date")
	require.Equal(t, map[string]string{
		"Accept-Ranges": "bytes", "Cache-Control": "no-store", "Content-Length": "7", "Content-Type": "a/b", "Etag": "set",
		"Last-Modified": "set", "Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff", "X-More": "1|2",
	}, got.header)
	// What stands in front of the handler keeps its headers.
	rec := httptest.NewRecorder()
	rec.Header().Set("Access-Control-Allow-Origin", "*")
	h := signedurl.NewHandler(b.bucket, b.signer, nil)
	h.ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), "GET", b.url(t, "k", "GET", ""), nil))
	require.Equal(t, "*", rec.Header().Get("Access-Control-Allow-Origin"))
	require.Equal(t, "content", rec.Body.String())
}

// TestSignedURLOfTheBucketItself: the signer is what a bucket asks for a URL: ours by
// its option, gocloud's file bucket by its own.
func TestSignedURLOfTheBucketItself(t *testing.T) {
	b := newBed(t, "plain", newMem(t), nil)
	encrypted := newBucket(t, newMem(t), &blob.Options{Signer: b.signer})
	u, err := encrypted.SignedURL(t.Context(), "k", &gcblob.SignedURLOptions{Expiry: time.Minute})
	require.NoError(t, err)
	want, err := b.signer.SignedURL(t.Context(), "k", &driver.SignedURLOptions{Expiry: time.Minute})
	require.NoError(t, err)
	require.Equal(t, want, u)
	files, err := fileblob.OpenBucket(t.TempDir(), &fileblob.Options{URLSigner: b.signer})
	require.NoError(t, err)
	defer files.Close()
	u, err = files.SignedURL(t.Context(), "k", &gcblob.SignedURLOptions{Expiry: time.Minute})
	require.NoError(t, err)
	require.Equal(t, want, u)
	_, err = encrypted.SignedURL(t.Context(), "k", &gcblob.SignedURLOptions{Expiry: 30 * 24 * time.Hour})
	require.Equal(t, gcerrors.InvalidArgument, gcerrors.Code(err))
	require.ErrorIs(t, err, sse.ErrInvalid)
}

// TestConcurrentRequests: every answer is one whole version, or says that there is
// none, while others write and delete.
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
								// fileblob meets its own file of attributes while it is written.
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

// TestConformanceOfTheHandler is what gocloud's conformance tests ask of signed
// URLs, on every bucket: see testSignedURL there.
func TestConformanceOfTheHandler(t *testing.T) {
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
