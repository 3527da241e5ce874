package s3wire_test

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/rand"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/kmstest"
	"github.com/blobseal/blobseal/sse"
	"github.com/blobseal/blobseal/sse/s3wire"
)

// bed is the server of the example, over a key service with faults. The keys are
// "default", which requests may leave out, and "photos".
type bed struct {
	fake  *kmstest.Fake
	ring  *keyring.Ring
	keys  *s3wire.Keys
	srv   *server
	tls   *httptest.Server
	plain *httptest.Server
}

func newBed(t *testing.T) *bed {
	b := &bed{fake: kmstest.NewFake("default", "photos")}
	b.fake.SetAlias("alias/aws/s3", "default")
	b.fake.SetAlias("alias/photos", "photos")
	rootKey := make([]byte, 32)
	rand.Read(rootKey)
	root, err := keyring.NewKeyRoot(rootKey)
	require.NoError(t, err)
	b.ring, err = keyring.Create(t.Context(), keyring.NewMemStore(), root, nil)
	require.NoError(t, err)
	b.keys, err = s3wire.NewKeys(s3wire.KeysOptions{Managed: sse.NewManaged(b.ring), KMS: b.fake, Accept: sse.AnyKey})
	require.NoError(t, err)
	b.srv = &server{keys: b.keys, logf: t.Logf}
	b.srv.configuration.Store(&s3wire.Configuration{AllowCustomerKeys: true})
	b.tls = httptest.NewTLSServer(b.srv)
	b.plain = httptest.NewServer(b.srv)
	t.Cleanup(func() { b.tls.Close(); b.plain.Close() })
	return b
}

// do sends a request over TLS and returns the response with its whole body.
func (b *bed) do(t *testing.T, method, path string, h http.Header, body string) (*http.Response, string) {
	return send(t, b.tls, method, path, h, body)
}

func send(t *testing.T, to *httptest.Server, method, path string, h http.Header, body string) (*http.Response, string) {
	r, err := http.NewRequestWithContext(t.Context(), method, to.URL+path, strings.NewReader(body))
	require.NoError(t, err)
	if h != nil {
		r.Header = h.Clone()
	}
	response, err := to.Client().Do(r)
	require.NoError(t, err)
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	return response, string(answer)
}

// put stores "meow" and requires success.
func (b *bed) put(t *testing.T, path string, h http.Header) http.Header {
	response, body := b.do(t, http.MethodPut, path, h, "meow")
	require.Equal(t, 200, response.StatusCode, body)
	return response.Header
}

// refused requires that a request over TLS fails with this status and code, and
// changes no object.
func (b *bed) refused(t *testing.T, status int, code string, method, path string, h http.Header) {
	t.Helper()
	b.refusedBy(t, b.tls, status, code, method, path, h)
}

func (b *bed) refusedBy(t *testing.T, to *httptest.Server, status int, code string, method, path string, h http.Header) {
	t.Helper()
	before := b.stored()
	response, body := send(t, to, method, path, h, "not stored")
	require.Equal(t, status, response.StatusCode, body)
	require.Equal(t, before, b.stored())
	require.NotContains(t, body, customerKey[:8])
	for name := range response.Header {
		require.NotContains(t, strings.ToLower(name), "encryption")
	}
	if method == http.MethodHead {
		return
	}
	var parsed struct {
		XMLName xml.Name `xml:"Error"`
		Code    string
		Message string
	}
	require.NoError(t, xml.Unmarshal([]byte(body), &parsed), body)
	require.Equal(t, code, parsed.Code, body)
	require.NotEmpty(t, parsed.Message)
}

func (b *bed) stored() map[string]string {
	all := make(map[string]string)
	b.srv.objects.Range(func(path, stored any) bool {
		all[path.(string)] = string(stored.([]byte))
		return true
	})
	return all
}

// otherKey returns the headers of a second customer key.
func otherKey() http.Header {
	key := bytes.Repeat([]byte{7}, 32)
	sum := md5.Sum(key)
	return customerHeaders(s3wire.HeaderCustomerKey, base64.StdEncoding.EncodeToString(key),
		s3wire.HeaderCustomerKeyMD5, base64.StdEncoding.EncodeToString(sum[:]))
}

// asSource returns the headers of a customer key as those of a copy's source.
func asSource(h http.Header) http.Header {
	source := make(http.Header)
	for from, to := range map[string]string{
		s3wire.HeaderCustomerAlgorithm: s3wire.HeaderSourceAlgorithm,
		s3wire.HeaderCustomerKey:       s3wire.HeaderSourceKey,
		s3wire.HeaderCustomerKeyMD5:    s3wire.HeaderSourceKeyMD5,
	} {
		source.Set(to, h.Get(from))
	}
	return source
}

const (
	invalid = "InvalidArgument"
	request = "InvalidRequest"
)

var kmsHeaders = headers(s3wire.HeaderEncryption, "aws:kms")

// TestErrorFacts has a test for each row of the table of errors: the situation, the
// code and the status. No refused request stores anything.
func TestErrorFacts(t *testing.T) {
	for row, test := range map[string]func(*testing.T){
		"SSE-C over plain HTTP": factPlainHTTP,
		"SSE-C algorithm other than AES256 or missing; key missing; MD5 missing; MD5 ≠ key; key not 32 bytes or not base64": factCustomerHeaders,
		"SSE-C together with SSE-S3/KMS headers": factCustomerAndOthers,
		"`AES256` + key id; unknown algorithm value (`aes:kms`); key id without algorithm; context with AES256": factKMSHeaders,
		"GET/HEAD of an SSE-C object without its key":                                                           factWithoutKey,
		"wrong SSE-C key": factWrongKey,
		"SSE-C headers on an object that is not SSE-C":         factSuperfluousKey,
		"self-copy to rotate with a wrong source key":          factSelfCopyKey,
		"copy to self that changes nothing":                    factSelfCopy,
		"a part whose SSE parameters differ from the upload's": factPart,
		"no bucket encryption configuration (GET)":             factNoConfiguration,
		"policy denial; SSE-C blocked":                         factPolicy,
	} {
		t.Run(row, test)
	}
	for row, c := range map[string]struct {
		status int
		code   string
		fault  func(*bed)
	}{
		"KMS key unknown":                         {400, "KMS.NotFoundException", func(b *bed) { b.fake.RemoveKey("photos") }},
		"KMS key disabled":                        {400, "KMS.DisabledException", func(b *bed) { b.fake.Disable("photos") }},
		"KMS key pending deletion or import":      {400, "KMS.KMSInvalidStateException", func(b *bed) { b.fake.ScheduleDeletion("photos") }},
		"KMS down":                                {503, "ServiceUnavailable", func(b *bed) { b.fake.Fail(kms.ErrUnavailable, -1) }},
		"KMS does not answer within the deadline": {503, "ServiceUnavailable", func(b *bed) { b.fake.Fail(context.DeadlineExceeded, -1) }},
	} {
		t.Run(row, func(t *testing.T) {
			b := newBed(t)
			h := headers(s3wire.HeaderEncryption, "aws:kms", s3wire.HeaderKeyID, "photos")
			b.put(t, "/b/k", h)
			c.fault(b)
			b.refused(t, c.status, c.code, http.MethodPut, "/b/k", h)
			b.refused(t, c.status, c.code, http.MethodGet, "/b/k", nil)
			b.refused(t, c.status, c.code, http.MethodHead, "/b/k", nil)
		})
	}
}

func factPlainHTTP(t *testing.T) {
	b := newBed(t)
	b.put(t, "/b/c", customerHeaders())
	for _, method := range []string{http.MethodPut, http.MethodGet, http.MethodHead} {
		b.refusedBy(t, b.plain, 400, request, method, "/b/c", customerHeaders())
	}
	_, err := s3wire.ParseCopySource(asSource(customerHeaders()).Values, false)
	requireCode(t, request, err)
	_, err = s3wire.ParsePart(customerHeaders().Values, false)
	requireCode(t, request, err)
}

func factCustomerHeaders(t *testing.T) {
	b := newBed(t)
	b.put(t, "/b/c", customerHeaders())
	short := base64.StdEncoding.EncodeToString(make([]byte, 31))
	long := base64.StdEncoding.EncodeToString(make([]byte, 33))
	for name, h := range map[string]http.Header{
		"algorithm other":   customerHeaders(s3wire.HeaderCustomerAlgorithm, "aws:kms"),
		"algorithm missing": customerHeaders(s3wire.HeaderCustomerAlgorithm, "-"),
		"key missing":       customerHeaders(s3wire.HeaderCustomerKey, "-"),
		"key empty":         customerHeaders(s3wire.HeaderCustomerKey, ""),
		"MD5 missing":       customerHeaders(s3wire.HeaderCustomerKeyMD5, "-"),
		"MD5 not the key's": customerHeaders(s3wire.HeaderCustomerKeyMD5, "AAAAAAAAAAAAAAAAAAAAAA=="),
		"key of 31 bytes":   customerHeaders(s3wire.HeaderCustomerKey, short),
		"key of 33 bytes":   customerHeaders(s3wire.HeaderCustomerKey, long),
		"key not base64":    customerHeaders(s3wire.HeaderCustomerKey, "%%%"),
		"only the MD5":      headers(s3wire.HeaderCustomerKeyMD5, customerMD5),
	} {
		t.Run(name, func(t *testing.T) {
			for _, method := range []string{http.MethodPut, http.MethodGet, http.MethodHead} {
				b.refused(t, 400, invalid, method, "/b/c", h)
			}
			_, err := s3wire.ParsePart(h.Values, true)
			requireCode(t, invalid, err)
			source := make(http.Header)
			for name, values := range h {
				source["X-Amz-Copy-Source"+strings.TrimPrefix(name, "X-Amz")] = values
			}
			_, err = s3wire.ParseCopySource(source.Values, true)
			requireCode(t, invalid, err)
		})
	}
}

func factCustomerAndOthers(t *testing.T) {
	b := newBed(t)
	b.refused(t, 400, invalid, http.MethodPut, "/b/c", customerAdded(s3wire.HeaderEncryption, "AES256"))
	b.refused(t, 400, invalid, http.MethodPut, "/b/c", customerAdded(s3wire.HeaderEncryption, "aws:kms"))
	b.refused(t, 400, invalid, http.MethodPut, "/b/c", customerAdded(s3wire.HeaderKeyID, "photos"))
}

func factKMSHeaders(t *testing.T) {
	b := newBed(t)
	for name, h := range map[string]http.Header{
		"AES256 and a key id":      headers(s3wire.HeaderEncryption, "AES256", s3wire.HeaderKeyID, "photos"),
		"unknown algorithm":        headers(s3wire.HeaderEncryption, "aes:kms"),
		"key id without algorithm": headers(s3wire.HeaderKeyID, "photos"),
		"context with AES256":      headers(s3wire.HeaderEncryption, "AES256", s3wire.HeaderContext, encoded(`{"a":"b"}`)),
	} {
		t.Run(name, func(t *testing.T) { b.refused(t, 400, invalid, http.MethodPut, "/b/k", h) })
	}
}

func factWithoutKey(t *testing.T) {
	b := newBed(t)
	b.put(t, "/b/c", customerHeaders())
	b.refused(t, 400, request, http.MethodGet, "/b/c", nil)
	b.refused(t, 400, request, http.MethodHead, "/b/c", nil)
}

func factWrongKey(t *testing.T) {
	b := newBed(t)
	b.put(t, "/b/c", customerHeaders())
	b.refused(t, 403, "AccessDenied", http.MethodGet, "/b/c", otherKey())
	b.refused(t, 403, "AccessDenied", http.MethodHead, "/b/c", otherKey())
}

func factSuperfluousKey(t *testing.T) {
	b := newBed(t)
	b.put(t, "/b/s3", nil)
	b.put(t, "/b/kms", kmsHeaders)
	b.fake.Forget()
	for _, path := range []string{"/b/s3", "/b/kms"} {
		b.refused(t, 400, request, http.MethodGet, path, customerHeaders())
		b.refused(t, 400, request, http.MethodHead, path, customerHeaders())
	}
	require.Zero(t, b.fake.Count(), "the key service was asked")
}

func factSelfCopyKey(t *testing.T) {
	b := newBed(t)
	b.put(t, "/b/c", customerHeaders())
	source, err := s3wire.ParseCopySource(asSource(otherKey()).Values, true)
	require.NoError(t, err)
	_, err = b.open(t, "/b/c", b.keys.ForRead(source))
	requireCode(t, "AccessDenied", err) // of a copy to another name
	source.SelfCopy = true
	_, err = b.open(t, "/b/c", b.keys.ForRead(source))
	requireCode(t, invalid, err)
	require.Equal(t, 400, s3wire.FromError(err).Status())
}

func factSelfCopy(t *testing.T) {
	w, err := s3wire.ParseWrite(headers().Values, true)
	require.NoError(t, err)
	err = s3wire.CheckSelfCopy(w, false)
	requireCode(t, request, err)
	require.Equal(t, 400, s3wire.FromError(err).Status())
	require.NoError(t, s3wire.CheckSelfCopy(w, true))
	for _, h := range []http.Header{headers(s3wire.HeaderEncryption, "AES256"), customerHeaders()} {
		w, err := s3wire.ParseWrite(h.Values, true)
		require.NoError(t, err)
		require.NoError(t, s3wire.CheckSelfCopy(w, false))
	}
}

func factPart(t *testing.T) {
	b := newBed(t)
	obj := sse.Object{Bucket: "b", Key: "k"}
	for name, upload := range map[string]http.Header{"SSE-S3": nil, "SSE-KMS": kmsHeaders, "SSE-C": customerHeaders()} {
		t.Run(name, func(t *testing.T) {
			w, err := s3wire.ParseWrite(upload.Values, true)
			require.NoError(t, err)
			cipher, err := b.keys.ForWrite(w, b.srv.configuration.Load())
			require.NoError(t, err)
			m, err := sse.StartMultipart(t.Context(), cipher, obj)
			require.NoError(t, err)
			state, err := m.State(t.Context(), nil)
			require.NoError(t, err)
			for _, part := range []http.Header{nil, customerHeaders(), otherKey()} {
				q, err := s3wire.ParsePart(part.Values, true)
				require.NoError(t, err)
				_, err = sse.OpenMultipart(t.Context(), b.keys.ForRead(q), obj, state)
				if part.Get(s3wire.HeaderCustomerKey) == upload.Get(s3wire.HeaderCustomerKey) {
					require.NoError(t, err)
					continue
				}
				requireCode(t, request, err)
				require.Equal(t, 400, s3wire.FromError(err).Status())
			}
			_, err = s3wire.ParsePart(headers(s3wire.HeaderEncryption, "AES256").Values, true)
			requireCode(t, invalid, err)
		})
	}
}

func factNoConfiguration(t *testing.T) {
	b := newBed(t)
	b.srv.configuration.Store(nil)
	b.refused(t, 404, "ServerSideEncryptionConfigurationNotFoundError", http.MethodGet, "/b?encryption", nil)
	response, _ := b.do(t, http.MethodDelete, "/b?encryption", nil, "")
	require.Equal(t, 204, response.StatusCode)
}

func factPolicy(t *testing.T) {
	t.Run("policy denial", func(t *testing.T) {
		e := s3wire.FromError(errors.Join(errors.New("policy"), coded("AccessDenied")))
		require.Equal(t, "AccessDenied", e.Code)
		require.Equal(t, 403, e.Status())
	})
	t.Run("SSE-C blocked", func(t *testing.T) {
		b := newBed(t)
		b.put(t, "/b/old", customerHeaders())
		for _, c := range []*s3wire.Configuration{nil, {}} {
			b.srv.configuration.Store(c)
			b.refused(t, 403, "AccessDenied", http.MethodPut, "/b/new", customerHeaders())
			response, body := b.do(t, http.MethodGet, "/b/old", customerHeaders(), "")
			require.Equal(t, 200, response.StatusCode)
			require.Equal(t, "meow", body)
		}
	})
	t.Run("key policy", func(t *testing.T) {
		b := newBed(t)
		b.put(t, "/b/k", kmsHeaders)
		b.fake.Deny(kms.Principal{ID: "alice"}, kms.OpDecrypt, kms.OpGenerateDataKey)
		b.refused(t, 403, "AccessDenied", http.MethodPut, "/b/k", kmsHeaders)
		b.refused(t, 403, "AccessDenied", http.MethodGet, "/b/k", nil)
	})
}

// coded is an error of a package above.
type coded string

func (c coded) Error() string  { return "coded as " + string(c) }
func (c coded) S3Code() string { return string(c) }

// open opens a stored object with an opener.
func (b *bed) open(t *testing.T, path string, opener sse.Decrypter) (io.Reader, error) {
	stored, ok := b.srv.objects.Load(path)
	require.True(t, ok, path)
	bucket, key, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	return sse.NewReader(t.Context(), bytes.NewReader(stored.([]byte)), opener, sse.Object{Bucket: bucket, Key: key})
}
