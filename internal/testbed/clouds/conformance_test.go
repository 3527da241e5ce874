package clouds

import (
	"context"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	gcblob "gocloud.dev/blob"
	"gocloud.dev/blob/driver"
	"gocloud.dev/blob/drivertest"
)

// driverOf returns the driver under b, which gocloud's suite wants and does not export.
func driverOf(b *gcblob.Bucket) driver.Bucket {
	return *(*driver.Bucket)(reflect.ValueOf(b).Elem().FieldByName("b").Addr().UnsafePointer())
}

// harness runs gocloud's conformance suite on what wrap makes of an emulator's buckets.
type harness struct {
	server *server
	open   func(t testing.TB) *gcblob.Bucket
	wrap   func(t testing.TB, inner *gcblob.Bucket) *gcblob.Bucket
	t      testing.TB
}

func (h *harness) MakeDriver(context.Context) (driver.Bucket, error) {
	return driverOf(h.wrap(h.t, h.open(h.t))), nil
}

func (h *harness) MakeDriverForNonexistentBucket(context.Context) (driver.Bucket, error) {
	return driverOf(h.wrap(h.t, h.server.opened(h.t, "no-such-bucket"))), nil
}

func (h *harness) HTTPClient() *http.Client         { return http.DefaultClient }
func (h *harness) SupportsCopy() bool               { return true }
func (h *harness) SupportsNonSlashDelimiters() bool { return true }
func (h *harness) SkipDownloadAt() bool             { return false }
func (h *harness) Close()                           {}

const childEnv = "CLOUDS_CHILD" // "SERVER SUBJECT"

// subjects are the bare bucket and each way to encrypt it.
func subjects() []string {
	names := []string{"bare"}
	for _, m := range modes {
		names = append(names, m.name)
	}
	return names
}

// TestConformance runs gocloud's suite in each mode. Only what fails on the bare
// bucket may fail on the encrypted one. Since failures are expected, each run is a
// process of its own.
func TestConformance(t *testing.T) {
	eachServer(t, func(t *testing.T, s *server) {
		_, bareFails := runSuite(t, s.name, "bare")
		t.Logf("bare: fails %v", bareFails)
		for _, name := range subjects()[1:] {
			t.Run(name, func(t *testing.T) {
				passed, failed := runSuite(t, s.name, name)
				for _, test := range failed {
					require.Contains(t, bareFails, test, "fails encrypted, passes bare")
				}
				require.Greater(t, len(passed), 70)
				t.Logf("%d pass, %d fail as they do bare", len(passed), len(failed))
			})
		}
	})
}

var resultLine = regexp.MustCompile(`(?m)^ *--- (PASS|FAIL|SKIP): TestChild/(\S+) `)

// runSuite runs the suite in a process and returns which of its tests passed, and
// which did not.
func runSuite(t *testing.T, server, subject string) (passed, failed []string) {
	child := exec.Command(os.Args[0], "-test.run=^TestChild$", "-test.v", "-test.timeout=10m")
	child.Env = append(os.Environ(), childEnv+"="+server+" "+subject)
	out, err := child.CombinedOutput()
	var exit *exec.ExitError
	require.True(t, err == nil || errors.As(err, &exit), "%v", err)
	require.NotContains(t, string(out), "panic:", "%s", out)
	for _, line := range resultLine.FindAllStringSubmatch(string(out), -1) {
		if line[1] == "PASS" {
			passed = append(passed, line[2])
		} else {
			failed = append(failed, line[2])
		}
	}
	require.NotEmpty(t, passed, "%s", out)
	slices.Sort(failed)
	return passed, failed
}

// TestChild is the process that TestConformance starts.
func TestChild(t *testing.T) {
	on, name, ok := strings.Cut(os.Getenv(childEnv), " ")
	if !ok {
		t.Skip("not started by TestConformance")
	}
	wrap := func(_ testing.TB, inner *gcblob.Bucket) *gcblob.Bucket { return inner }
	for _, m := range modes {
		if m.name == name {
			wrap = func(t testing.TB, inner *gcblob.Bucket) *gcblob.Bucket { return m.bucket(t, inner).Bucket }
		}
	}
	for _, start := range servers {
		if start.name != on {
			continue
		}
		s := start.start(t)
		drivertest.RunConformanceTests(t, func(_ context.Context, t *testing.T) (drivertest.Harness, error) {
			return &harness{server: s, open: s.newBucket(t), wrap: wrap, t: t}, nil
		}, nil)
	}
}
