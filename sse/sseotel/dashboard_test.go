package sseotel_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// dashboard is what the test reads of dashboard.json.
type dashboard struct {
	Panels []struct {
		ID      int
		Type    string
		Title   string
		GridPos struct{ X, Y, W, H int }
		Targets []struct{ Expr, LegendFormat string }
	}
}

var (
	metricName = regexp.MustCompile(`\bblobseal_\w+?(_count|_bucket|_sum)?\s*[{\[]`)
	labelName  = regexp.MustCompile(`\{\{(\w+)\}\}`)
)

// TestDashboard: the panels do not overlap, their queries parse, and read metrics and
// labels that METRICS.md has. It is long because it looks at each panel once, for all
// faults.
func TestDashboard(t *testing.T) {
	text, err := os.ReadFile("dashboard.json")
	require.NoError(t, err)
	var d dashboard
	require.NoError(t, json.Unmarshal(text, &d))

	known := make(map[string]bool)
	for _, row := range table(t, "Metrics", "metric") {
		known[names(row[2])[0]] = true
	}
	labels := map[string]bool{"instance": true}
	for name := range table(t, "Attributes", "attribute") {
		labels[strings.ReplaceAll(name, ".", "_")] = true
	}
	taken, ids, used := make(map[[2]int]string), make(map[int]bool), make(map[string]bool)
	rules := "groups:\n  - name: dashboard\n    rules:\n"
	for _, p := range d.Panels {
		require.False(t, ids[p.ID], p.Title)
		ids[p.ID] = true
		for x := range p.GridPos.W {
			for y := range p.GridPos.H {
				at := [2]int{p.GridPos.X + x, p.GridPos.Y + y}
				require.Empty(t, taken[at], "%s and %s overlap", p.Title, taken[at])
				taken[at] = p.Title
			}
		}
		require.Equal(t, p.Type == "row", len(p.Targets) == 0, p.Title)
		for _, target := range p.Targets {
			for _, m := range metricName.FindAllString(target.Expr, -1) {
				name := strings.TrimRight(m, "{[ ")
				for _, suffix := range []string{"_count", "_bucket", "_sum"} {
					name = strings.TrimSuffix(name, suffix)
				}
				require.True(t, known[name], "%s reads %s", p.Title, name)
				used[name] = true
			}
			for _, m := range labelName.FindAllStringSubmatch(target.LegendFormat, -1) {
				require.True(t, labels[m[1]], "%s names the label %s", p.Title, m[1])
			}
			expr := strings.ReplaceAll(target.Expr, "$__rate_interval", "5m")
			rules += fmt.Sprintf("      - record: x%d\n        expr: %q\n", p.ID, expr)
		}
	}
	for name := range known {
		switch name { // which others imply
		case "blobseal_kms_cache_entries", "blobseal_localkms_refreshes_total", "blobseal_localkms_rotations_total",
			"blobseal_job_active", "blobseal_job_bytes", "blobseal_job_runs_total":
			continue
		}
		require.True(t, used[name], "no panel shows %s", name)
	}

	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is not installed (Debian's package prometheus has it)")
	}
	file := filepath.Join(t.TempDir(), "rules.yaml")
	require.NoError(t, os.WriteFile(file, []byte(rules), 0o600))
	out, err := exec.CommandContext(t.Context(), promtool, "check", "rules", file).CombinedOutput()
	require.NoError(t, err, "%s", out)
}
