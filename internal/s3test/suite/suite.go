// Package suite has what tests of S3 and of other clouds share: above all, gocloud's
// conformance suite in processes of their own, for tests that expect failures.
package suite

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	gcblob "gocloud.dev/blob"
	"gocloud.dev/blob/driver"
)

// Driver returns the driver under b, which the conformance suite needs and gocloud does
// not export.
func Driver(b *gcblob.Bucket) driver.Bucket {
	return *(*driver.Bucket)(reflect.ValueOf(b).Elem().FieldByName("b").Addr().UnsafePointer())
}

// Features is the part of a drivertest.Harness that says what all stores can do.
type Features struct{}

func (Features) SupportsCopy() bool               { return true }
func (Features) SupportsNonSlashDelimiters() bool { return true }
func (Features) SkipDownloadAt() bool             { return false }

const childEnv = "BLOBSEAL_SUITE" // "SERVER SUBJECT"

var resultLine = regexp.MustCompile(`(?m)^ *--- (PASS|FAIL|SKIP): TestChild/(\S+) `)

// Run runs TestChild in a process of its own, for a subject on a server. It returns which
// of its tests passed, and which failed or were skipped.
func Run(t *testing.T, server, subject string) (passed, failed []string) {
	t.Helper()
	child := exec.Command(os.Args[0], "-test.run=^TestChild$", "-test.v", "-test.timeout=10m")
	child.Env = append(os.Environ(), childEnv+"="+server+" "+subject)
	out, err := child.CombinedOutput()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s", out)
		}
	})
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) {
		require.NoError(t, err)
	}
	require.NotContains(t, string(out), "panic:")
	for _, line := range resultLine.FindAllStringSubmatch(string(out), -1) {
		if line[1] == "PASS" {
			passed = append(passed, line[2])
		} else {
			failed = append(failed, line[2])
		}
	}
	require.Greater(t, len(passed), 70)
	return passed, failed
}

// Child returns the server and the subject that Run has started this process for. In any
// other process, the test skips.
func Child(t *testing.T) (server, subject string) {
	t.Helper()
	server, subject, ok := strings.Cut(os.Getenv(childEnv), " ")
	if !ok {
		t.Skip("not started by TestConformance")
	}
	return server, subject
}

// RequireObject checks the content of an object, a range of 50 bytes from off, and the size
// and metadata that the bucket says it has.
func RequireObject(t testing.TB, b *gcblob.Bucket, key string, want []byte, off int64, metadata map[string]string) {
	t.Helper()
	got, err := b.ReadAll(t.Context(), key)
	require.NoError(t, err)
	require.True(t, bytes.Equal(want, got), "%s has %d bytes, want %d", key, len(got), len(want))
	r, err := b.NewRangeReader(t.Context(), key, off, 50, nil)
	require.NoError(t, err)
	got, err = io.ReadAll(r)
	require.NoError(t, err)
	require.NoError(t, r.Close())
	require.Equal(t, want[off:off+50], got)
	attrs, err := b.Attributes(t.Context(), key)
	require.NoError(t, err)
	require.EqualValues(t, len(want), attrs.Size)
	require.Equal(t, metadata, attrs.Metadata)
	listed, err := b.List(&gcblob.ListOptions{Prefix: key}).Next(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, len(want), listed.Size)
}
