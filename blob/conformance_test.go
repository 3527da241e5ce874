package blob_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	gcblob "gocloud.dev/blob"
	"gocloud.dev/blob/driver"
	"gocloud.dev/blob/drivertest"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/blob/internal/blobtest"
	"github.com/blobseal/blobseal/blob/signedurl"
	"github.com/blobseal/blobseal/blob/stored"
	"github.com/blobseal/blobseal/sse"
)

// harness is for gocloud's conformance suite.
type harness struct {
	inner  *gcblob.Bucket
	cipher sse.Cipher
	opts   blob.Options
	server *httptest.Server
}

func newHarness(t *testing.T, inner *gcblob.Bucket, cipher sse.Cipher, opts blob.Options) *harness {
	h := &harness{inner: inner, cipher: cipher, opts: opts}
	var handler http.Handler
	h.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { handler.ServeHTTP(w, r) }))
	base, err := url.Parse(h.server.URL + "/shared")
	require.NoError(t, err)
	signer, err := signedurl.NewSigner(base, bytes.Repeat([]byte{9}, 32), nil)
	require.NoError(t, err)
	h.opts.Signer = signer
	handler = signedurl.NewHandler(blobtest.NewBucketWith(t, inner, cipher, &h.opts).Bucket, signer, &signedurl.HandlerOptions{Logger: slog.New(slog.DiscardHandler)})
	return h
}

func (h *harness) MakeDriver(context.Context) (driver.Bucket, error) {
	b, err := blob.NewBucket(h.inner, "photos", h.cipher, &h.opts)
	if err != nil {
		return nil, err
	}
	return blob.Driver(b), nil
}

func (h *harness) MakeDriverForNonexistentBucket(context.Context) (driver.Bucket, error) {
	return nil, nil
}

func (h *harness) HTTPClient() *http.Client         { return h.server.Client() }
func (h *harness) SupportsCopy() bool               { return true }
func (h *harness) SupportsNonSlashDelimiters() bool { return true }
func (h *harness) SkipDownloadAt() bool             { return false }
func (h *harness) Close()                           { h.server.Close() }

// TestConformance runs gocloud's suite over each store, in each mode, in encrypted and in
// mixed buckets.
func TestConformance(t *testing.T) {
	for _, store := range blobtest.Stores {
		for _, mode := range blobtest.Modes {
			for _, mixed := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/%s/mixed=%v", store.Name, mode.Name, mixed), func(t *testing.T) {
					drivertest.RunConformanceTests(t, func(_ context.Context, t *testing.T) (drivertest.Harness, error) {
						return newHarness(t, store.Open(t), mode.Cipher(t), blob.Options{Policy: mode.Policy, AllowPlain: mixed}), nil
					}, []drivertest.AsTest{ourTypes{}, innerTypes{file: store.Name == "file"}})
				})
			}
		}
	}
}

// ourTypes checks the types of this package that As gives.
type ourTypes struct{}

func (ourTypes) Name() string { return "our types" }

func checkAs(ok bool, what string) error {
	if !ok {
		return errors.New("As does not give " + what)
	}
	return nil
}

func (ourTypes) BucketCheck(b *gcblob.Bucket) error {
	var ours *blob.Bucket
	return checkAs(b.As(&ours) && ours.Name() == "photos", "the bucket")
}

func (ourTypes) ErrorCheck(*gcblob.Bucket, error) error { return nil }

func (ourTypes) BeforeRead(func(any) bool) error { return nil }

func (ourTypes) BeforeWrite(as func(any) bool) error {
	var env *sse.Envelope
	return checkAs(as(&env) && env != nil, "the Envelope")
}

func (ourTypes) BeforeCopy(func(any) bool) error   { return nil }
func (ourTypes) BeforeDelete(func(any) bool) error { return nil }
func (ourTypes) BeforeList(func(any) bool) error   { return nil }
func (ourTypes) BeforeSign(func(any) bool) error   { return nil }

func (ourTypes) AttributesCheck(attrs *gcblob.Attributes) error {
	var hint stored.Hint
	return checkAs(attrs.As(&hint) && hint.EnvelopeSize == blob.DefaultEnvelopeSize, "the Hint")
}

func (ourTypes) ReaderCheck(r *gcblob.Reader) error {
	var env *sse.Envelope
	return checkAs(r.As(&env) && env.Size() == blob.DefaultEnvelopeSize, "the envelope")
}

func (ourTypes) ListObjectCheck(*gcblob.ListObject) error { return nil }

// innerTypes checks the types of the inner bucket that As gives.
type innerTypes struct{ file bool }

func (innerTypes) Name() string { return "types of the inner bucket" }

func (s innerTypes) check(as func(any) bool, i any) error {
	if as(i) != s.file {
		return fmt.Errorf("As gives %T: %v, want %v", i, !s.file, s.file)
	}
	return nil
}

func (s innerTypes) BucketCheck(b *gcblob.Bucket) error { return s.check(b.As, new(os.FileInfo)) }

func (s innerTypes) ErrorCheck(b *gcblob.Bucket, err error) error {
	return s.check(func(i any) bool { return b.ErrorAs(err, i) }, new(*os.PathError))
}

func (s innerTypes) BeforeRead(as func(any) bool) error  { return s.check(as, new(*os.File)) }
func (s innerTypes) BeforeWrite(as func(any) bool) error { return s.check(as, new(*os.File)) }
func (s innerTypes) BeforeCopy(as func(any) bool) error  { return s.check(as, new(*os.File)) }
func (innerTypes) BeforeDelete(func(any) bool) error     { return nil }
func (innerTypes) BeforeList(func(any) bool) error       { return nil }
func (innerTypes) BeforeSign(func(any) bool) error       { return nil }

func (s innerTypes) AttributesCheck(attrs *gcblob.Attributes) error {
	return s.check(attrs.As, new(os.FileInfo))
}

func (s innerTypes) ReaderCheck(r *gcblob.Reader) error { return nil }

func (s innerTypes) ListObjectCheck(o *gcblob.ListObject) error {
	return s.check(o.As, new(os.FileInfo))
}
