package signedurl_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"gocloud.dev/blob/driver"

	"github.com/blobseal/blobseal/blob/signedurl"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/sse"
)

// secretOf returns the secret number n.
func secretOf(n byte) []byte { return bytes.Repeat([]byte{'s', n, '!', 0xf0}, 8) }

// clock is a clock that tests set.
type clock struct{ t time.Time }

func newClock() *clock { return &clock{time.Date(2026, 3, 4, 5, 6, 7, 890, time.UTC)} }

func (c *clock) now() time.Time          { return c.t }
func (c *clock) advance(d time.Duration) { c.t = c.t.Add(d) }

const signerBase = "https://photos.example/shared"

func newSigner(t testing.TB, base string, secret []byte, opts *signedurl.SignerOptions) *signedurl.Signer {
	u, err := url.Parse(base)
	require.NoError(t, err)
	s, err := signedurl.NewSigner(u, secret, opts)
	require.NoError(t, err)
	return s
}

// sign returns the signed URL, with a method and a content type that may be empty.
func sign(t testing.TB, s *signedurl.Signer, key, method, contentType string) string {
	u, err := s.SignedURL(context.Background(), key, &driver.SignedURLOptions{Method: method, ContentType: contentType})
	require.NoError(t, err)
	return u
}

// request returns a request as a server sees it.
func request(method, rawQuery string, contentType ...string) *http.Request {
	u := &url.URL{Path: "/shared/", RawQuery: rawQuery}
	for _, key := range u.Query()["obj"] {
		u.Path = "/shared/" + signedurl.FileName(key)
	}
	r := &http.Request{Method: method, URL: u, Header: http.Header{}}
	if len(contentType) > 0 {
		r.Header["Content-Type"] = contentType
	}
	return r
}

func queryOf(t testing.TB, signed string) string {
	u, err := url.Parse(signed)
	require.NoError(t, err)
	return u.RawQuery
}

func TestVerify(t *testing.T) {
	c := newClock()
	s := newSigner(t, signerBase, secretOf(1), &signedurl.SignerOptions{Now: c.now})
	keys := []string{
		"cat.jpg", "a/b/c", "/lead", "a//b/../c/.", "sp ace+plus%25&x=y;z#f?q", "ünï\u2028cödé\x00\n", strings.Repeat("k", 4000), "obj=x&signature=y",
	}
	opts := map[string]driver.SignedURLOptions{
		"default":  {},
		"GET":      {Method: "GET"},
		"DELETE":   {Method: "DELETE"},
		"PUT":      {Method: "PUT"},
		"PUT type": {Method: "PUT", ContentType: "text/plain; charset=utf-8"},
		"PUT none": {Method: "PUT", EnforceAbsentContentType: true},
	}
	for name, o := range opts {
		t.Run(name, func(t *testing.T) {
			for _, key := range keys {
				signed, err := s.SignedURL(t.Context(), key, &o)
				require.NoError(t, err)
				require.True(t, strings.HasPrefix(signed, signerBase+"/"), signed)
				method := o.Method
				if method == "" {
					method = "GET"
				}
				r := request(method, queryOf(t, signed))
				if o.ContentType != "" {
					r.Header.Set("Content-Type", o.ContentType)
				}
				p, err := s.Verify(r)
				require.NoError(t, err)
				require.Equal(t, &signedurl.Permit{
					Key: key, Method: method, ContentType: o.ContentType, EnforceAbsentContentType: o.EnforceAbsentContentType,
					Expires: time.Date(2026, 3, 4, 6, 6, 8, 0, time.UTC).Local(),
				}, p)
			}
		})
	}
}

func TestMethodAndTypeAreBound(t *testing.T) {
	s := newSigner(t, signerBase, secretOf(1), nil)
	get := sign(t, s, "k", "GET", "")
	put := sign(t, s, "k", "PUT", "")
	putText := sign(t, s, "k", "PUT", "text/plain")
	del := sign(t, s, "k", "DELETE", "")
	none, err := s.SignedURL(t.Context(), "k", &driver.SignedURLOptions{Method: "PUT", EnforceAbsentContentType: true})
	require.NoError(t, err)
	require.NotEqual(t, put, none)
	for _, tc := range []struct {
		name, url string
		method    string
		types     []string
		ok        bool
	}{
		{"get", get, "GET", nil, true},
		{"head by get", get, "HEAD", nil, true},
		{"put by get", get, "PUT", nil, false},
		{"delete by get", get, "DELETE", nil, false},
		{"post by get", get, "POST", nil, false},
		{"lower case", get, "get", nil, false},
		{"no method", get, "", nil, false},
		{"get by put", put, "GET", nil, false},
		{"head by put", put, "HEAD", nil, false},
		{"head by delete", del, "HEAD", nil, false},
		{"get by delete", del, "GET", nil, false},
		{"delete", del, "DELETE", nil, true},
		{"delete by put", put, "DELETE", nil, false},
		{"put by delete", del, "PUT", nil, false},
		{"put without type", put, "PUT", nil, true},
		{"put of any type", put, "PUT", []string{"image/png"}, true},
		{"put of the type", putText, "PUT", []string{"text/plain"}, true},
		{"put of another type", putText, "PUT", []string{"text/html"}, false},
		{"put of its type in another case", putText, "PUT", []string{"Text/plain"}, false},
		{"put of its type with a parameter", putText, "PUT", []string{"text/plain; charset=utf-8"}, false},
		{"put of two types", putText, "PUT", []string{"text/plain", "text/html"}, false},
		{"put of no type, not enforced by absence", putText, "PUT", nil, false},
		{"put of an empty type", putText, "PUT", []string{""}, false},
		{"absent", none, "PUT", nil, true},
		{"absent, but empty", none, "PUT", []string{""}, false},
		{"absent, but there", none, "PUT", []string{"text/plain"}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := s.Verify(request(tc.method, queryOf(t, tc.url), tc.types...))
			if tc.ok {
				require.NoError(t, err)
			} else {
				require.ErrorIs(t, err, signedurl.ErrForbidden)
			}
		})
	}
}

func TestExpiry(t *testing.T) {
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, tc := range []struct {
		name      string
		signed    time.Duration // after start
		expiry    time.Duration
		lastGood  time.Duration // after start
		firstPast time.Duration
	}{
		{"whole", 0, time.Minute, time.Minute - 1, time.Minute},
		{"within a second", 1, time.Minute, time.Minute + time.Second - 1, time.Minute + time.Second},
		{"at the end of a second", time.Second - 1, time.Minute, time.Minute + time.Second - 1, time.Minute + time.Second},
		{"shorter than a second", 0, 1, time.Second - 1, time.Second},
		{"default", 0, 0, time.Hour - 1, time.Hour},
		{"longest", 0, signedurl.DefaultMaxExpiry, signedurl.DefaultMaxExpiry - 1, signedurl.DefaultMaxExpiry},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := &clock{start.Add(tc.signed)}
			s := newSigner(t, signerBase, secretOf(1), &signedurl.SignerOptions{Now: c.now})
			signed, err := s.SignedURL(t.Context(), "k", &driver.SignedURLOptions{Expiry: tc.expiry})
			require.NoError(t, err)
			r := request("GET", queryOf(t, signed))
			_, err = s.Verify(r)
			require.NoError(t, err)
			c.t = start.Add(tc.lastGood)
			_, err = s.Verify(r)
			require.NoError(t, err)
			c.t = start.Add(tc.firstPast)
			_, err = s.Verify(r)
			require.ErrorIs(t, err, signedurl.ErrForbidden)
		})
	}
}

// TestLongestExpiry: the longest lifetime does not overflow.
func TestLongestExpiry(t *testing.T) {
	s := newSigner(t, signerBase, secretOf(1), &signedurl.SignerOptions{MaxExpiry: math.MaxInt64})
	signed, err := s.SignedURL(t.Context(), "k", &driver.SignedURLOptions{Expiry: math.MaxInt64})
	require.NoError(t, err)
	_, err = s.Verify(request("GET", queryOf(t, signed)))
	require.NoError(t, err)
}

func TestSignedURLRefuses(t *testing.T) {
	s := newSigner(t, signerBase, secretOf(1), &signedurl.SignerOptions{MaxExpiry: time.Hour})
	for name, tc := range map[string]struct {
		key  string
		opts driver.SignedURLOptions
	}{
		"no key":               {"", driver.SignedURLOptions{}},
		"key of no UTF-8":      {"\xff", driver.SignedURLOptions{}},
		"negative expiry":      {"k", driver.SignedURLOptions{Expiry: -1}},
		"long expiry":          {"k", driver.SignedURLOptions{Expiry: time.Hour + 1}},
		"another method":       {"k", driver.SignedURLOptions{Method: "POST"}},
		"HEAD":                 {"k", driver.SignedURLOptions{Method: "HEAD"}},
		"content type of GET":  {"k", driver.SignedURLOptions{ContentType: "a/b"}},
		"absence for DELETE":   {"k", driver.SignedURLOptions{Method: "DELETE", EnforceAbsentContentType: true}},
		"no such content type": {"k", driver.SignedURLOptions{Method: "PUT", ContentType: "a/b\r\nX: y"}},
	} {
		t.Run(name, func(t *testing.T) {
			u, err := s.SignedURL(t.Context(), tc.key, &tc.opts)
			require.ErrorIs(t, err, sse.ErrInvalid)
			require.Empty(t, u)
		})
	}
}

func TestNewSignerRefuses(t *testing.T) {
	for _, base := range []string{
		"", "/path", "//host/path", "ftp://host", "https:///path", "https://user@host/", "https://host/?q=1", "https://host/?", "https://host/#f", "mailto:x",
	} {
		u, err := url.Parse(base)
		require.NoError(t, err)
		_, err = signedurl.NewSigner(u, secretOf(1), nil)
		require.ErrorIs(t, err, sse.ErrInvalid, base)
	}
	_, err := signedurl.NewSigner(nil, secretOf(1), nil)
	require.ErrorIs(t, err, sse.ErrInvalid)
	u, err := url.Parse(signerBase)
	require.NoError(t, err)
	for _, bad := range [][]byte{nil, {7}, bytes.Repeat([]byte{7}, 31), bytes.Repeat([]byte{7}, 33), make([]byte, 32)} {
		_, err := signedurl.NewSigner(u, bad, nil)
		require.ErrorIs(t, err, sse.ErrInvalid)
		_, err = signedurl.NewSigner(u, secretOf(1), &signedurl.SignerOptions{Accept: [][]byte{bad}})
		require.ErrorIs(t, err, sse.ErrInvalid)
	}
	_, err = signedurl.NewSigner(u, secretOf(1), &signedurl.SignerOptions{MaxExpiry: -1})
	require.ErrorIs(t, err, sse.ErrInvalid)
}

// TestBaseWithAndWithoutSlash: a slash at the end of the base makes no difference,
// and the object's file name follows.
func TestBaseWithAndWithoutSlash(t *testing.T) {
	for base, want := range map[string]string{
		"https://photos.example":         "https://photos.example/cat.jpg?",
		"https://photos.example/":        "https://photos.example/cat.jpg?",
		"https://photos.example/shared":  "https://photos.example/shared/cat.jpg?",
		"https://photos.example/shared/": "https://photos.example/shared/cat.jpg?",
		"https://photos.example/a%2Fb/":  "https://photos.example/a%2Fb/cat.jpg?",
	} {
		s := newSigner(t, base, secretOf(1), nil)
		signed := sign(t, s, "2026/cat.jpg", "GET", "")
		require.True(t, strings.HasPrefix(signed, want), signed)
		for _, other := range []string{strings.TrimRight(base, "/"), strings.TrimRight(base, "/") + "/"} {
			_, err := newSigner(t, other, secretOf(1), nil).Verify(request("GET", queryOf(t, signed)))
			require.NoError(t, err)
		}
	}
}

// TestFileNames: clients save the object under the last element of the URL's path.
func TestFileNames(t *testing.T) {
	s := newSigner(t, signerBase, secretOf(1), nil)
	for key, want := range map[string]string{
		"cat.jpg": "cat.jpg", "a/b/ünïcode name?.pdf": "ünïcode name?.pdf", "a/b/": "b", "100%.txt": "100%.txt",
		"/": "object", "..": "object", "a/.": "object", "a\\b": "a_b", "new\nline\x00": "new_line_", "semi;colon": "semi;colon",
	} {
		u, err := url.Parse(sign(t, s, key, "GET", ""))
		require.NoError(t, err)
		require.Equal(t, "/shared/"+want, u.Path)
		require.Equal(t, 2, strings.Count(u.EscapedPath(), "/"))
		p, err := s.Verify(&http.Request{Method: "GET", URL: u})
		require.NoError(t, err)
		require.Equal(t, key, p.Key)
	}
}

// TestSignPermits: all that a Permit says comes back.
func TestSignPermits(t *testing.T) {
	s := newSigner(t, signerBase, secretOf(1), nil)
	expires := time.Unix(time.Now().Add(time.Minute).Unix(), 0)
	for _, p := range []signedurl.Permit{
		{Key: "k", Method: "GET", Expires: expires, IfMatch: `"e"`, ResponseContentType: "text/csv", ResponseContentDisposition: `attachment; filename="ü.csv"`, ResponseCacheControl: "max-age=60"},
		{Key: "k", Method: "PUT", Expires: expires, MaxSize: 1 << 40, ContentType: "a/b", Principal: kms.Principal{ID: "al"}},
		{Key: "k", Method: "PUT", Expires: expires, EnforceAbsentContentType: true, Principal: kms.Principal{Type: "User"}},
	} {
		u, err := s.Sign(&p)
		require.NoError(t, err)
		got, err := s.Verify(request(p.Method, u.RawQuery, strings.Fields(p.ContentType)...))
		require.NoError(t, err)
		require.Equal(t, &p, got)
	}
	for name, p := range map[string]signedurl.Permit{
		"size of GET":             {Key: "k", MaxSize: 1},
		"negative size":           {Key: "k", Method: "PUT", MaxSize: -1},
		"type set and absent":     {Key: "k", Method: "PUT", ContentType: "a/b", EnforceAbsentContentType: true},
		"If-Match of PUT":         {Key: "k", Method: "PUT", IfMatch: `"e"`},
		"If-Match of DELETE":      {Key: "k", Method: "DELETE", IfMatch: `"e"`},
		"response header of PUT":  {Key: "k", Method: "PUT", ResponseCacheControl: "max-age=60"},
		"header with a line feed": {Key: "k", ResponseContentDisposition: "inline\r\nX: y"},
		"no content type":         {Key: "k", ResponseContentType: "nothing/"},
		"past":                    {Key: "k", Expires: time.Now().Add(-time.Second)},
	} {
		_, err := s.Sign(&p)
		require.ErrorIs(t, err, sse.ErrInvalid, name)
	}
}

func TestSignerSecretsRotate(t *testing.T) {
	accepts := func(s *signedurl.Signer, signed string) bool {
		_, err := s.Verify(request("GET", queryOf(t, signed)))
		return err == nil
	}
	old := newSigner(t, signerBase, secretOf(1), nil)
	prepared := newSigner(t, signerBase, secretOf(1), &signedurl.SignerOptions{Accept: [][]byte{secretOf(2)}})
	rotated := newSigner(t, signerBase, secretOf(2), &signedurl.SignerOptions{Accept: [][]byte{secretOf(1), secretOf(2)}})
	done := newSigner(t, signerBase, secretOf(2), nil)

	byOld := sign(t, old, "k", "GET", "")
	byPrepared := sign(t, prepared, "k", "GET", "")
	byRotated := sign(t, rotated, "k", "GET", "")
	for _, tc := range []struct {
		name   string
		signer *signedurl.Signer
		want   [3]bool
	}{
		{"old", old, [3]bool{true, true, false}},
		{"prepared", prepared, [3]bool{true, true, true}},
		{"rotated", rotated, [3]bool{true, true, true}},
		{"done", done, [3]bool{false, false, true}},
	} {
		require.Equal(t, tc.want, [3]bool{accepts(tc.signer, byOld), accepts(tc.signer, byPrepared), accepts(tc.signer, byRotated)}, tc.name)
	}
}

func TestBaseIsBound(t *testing.T) {
	signed := queryOf(t, sign(t, newSigner(t, signerBase, secretOf(1), nil), "k", "GET", ""))
	for _, base := range []string{
		signerBase + "2", signerBase + "/x", "http://photos.example/shared", "https://docs.example/shared", "https://photos.example:443/shared", "https://photos.example/Shared",
	} {
		_, err := newSigner(t, base, secretOf(1), nil).Verify(request("GET", signed))
		require.ErrorIs(t, err, signedurl.ErrForbidden, base)
	}
}

func TestSignerCopiesItsSecrets(t *testing.T) {
	secret, accept := secretOf(1), secretOf(2)
	s := newSigner(t, signerBase, secret, &signedurl.SignerOptions{Accept: [][]byte{accept}})
	signed := sign(t, s, "k", "GET", "")
	clear(secret)
	clear(accept)
	_, err := s.Verify(request("GET", queryOf(t, signed)))
	require.NoError(t, err)
	_, err = s.Verify(request("GET", queryOf(t, sign(t, newSigner(t, signerBase, secretOf(2), nil), "k", "GET", ""))))
	require.NoError(t, err)
}

func TestSignerBindsThePrincipal(t *testing.T) {
	alice := kms.Principal{ID: "arn:example:user/alice", Type: "User"}
	ctx := kms.WithPrincipal(t.Context(), alice)
	for _, bind := range []bool{false, true} {
		s := newSigner(t, signerBase, secretOf(1), &signedurl.SignerOptions{BindPrincipal: bind})
		signed, err := s.SignedURL(ctx, "k", nil)
		require.NoError(t, err)
		p, err := s.Verify(request("GET", queryOf(t, signed)))
		require.NoError(t, err)
		if bind {
			require.Equal(t, alice, p.Principal)
		} else {
			require.Zero(t, p.Principal)
			require.NotContains(t, signed, "alice")
		}
	}
}

func TestSignerNeverPrintsItsSecrets(t *testing.T) {
	secret := bytes.Repeat([]byte("kEy!"), 8)
	s := newSigner(t, signerBase, secret, &signedurl.SignerOptions{Accept: [][]byte{secretOf(1)}})
	signed := sign(t, s, "k", "GET", "")
	_, refused := s.Verify(request("GET", queryOf(t, signed)+"x"))
	require.Error(t, refused)
	var out bytes.Buffer
	for _, v := range []any{s, *s, struct{ s *signedurl.Signer }{s}, []*signedurl.Signer{s}, refused} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		if b, err := json.Marshal(v); err == nil {
			out.Write(b)
		}
		slog.New(slog.NewTextHandler(&out, nil)).Info("x", "v", v)
	}
	for _, form := range []string{"kEy!", hex.EncodeToString(secret[:4]), "107 69 121", "0x6b, 0x45", "a0V5I"} {
		require.NotContains(t, out.String(), form)
	}
	require.Contains(t, out.String(), signerBase)
	require.NotContains(t, refused.Error(), "signature=")
}
