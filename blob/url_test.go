package blob_test

import (
	"bytes"
	"context"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	gcblob "gocloud.dev/blob"
	"gocloud.dev/blob/driver"
	"gocloud.dev/blob/drivertest"
	_ "gocloud.dev/blob/fileblob"
	_ "gocloud.dev/blob/memblob"

	"github.com/blobseal/blobseal/blob"
	_ "github.com/blobseal/blobseal/blob/bloburl"
)

// urlHarness opens one bucket by its URL for gocloud's conformance suite.
type urlHarness struct{ bucket *gcblob.Bucket }

func (h urlHarness) MakeDriver(context.Context) (driver.Bucket, error) {
	var b *blob.Bucket
	h.bucket.As(&b)
	return keptOpen{blob.Driver(b)}, nil
}

// keptOpen is the driver of a bucket that the harness closes.
type keptOpen struct{ driver.Bucket }

func (keptOpen) Close() error { return nil }

func (h urlHarness) MakeDriverForNonexistentBucket(context.Context) (driver.Bucket, error) {
	return nil, nil
}
func (h urlHarness) HTTPClient() *http.Client         { return http.DefaultClient }
func (h urlHarness) SupportsCopy() bool               { return true }
func (h urlHarness) SupportsNonSlashDelimiters() bool { return true }
func (h urlHarness) SkipDownloadAt() bool             { return false }
func (h urlHarness) Close()                           { h.bucket.Close() }

// TestURLConformance runs gocloud's suite through URLs.
func TestURLConformance(t *testing.T) {
	key := filepath.Join(t.TempDir(), "customer.key")
	require.NoError(t, os.WriteFile(key, bytes.Repeat([]byte{0xf1}, 32), 0o600))
	for name, open := range map[string]func(t *testing.T) string{
		"mem":  func(*testing.T) string { return "blobseal+mem://" },
		"file": func(t *testing.T) string { return "blobseal+file://" + filepath.ToSlash(t.TempDir()) },
	} {
		t.Run(name, func(t *testing.T) {
			drivertest.RunConformanceTests(t, func(ctx context.Context, t *testing.T) (drivertest.Harness, error) {
				bucket, err := gcblob.OpenBucket(ctx, open(t)+"?name=photos&customer_key_file="+url.QueryEscape(key))
				return urlHarness{bucket}, err
			}, []drivertest.AsTest{ourTypes{}})
		})
	}
}
