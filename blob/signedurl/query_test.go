package signedurl_test

import (
	"context"
	"encoding/base64"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"gocloud.dev/blob/driver"

	"github.com/blobseal/blobseal/blob/signedurl"
	"github.com/blobseal/blobseal/kms"
)

// TestEveryEdit: a query that is one edit away is refused, unless it says
// the same in another spelling.
func TestEveryEdit(t *testing.T) {
	c := newClock()
	s := newSigner(t, signerBase, secretOf(1), &signedurl.SignerOptions{Now: c.now, BindPrincipal: true})
	ctx := kms.WithPrincipal(t.Context(), kms.Principal{ID: "al", Type: "User"})
	for _, opts := range []driver.SignedURLOptions{
		{},
		{Method: "PUT", ContentType: "a/b"},
		{Method: "PUT", EnforceAbsentContentType: true},
	} {
		signed, err := s.SignedURL(ctx, "d/ü +%2f", &opts)
		require.NoError(t, err)
		q := queryOf(t, signed)
		var types []string
		if opts.ContentType != "" {
			types = []string{opts.ContentType}
		}
		method := max(opts.Method, "GET")
		want, err := s.Verify(request(method, q, types...))
		require.NoError(t, err)
		values, err := url.ParseQuery(q)
		require.NoError(t, err)
		refused, accepted := 0, 0
		try := func(edited string) {
			got, err := s.Verify(request(method, edited, types...))
			if err != nil {
				require.ErrorIs(t, err, signedurl.ErrForbidden)
				refused++
				return
			}
			same, err := url.ParseQuery(edited)
			require.NoError(t, err, edited)
			require.Equal(t, values, same, edited)
			require.Equal(t, want, got)
			accepted++
		}
		for i := range len(q) {
			for b := range 256 {
				if byte(b) != q[i] {
					try(q[:i] + string([]byte{byte(b)}) + q[i+1:])
				}
			}
			try(q[:i])
			try(q[i+1:])
			try(q[:i] + q[i+1:])
			for _, add := range []string{"&", "=", "a", "0", "%00", "+", ";", "-", "&x=y&"} {
				try(q[:i] + add + q[i:])
			}
			if i+1 < len(q) && q[i] != q[i+1] {
				try(q[:i] + q[i+1:i+2] + q[i:i+1] + q[i+2:])
			}
		}
		require.Greater(t, refused, 100*256)
		require.Less(t, accepted, 30) // %2f for %2F, and empty parameters
	}
}

// TestSpellings: clients that decode a query and encode it again change how it is
// spelled. What it says decides.
func TestSpellings(t *testing.T) {
	s := newSigner(t, signerBase, secretOf(1), nil)
	q := queryOf(t, sign(t, s, "a/b c+d;e:@,'()*?", "PUT", "image/svg+xml"))
	values, err := url.ParseQuery(q)
	require.NoError(t, err)
	params := strings.Split(q, "&")
	edit := func(old, new string) string {
		edited := strings.ReplaceAll(q, old, new)
		require.NotEqual(t, q, edited)
		return edited
	}
	for _, tc := range []struct {
		name, query string
		ok          bool
	}{
		{"as signed", q, true},
		{"in a form's encoding, as URLSearchParams", values.Encode(), true},
		{"hex in lower case", edit("%2F", "%2f"), true},
		{"slash as it is", edit("%2F", "/"), true},
		{"plus as it is, as Java's URI", edit("%2B", "+"), true},
		{"semicolon as it is, as yarl", edit("%3B", ";"), true},
		{"all of it as it is", strings.NewReplacer("%2F", "/", "%3B", ";", "%3A", ":", "%40", "@", "%2C", ",", "%27", "'", "%28", "(", "%29", ")", "%2A", "*", "%3F", "?").Replace(q), true},
		{"letter escaped", edit("obj=a", "obj=%61"), true},
		{"name escaped", edit("obj=a", "%6fbj=a"), true},
		{"another order", strings.Join(append(params[1:len(params):len(params)], params[0]), "&"), true},
		{"empty parameter", q + "&", true},

		{"empty", "", false},
		{"space and plus as plus", edit("%20", "+")[:0] + strings.NewReplacer("%20", "+", "%2B", "+").Replace(q), false},
		{"parameter twice", q + "&" + params[0], false},
		{"another value first", "obj=other&" + q, false},
		{"another value last", q + "&obj=other", false},
		{"another value, name escaped", q + "&%6fbj=other", false},
		{"unknown parameter", q + "&utm_source=mail", false},
		{"empty principal", "by=&" + q, false},
		{"no limit", q + "&maxSize=0", false},
		{"padded signature", q + "%3D", false},
		{"expiry with a sign", edit("expiry=", "expiry=%2B"), false},
		{"expiry with a zero", edit("expiry=", "expiry=0"), false},
		{"method in lower case", edit("PUT", "put"), false},
		{"name in upper case", edit("obj=", "OBJ="), false},
		{"no signature", edit("signature="+values.Get("signature"), "signature="), false},
		{"signature as std base64", edit(values.Get("signature"), url.QueryEscape(toStdBase64(t, values.Get("signature")))), false},
		{"malformed", q + "&%zz", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := request("PUT", tc.query, "image/svg+xml")
			r.URL.Path = "/shared/b c+d;e:@,'()*?"
			p, err := s.Verify(r)
			if !tc.ok {
				require.ErrorIs(t, err, signedurl.ErrForbidden)
				return
			}
			require.NoError(t, err)
			require.Equal(t, "a/b c+d;e:@,'()*?", p.Key)
		})
	}
}

func toStdBase64(t *testing.T, s string) string {
	b, err := base64.RawURLEncoding.DecodeString(s)
	require.NoError(t, err)
	return base64.StdEncoding.EncodeToString(b)
}

// TestLaterRestrictionsAreRefused: a restriction that a later version signs is not
// ignored by this one.
func TestLaterRestrictionsAreRefused(t *testing.T) {
	s := newSigner(t, signerBase, secretOf(1), nil)
	_, err := s.Verify(request("GET", signedurl.SignFields(s, map[string]string{"obj": "k", "method": "GET", "expiry": "9999999999"})))
	require.NoError(t, err)
	for _, fields := range []map[string]string{
		{"obj": "k", "method": "GET", "expiry": "9999999999", "ip": "10.0.0.1"},
		{"obj": "k", "method": "GET", "expiry": "09999999999"},
		{"obj": "k", "method": "GET"},
	} {
		_, err := s.Verify(request("GET", signedurl.SignFields(s, fields)))
		require.ErrorIs(t, err, signedurl.ErrForbidden)
		require.ErrorContains(t, err, "later version")
	}
}

// TestMixedURLsAreRefused: a URL made of parts of two valid ones is invalid.
func TestMixedURLsAreRefused(t *testing.T) {
	c := newClock()
	s := newSigner(t, signerBase, secretOf(1), &signedurl.SignerOptions{Now: c.now, BindPrincipal: true})
	var queries []url.Values
	for _, who := range []string{"alice", "bob"} {
		ctx := kms.WithPrincipal(t.Context(), kms.Principal{ID: who})
		for _, key := range []string{"a", "b"} {
			for _, o := range []driver.SignedURLOptions{
				{}, {Expiry: time.Minute}, {Method: "DELETE"}, {Method: "PUT"},
				{Method: "PUT", ContentType: "text/a"}, {Method: "PUT", ContentType: "text/b"}, {Method: "PUT", EnforceAbsentContentType: true},
			} {
				signed, err := s.SignedURL(ctx, key, &o)
				require.NoError(t, err)
				q, err := url.ParseQuery(queryOf(t, signed))
				require.NoError(t, err)
				queries = append(queries, q)
			}
		}
	}
	good := map[string]bool{}
	for _, q := range queries {
		good[q.Encode()] = true
	}
	require.Len(t, good, len(queries))
	tried := 0
	for _, x := range queries {
		for _, y := range queries {
			for _, name := range []string{"obj", "method", "expiry", "contentType", "by", "signature"} {
				mixed := url.Values{}
				for k, v := range x {
					mixed[k] = v
				}
				delete(mixed, name)
				if y.Has(name) {
					mixed[name] = y[name]
				}
				q := mixed.Encode()
				if good[q] {
					continue
				}
				_, err := s.Verify(request(mixed.Get("method"), q))
				refused := new(signedurl.RefusedError)
				require.ErrorAs(t, err, &refused, q)
				require.Equal(t, signedurl.CodeSignature, refused.Code, q)
				tried++
			}
		}
	}
	require.Greater(t, tried, 1000)
}

// TestFieldsAreFramed: bytes that move from one field to the next change the
// signature.
func TestFieldsAreFramed(t *testing.T) {
	seen := map[string]string{}
	for _, base := range []string{"https://h/a", "https://h/aPUT"} {
		s := newSigner(t, base, secretOf(1), &signedurl.SignerOptions{Now: newClock().now})
		for _, key := range []string{"k", "kt", "kt/x", "PUTk"} {
			for _, contentType := range []string{"", "t/x", "t/xk"} {
				u := sign(t, s, key, "PUT", contentType)
				_, signature, _ := strings.Cut(u, "signature=")
				require.Empty(t, seen[signature])
				seen[signature] = u
			}
		}
	}
}

// FuzzVerify: only what was signed is accepted.
func FuzzVerify(f *testing.F) {
	c := newClock()
	s := newSigner(f, signerBase, secretOf(1), &signedurl.SignerOptions{Now: c.now, Accept: [][]byte{secretOf(2)}})
	signed := map[string]bool{}
	for _, opts := range []driver.SignedURLOptions{
		{}, {Method: "DELETE"}, {Method: "PUT"}, {Method: "PUT", ContentType: "text/plain"}, {Method: "PUT", EnforceAbsentContentType: true},
	} {
		for _, key := range []string{"k", "a/b c", "ü"} {
			u, err := s.SignedURL(context.Background(), key, &opts)
			require.NoError(f, err)
			parsed, err := url.Parse(u)
			require.NoError(f, err)
			signed[parsed.Query().Encode()] = true
			f.Add(opts.Method, parsed.RawQuery, opts.ContentType)
		}
	}
	f.Add("GET", "obj=k&expiry=9223372036854775807&method=GET&kid=&signature=", "")
	f.Add("GET", "%", "")
	f.Fuzz(func(t *testing.T, method, query, contentType string) {
		r := request(method, query)
		if contentType != "" {
			r.Header["Content-Type"] = []string{contentType}
		}
		p, err := s.Verify(r)
		if err != nil {
			require.ErrorIs(t, err, signedurl.ErrForbidden)
			require.Nil(t, p)
			return
		}
		fields, err := url.ParseQuery(strings.ReplaceAll(query, ";", "%3B"))
		require.NoError(t, err)
		require.True(t, signed[fields.Encode()], query)
		require.True(t, p.Method == method || p.Method == "GET" && method == "HEAD")
	})
}
