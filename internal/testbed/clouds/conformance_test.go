package clouds

import (
	"context"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
	gcblob "gocloud.dev/blob"
	"gocloud.dev/blob/driver"
	"gocloud.dev/blob/drivertest"

	"github.com/blobseal/blobseal/internal/s3test/suite"
)

// harness runs gocloud's conformance suite on what wrap makes of an emulator's buckets.
type harness struct {
	suite.Features
	server *server
	open   func(t testing.TB) *gcblob.Bucket
	wrap   func(t testing.TB, inner *gcblob.Bucket) *gcblob.Bucket
	t      testing.TB
}

func (h *harness) MakeDriver(context.Context) (driver.Bucket, error) {
	return suite.Driver(h.wrap(h.t, h.open(h.t))), nil
}

func (h *harness) MakeDriverForNonexistentBucket(context.Context) (driver.Bucket, error) {
	return suite.Driver(h.wrap(h.t, h.server.opened(h.t, "no-such-bucket"))), nil
}

func (h *harness) HTTPClient() *http.Client { return http.DefaultClient }
func (h *harness) Close()                   {}

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
		_, bareFails := suite.Run(t, s.name, "bare")
		t.Logf("bare: fails %v", bareFails)
		for _, name := range subjects()[1:] {
			t.Run(name, func(t *testing.T) {
				passed, failed := suite.Run(t, s.name, name)
				for _, test := range failed {
					require.Contains(t, bareFails, test, "fails encrypted, passes bare")
				}
				t.Logf("%d pass, %d fail as they do bare", len(passed), len(failed))
			})
		}
	})
}

// TestChild is the process that TestConformance starts.
func TestChild(t *testing.T) {
	on, name := suite.Child(t)
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
