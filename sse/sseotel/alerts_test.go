package sseotel_test

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/sse"
)

// A simulated process runs for this long, with a scrape each minute. Faults begin at
// minute faultAt.
const (
	minutes = 100
	faultAt = 40
)

// scenario is what goes wrong, and which alerts are to fire because of that.
type scenario struct {
	name   string
	fires  []string
	minute func(t testing.TB, f *fleet, object map[sse.Mode][]byte, minute int)
}

var scenarios = []scenario{
	{"all is well", nil, func(testing.TB, *fleet, map[sse.Mode][]byte, int) {}},
	{"the ring's store cannot be written", []string{"BlobsealRotationFailing", "BlobsealRotationLate"},
		func(_ testing.TB, f *fleet, _ map[sse.Mode][]byte, minute int) {
			if minute == faultAt {
				f.ringStore.swaps.fail(errBroken)
			}
		}},
	{"the ring's store cannot be read", []string{"BlobsealKeyOperationsFailing", "BlobsealRingStale", "BlobsealRotationFailing", "BlobsealRotationLate"},
		func(t testing.TB, f *fleet, objects map[sse.Mode][]byte, minute int) {
			if minute == faultAt { // and another process rotates
				f.ringStore.fail(errBroken)
				ring, err := keyring.Open(t.Context(), &f.ringStore.Store, keyRoot(t), &keyring.Options{Logger: quiet})
				require.NoError(t, err)
				_, err = ring.Rotate(t.Context())
				require.NoError(t, err)
				objects[sse.ModeManaged] = seal(t, sse.NewManaged(ring), []byte("meow"))
			}
		}},
	{"the embedded key service's store cannot be read", []string{"BlobsealKeyServiceFailing", "BlobsealServiceStale"},
		func(_ testing.TB, f *fleet, _ map[sse.Mode][]byte, minute int) {
			if minute == faultAt {
				f.serviceStore.fail(errBroken)
			}
		}},
	{"the key service does not answer", []string{"BlobsealKeyServiceFailing"},
		func(_ testing.TB, f *fleet, _ map[sse.Mode][]byte, minute int) {
			if minute == faultAt {
				f.faulty.fail(errBroken)
			}
		}},
	{"somebody disables the key", []string{"BlobsealRefusalsRising"},
		func(t testing.TB, f *fleet, objects map[sse.Mode][]byte, minute int) {
			if minute == faultAt {
				require.NoError(t, f.service.DisableKey(t.Context(), f.service.key))
			}
			for range 10 { // a busy minute
				_, err := open(t.Context(), f.kms, objects[sse.ModeKMS])
				require.Equal(t, minute >= faultAt, err != nil)
			}
		}},
	{"the disk of the audit trail is full", []string{"BlobsealAuditFailing"},
		func(_ testing.TB, f *fleet, _ map[sse.Mode][]byte, minute int) {
			if minute == faultAt {
				f.trail.fail(errBroken)
			}
		}},
	{"the store returns other bytes", []string{"BlobsealObjectsDamaged"},
		func(t testing.TB, f *fleet, objects map[sse.Mode][]byte, minute int) {
			if minute == minutes-10 {
				damaged := bytes.Clone(objects[sse.ModeManaged])
				damaged[len(damaged)-1] ^= 1
				_, err := open(t.Context(), f.managed, damaged)
				require.ErrorIs(t, err, sse.ErrCorrupt)
			}
		}},
	{"a job hangs", []string{"BlobsealJobStuck"},
		func(_ testing.TB, f *fleet, _ map[sse.Mode][]byte, minute int) {
			if minute == faultAt {
				f.StartJob("rewrap photos")
			}
		}},
}

// simulate returns the scrapes of a process that runs the scenario, and serves some
// requests each minute.
func (s *scenario) simulate(t *testing.T) (scrapes []string) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		require.NoError(t, f.ring.SetPeriod(t.Context(), time.Hour))
		ctx, cancel := context.WithCancel(t.Context())
		defer synctest.Wait()
		defer cancel()
		go f.ring.Run(ctx)
		go f.service.Service.Run(ctx)
		objects := map[sse.Mode][]byte{}
		for _, cipher := range []sse.Cipher{f.managed, f.kms, f.customer} {
			objects[cipher.Mode()] = seal(t, cipher, []byte("meow"))
		}
		for minute := range minutes {
			s.minute(t, f, objects, minute)
			for _, cipher := range []sse.Cipher{f.managed, f.kms, f.customer} {
				_, _ = cipher.Encrypt(ctx, sse.Object{Bucket: "photos", Context: kms.Context{"minute": fmt.Sprint(minute)}})
				_, _ = open(ctx, cipher, objects[cipher.Mode()]) // what fails, counts
			}
			scrapes = append(scrapes, f.scrape())
			time.Sleep(time.Minute)
		}
	})
	return scrapes
}

var sample = regexp.MustCompile(`(?m)^(blobseal\w+)\{(.*)\} (\S+)$`)

// series returns the scrapes as input of promtool: one line of values per series.
func series(scrapes []string) string {
	values := make(map[string][]string)
	for minute, text := range scrapes {
		for _, m := range sample.FindAllStringSubmatch(text, -1) {
			if strings.HasSuffix(m[1], "_bucket") { // no rule reads them
				continue
			}
			name := fmt.Sprintf("%s{%s,job=\"photos\",instance=\"a:9090\"}", m[1], m[2])
			for len(values[name]) < minute {
				values[name] = append(values[name], "_")
			}
			values[name] = append(values[name], m[3])
		}
	}
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(values)) {
		fmt.Fprintf(&b, "      - series: '%s'\n        values: '%s'\n", name, strings.Join(values[name], " "))
	}
	return b.String()
}

// TestAlerts feeds scrapes of the real exporter to the alert rules, in the units of
// Prometheus' own tool: in each scenario, exactly its alerts fire.
func TestAlerts(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is not installed (Debian's package prometheus has it)")
	}
	rules, err := filepath.Abs("alerts.yaml")
	require.NoError(t, err)
	text, err := os.ReadFile(rules)
	require.NoError(t, err)
	covered := make(map[string]bool)
	for _, s := range scenarios {
		for _, alert := range s.fires {
			covered[alert] = true
		}
		if raceEnabled && s.name != "the ring's store cannot be read" { // ten times slower; one shows a race as well as nine
			continue
		}
		t.Run(s.name, func(t *testing.T) {
			var expected strings.Builder
			for _, alert := range s.fires {
				fmt.Fprintf(&expected, "          - {labels: '{alertname=%q}', value: 1}\n", alert)
			}
			file := filepath.Join(t.TempDir(), "test.yaml")
			require.NoError(t, os.WriteFile(file, fmt.Appendf(nil, alertTest, rules, series(s.simulate(t)), minutes-1, expected.String()), 0o600))
			out, err := exec.CommandContext(t.Context(), promtool, "test", "rules", file).CombinedOutput()
			require.NoError(t, err, "%s", out)
		})
	}
	document, err := os.ReadFile("DASHBOARD.md")
	require.NoError(t, err)
	for _, m := range regexp.MustCompile(`(?m)^ +- alert: (\w+)$`).FindAllStringSubmatch(string(text), -1) {
		require.True(t, covered[m[1]], "no scenario fires %s", m[1])
		require.Contains(t, string(document), "| `"+m[1]+"` |")
	}
}

// alertTest is a unit test of promtool: its rules, its input, and which alerts fired.
const alertTest = `rule_files: [%q]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
%s
    promql_expr_test:
      - expr: 'group by (alertname) (max_over_time(ALERTS{alertstate="firing"}[2h]))'
        eval_time: %dm
        exp_samples:
%s
`
