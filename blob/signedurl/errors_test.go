package signedurl_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"gocloud.dev/gcerrors"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/blob/internal/blobtest"
	"github.com/blobseal/blobseal/blob/signedurl"
	"github.com/blobseal/blobseal/internal/testbed/ssetest"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/audit"
	"github.com/blobseal/blobseal/kms/kmstest"
	"github.com/blobseal/blobseal/sse"
)

// TestRefusals: the response to a refused request says why, but not whether the
// object exists. So does the log, without the signature.
func TestRefusals(t *testing.T) {
	for _, b := range newBeds(t, nil) {
		t.Run(b.name, func(t *testing.T) {
			b.write(t, "there", []byte("x"), nil)
			good := b.url(t, "there", "GET", "")
			parsed, err := url.Parse(good)
			require.NoError(t, err)
			other := newSigner(t, b.server.URL+"/shared", secretOf(9), &signedurl.SignerOptions{Now: b.clock.now})
			elsewhere := newSigner(t, b.server.URL+"/docs", secretOf(1), &signedurl.SignerOptions{Now: b.clock.now})
			onPath := func(signed string) string { return strings.Replace(signed, "/docs/", "/shared/", 1) }
			urls := map[string]string{
				"tampered":        good + "A",
				"another key":     queryWith(t, good, "obj", "not there"),
				"not there":       queryWith(t, b.url(t, "not there", "GET", ""), "expiry", "9999999999"),
				"another secret":  sign(t, other, "there", "GET", ""),
				"another base":    onPath(sign(t, elsewhere, "there", "GET", "")),
				"for put":         b.url(t, "there", "PUT", ""),
				"for delete":      b.url(t, "not there", "DELETE", ""),
				"another name":    strings.Replace(good, "/there?", "/setup.exe?", 1),
				"repeated":        good + "&obj=there",
				"no query":        strings.TrimSuffix(good, "?"+parsed.RawQuery),
				"malformed":       good + "&%zz",
				"of another time": queryWith(t, good, "expiry", "0"),
			}
			refused := func(u, code, name string) {
				got := b.do(t, "GET", u, nil)
				delete(got.header, "Date")
				require.Equal(t, answer{status: 403, header: errorHeader(code, 403), body: errorXML(code, 403)}, got, name)
			}
			for name, u := range urls {
				code := signedurl.CodeSignature
				if strings.HasPrefix(name, "for ") {
					code = signedurl.CodeMethod
				}
				refused(u, code, name)
			}
			require.Equal(t, 200, b.do(t, "GET", good, nil).status)
			missing := b.url(t, "not there", "GET", "")
			b.clock.advance(2 * time.Hour)
			refused(good, signedurl.CodeExpired, "expired")
			refused(missing, signedurl.CodeExpired, "expired, and not there")
			for _, why := range []string{
				"level=INFO", "method=GET key=there status=403 code=RequestExpired", "URL expired at 2026-03-04 06:06:08",
				"URL was changed", "unknown secret", "URL is not signed", "URL is for PUT", "repeats a parameter", "malformed", "file name",
			} {
				require.Contains(t, b.log.String(), why)
			}
			require.NotContains(t, b.log.String(), "signature=")
			require.NotContains(t, b.log.String(), parsed.Query().Get("signature"))
		})
	}
}

// TestErrorsBeforeTheFirstByte: an error before the first byte has a status and a
// code of its own, and tells the client nothing else.
func TestErrorsBeforeTheFirstByte(t *testing.T) {
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
					code := got.header[signedurl.ErrorCodeHeader]
					require.NotEmpty(t, code)
					require.Equal(t, answer{status: tc.status, header: errorHeader(code, tc.status), body: errorXML(code, tc.status)}, got)
				}
				_, _, readers := s.state()
				require.Zero(t, readers)
				require.Contains(t, b.log.String(), "10.0.0.1")
				require.Equal(t, tc.status >= 500, strings.Contains(b.log.String(), "level=ERROR"))
			})
		}
	}
}

// TestKeyServiceErrors serves an encrypted bucket whose key service fails in every
// way.
func TestKeyServiceErrors(t *testing.T) {
	fake := kmstest.NewFake("key")
	cipher, err := sse.NewKMS(fake, "key", nil)
	require.NoError(t, err)
	b := newEncrypted(t, "encrypted", blobtest.NewMem(t), cipher, nil)
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
			}
			require.Equal(t, 200, b.do(t, "HEAD", get, nil).status) // which needs no key
			require.Equal(t, tc.status, b.do(t, "PUT", put, strings.NewReader("x")).status)
			tc.unset()
			require.False(t, b.has(t, "new"))
		})
	}
}

// TestCustomerObjectsAreRefused: a URL brings no key for an SSE-C object.
func TestCustomerObjectsAreRefused(t *testing.T) {
	inner := blobtest.NewMem(t)
	theirs := blobtest.NewBucketWith(t, inner, ssetest.NewCustomer(t, 1), &blob.Options{Policy: blob.Policy{AllowCustomerKeys: true}})
	require.NoError(t, theirs.WriteAll(t.Context(), "k", []byte("content"), nil))
	b := newEncrypted(t, "encrypted", inner, sse.NewManaged(blobtest.NewRing(t)), nil)
	require.Equal(t, 400, b.do(t, "GET", b.url(t, "k", "GET", ""), nil).status)
}
