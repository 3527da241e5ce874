package s3test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"

	"github.com/aws/aws-sdk-go-v2/feature/s3/transfermanager"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	s3types "github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"
	"github.com/stretchr/testify/require"
	gcblob "gocloud.dev/blob"
	"gocloud.dev/blob/driver"
	"gocloud.dev/blob/drivertest"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/blob/signedurl"
	"github.com/blobseal/blobseal/blob/stored"
	"github.com/blobseal/blobseal/internal/s3test/suite"
	"github.com/blobseal/blobseal/sse"
)

// harness is a harness of gocloud's conformance suite.
type harness struct {
	suite.Features
	open   func(missing bool) *gcblob.Bucket
	client *http.Client
	close  func()
}

func (h *harness) MakeDriver(context.Context) (driver.Bucket, error) {
	return suite.Driver(h.open(false)), nil
}

func (h *harness) MakeDriverForNonexistentBucket(context.Context) (driver.Bucket, error) {
	return suite.Driver(h.open(true)), nil
}

func (h *harness) HTTPClient() *http.Client { return h.client }
func (h *harness) Close()                   { h.close() }

// bare returns a harness of s3blob itself.
func bare(t *testing.T, s *server) *harness {
	name := s.newBucket(t)
	return &harness{
		open: func(missing bool) *gcblob.Bucket {
			if missing {
				return s.open(t, "no-such-bucket", nil)
			}
			return s.open(t, name, nil)
		},
		client: &http.Client{Transport: s.base},
		close:  func() {},
	}
}

// sealed returns a harness of a bucket that encrypts, with a signer and its handler.
func sealed(t *testing.T, s *server, cipher sse.Cipher, opts blob.Options) *harness {
	h := bare(t, s)
	openInner := h.open
	shared := share(t, func(signer *signedurl.Signer) *gcblob.Bucket {
		opts.Signer = signer
		return encrypted(t, openInner(false), cipher, &opts).Bucket
	})
	h.open = func(missing bool) *gcblob.Bucket { return encrypted(t, openInner(missing), cipher, &opts).Bucket }
	h.client, h.close = shared.Client(), shared.Close
	return h
}

// share serves the signed URLs of the bucket that open makes with a signer.
func share(t *testing.T, open func(*signedurl.Signer) *gcblob.Bucket) *httptest.Server {
	var handler http.Handler
	shared := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { handler.ServeHTTP(w, r) }))
	base, err := url.Parse(shared.URL + "/shared")
	require.NoError(t, err)
	signer, err := signedurl.NewSigner(base, bytes.Repeat([]byte{9}, 32), nil)
	require.NoError(t, err)
	handler = signedurl.NewHandler(open(signer), signer, &signedurl.HandlerOptions{Logger: slog.New(slog.DiscardHandler)})
	return shared
}

// subjects are the buckets under test: s3blob's own, to find the failures that the server
// causes, and ours.
var subjects = append([]subject{{"bare", bare}}, func() (list []subject) {
	for _, m := range modes {
		list = append(list, subject{m.name, func(t *testing.T, s *server) *harness {
			return sealed(t, s, m.cipher(t), blob.Options{Policy: m.policy})
		}})
	}
	return append(list, subject{"mixed", func(t *testing.T, s *server) *harness {
		return sealed(t, s, modes[0].cipher(t), blob.Options{AllowPlain: true})
	}})
}()...)

type subject struct {
	name    string
	harness func(t *testing.T, s *server) *harness
}

func (b subject) run(t *testing.T, s *server) {
	drivertest.RunConformanceTests(t, func(_ context.Context, t *testing.T) (drivertest.Harness, error) {
		return b.harness(t, s), nil
	}, []drivertest.AsTest{types{sealed: b.name != "bare"}})
}

// limit is a test of gocloud's suite that a server cannot pass.
type limit struct {
	why string

	// spares: it is about a request that ours do not make, so that they pass.
	spares bool
}

// limits are the limits of each server. Each must fail on the bare bucket, too.
var limits = map[string]map[string]limit{
	"gofakes3": {
		"TestAttributes":   {why: "it forgets Cache-Control and Content-Language"},
		"TestKeys":         {why: "it has TestKeys/ascii-4", spares: true},
		"TestKeys/ascii-4": {why: "it does not find the source of a CopyObject with this key", spares: true},
		"TestSignedURL":    {why: "it does not verify signatures", spares: true},
	},
	"versitygw": {
		"TestListWeirdKeys": {why: "a key that ends with a slash is a directory, and cannot have content"},
		"TestKeys/ascii-3":  {why: "the same"},
		"TestKeys":          {why: "it has TestKeys/ascii-3"},
	},
}

// TestConformance runs gocloud's own suite in each mode, with signed URLs. Every test passes,
// except for the limits of the server. Since these must fail, each run is a process of its
// own.
func TestConformance(t *testing.T) {
	eachServer(t, func(t *testing.T, s *server) {
		for _, subject := range subjects {
			t.Run(subject.name, func(t *testing.T) {
				passed, failed := suite.Run(t, s.name, subject.name)
				var want []string
				for name, limit := range limits[s.name] {
					if subject.name == "bare" || !limit.spares {
						want = append(want, name)
					}
				}
				require.ElementsMatch(t, want, failed)
				require.Greater(t, len(passed), 80)
				t.Logf("%d tests passed, %d limits", len(passed), len(failed))
			})
		}
	})
}

// TestChild is the other half of TestConformance.
func TestChild(t *testing.T) {
	on, name := suite.Child(t)
	for _, s := range servers {
		for _, subject := range subjects {
			if s.name == on && subject.name == name {
				subject.run(t, s.start(t))
			}
		}
	}
}

// types checks that As of our buckets gives the types that s3blob's gives, and our own.
type types struct{ sealed bool }

func (types) Name() string { return "types" }

func has[T any](as func(any) bool) error {
	if as(new(T)) {
		return nil
	}
	return fmt.Errorf("As does not give %T", *new(T))
}

func (c types) ours(check error) error {
	if !c.sealed {
		return nil
	}
	return check
}

func (c types) BucketCheck(b *gcblob.Bucket) error {
	return errors.Join(has[*s3.Client](b.As), c.ours(has[*blob.Bucket](b.As)))
}

func (types) ErrorCheck(b *gcblob.Bucket, err error) error {
	var api smithy.APIError
	if !b.ErrorAs(err, &api) {
		return errors.New("ErrorAs does not give the API's error")
	}
	return nil
}

func (c types) BeforeRead(as func(any) bool) error {
	return errors.Join(has[*s3.GetObjectInput](as), has[*[]func(*s3.Options)](as))
}

func (c types) BeforeWrite(as func(any) bool) error {
	return errors.Join(c.ours(has[*sse.Envelope](as)), has[*transfermanager.UploadObjectInput](as), has[*transfermanager.Client](as))
}

// BeforeCopy: a copy of ours is a write to the inner bucket.
func (c types) BeforeCopy(as func(any) bool) error {
	if !c.sealed {
		return has[*s3.CopyObjectInput](as)
	}
	return has[*transfermanager.UploadObjectInput](as)
}

func (types) BeforeDelete(as func(any) bool) error { return has[*s3.DeleteObjectInput](as) }
func (types) BeforeList(as func(any) bool) error   { return has[*s3.ListObjectsV2Input](as) }
func (types) BeforeSign(func(any) bool) error      { return nil }

func (c types) AttributesCheck(attrs *gcblob.Attributes) error {
	return errors.Join(has[s3.HeadObjectOutput](attrs.As), c.ours(has[stored.Hint](attrs.As)))
}

func (c types) ReaderCheck(r *gcblob.Reader) error {
	return errors.Join(has[s3.GetObjectOutput](r.As), c.ours(has[*sse.Envelope](r.As)))
}

func (types) ListObjectCheck(o *gcblob.ListObject) error {
	if o.IsDir {
		return has[s3types.CommonPrefix](o.As)
	}
	return has[s3types.Object](o.As)
}
