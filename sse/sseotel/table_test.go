package sseotel_test

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"gocloud.dev/blob/memblob"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/sse/sseotel"
)

// table returns the rows of the table in METRICS.md whose header begins with first, as
// the columns of each, by the name in the first column.
func table(t *testing.T, section, first string) map[string][]string {
	t.Helper()
	text, err := os.ReadFile("METRICS.md")
	require.NoError(t, err)
	_, part, ok := strings.Cut(string(text), "\n## "+section+"\n")
	require.True(t, ok, section)
	_, part, ok = strings.Cut(part, "| "+first+" |")
	require.True(t, ok, first)
	rows := make(map[string][]string)
	for _, line := range strings.Split(part, "\n")[2:] {
		if !strings.HasPrefix(line, "| `") {
			break
		}
		columns := strings.Split(strings.Trim(line, "| "), " | ")
		rows[strings.Trim(columns[0], "`")] = columns[1:]
	}
	require.NotEmpty(t, rows)
	return rows
}

var quoted = regexp.MustCompile("`([^`]+)`")

// names returns what a column has in backquotes, sorted.
func names(column string) []string {
	var all []string
	for _, m := range quoted.FindAllStringSubmatch(column, -1) {
		all = append(all, m[1])
	}
	slices.Sort(all)
	return all
}

// emitted is a metric as an exporter gets it.
type emitted struct {
	kind       string
	attributes map[string]bool
}

func (e *emitted) add(set attribute.Set) {
	for _, kv := range set.ToSlice() {
		e.attributes[string(kv.Key)] = true
	}
}

func (e *emitted) columns() []string {
	var all []string
	for name := range e.attributes {
		all = append(all, name)
	}
	slices.Sort(all)
	return all
}

// describe returns the metrics of one scope.
func describe(t *testing.T, data metricdata.ScopeMetrics, all map[string]*emitted) {
	for _, m := range data.Metrics {
		e := all[m.Name]
		if e == nil {
			e = &emitted{attributes: make(map[string]bool)}
			all[m.Name] = e
		}
		switch d := m.Data.(type) {
		case metricdata.Histogram[float64]:
			e.kind = "histogram"
			for _, p := range d.DataPoints {
				e.add(p.Attributes)
			}
		case metricdata.Sum[int64]:
			e.kind = "gauge"
			if d.IsMonotonic {
				e.kind = "counter"
			}
			for _, p := range d.DataPoints {
				e.add(p.Attributes)
			}
		case metricdata.Gauge[float64]:
			e.kind = "gauge"
			for _, p := range d.DataPoints {
				e.add(p.Attributes)
			}
		default:
			require.Fail(t, "unexpected kind", "%s is %T", m.Name, d)
		}
		e.kind += ", " + m.Unit
	}
}

// TestTable: METRICS.md lists exactly the metrics, spans and attributes that there are.
func TestTable(t *testing.T) {
	reader := sdkmetric.NewManualReader()
	second := sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))
	all := make(map[string]*emitted)
	collect := func() {
		var data metricdata.ResourceMetrics
		require.NoError(t, reader.Collect(t.Context(), &data))
		for _, scope := range data.ScopeMetrics {
			require.Equal(t, sseotel.ScopeName, scope.Scope.Name)
			describe(t, scope, all)
		}
	}
	f := newFleet(t, sseotel.WithMeterProvider(second), sseotel.WithObjectNames())
	f.doEverything(t)
	f.runJob(t, collect)
	collect()

	known := table(t, "Attributes", "attribute")
	described := table(t, "Metrics", "metric")
	for name, e := range all {
		row := described[name]
		require.NotNil(t, row, "METRICS.md lacks %s", name)
		require.Equal(t, row[0], e.kind, name)
		require.Equal(t, names(row[1]), e.columns(), name)
		for attribute := range e.attributes {
			require.Contains(t, []string{"metrics", "both"}, known[attribute][0], attribute)
		}
	}
	for name := range described {
		require.Contains(t, all, name, "METRICS.md has it, nothing emits it")
	}

	spans := table(t, "Spans", "span")
	seen := make(map[string]map[string]bool)
	for _, span := range f.spans.GetSpans() {
		row := spans[span.Name]
		require.NotNil(t, row, "METRICS.md lacks %s", span.Name)
		require.Equal(t, row[0], span.SpanKind.String(), span.Name)
		if seen[span.Name] == nil {
			seen[span.Name] = make(map[string]bool)
		}
		for _, kv := range span.Attributes {
			seen[span.Name][string(kv.Key)] = true
			require.Contains(t, []string{"spans", "both"}, known[string(kv.Key)][0], kv.Key)
		}
	}
	for name, row := range spans {
		e := emitted{attributes: seen[name]}
		want := names(row[1])
		if name == "sse.Rewrap" { // none of them failed
			want = slices.DeleteFunc(want, func(s string) bool { return s == "blobseal.outcome" || s == "error.type" })
		}
		require.Equal(t, want, e.columns(), name)
	}
}

// TestPrometheusNames: the names in METRICS.md are those of a scrape.
func TestPrometheusNames(t *testing.T) {
	f := newFleet(t)
	f.doEverything(t)
	var text string
	f.runJob(t, func() { text = f.scrape() })
	text += f.scrape()
	scraped := make(map[string]bool)
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (blobseal\S+) `).FindAllStringSubmatch(text, -1) {
		scraped[m[1]] = true
	}
	for name, row := range table(t, "Metrics", "metric") {
		prometheus := names(row[2])[0]
		require.True(t, scraped[prometheus], "%s is not scraped as %s", name, prometheus)
		delete(scraped, prometheus)
	}
	require.Empty(t, scraped, "METRICS.md lacks these")
}

// TestGocloudTable: what METRICS.md says about gocloud is so.
func TestGocloudTable(t *testing.T) {
	reader := sdkmetric.NewManualReader()
	old := otel.GetMeterProvider()
	otel.SetMeterProvider(sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)))
	defer otel.SetMeterProvider(old)
	f := newFleet(t)
	bucket, err := blob.NewBucket(memblob.OpenBucket(nil), "photos", f.managed, nil)
	require.NoError(t, err)
	require.NoError(t, bucket.WriteAll(t.Context(), cat.Key, []byte("meow"), nil))
	_, err = bucket.ReadAll(t.Context(), cat.Key)
	require.NoError(t, err)

	all := make(map[string]*emitted)
	providers := make(map[string]bool)
	var data metricdata.ResourceMetrics
	require.NoError(t, reader.Collect(t.Context(), &data))
	for _, scope := range data.ScopeMetrics {
		describe(t, scope, all)
		provider, _ := scope.Scope.Attributes.Value("gocdk_provider")
		providers[provider.AsString()] = true
	}
	require.True(t, providers["github.com/blobseal/blobseal/blob"], providers)
	require.True(t, providers["gocloud.dev/blob/memblob"], providers)
	described := table(t, "What gocloud measures", "metric")
	require.Len(t, all, len(described))
	for name, e := range all {
		row := described[name]
		require.NotNil(t, row, name)
		require.Equal(t, row[0], e.kind, name)
		require.Equal(t, names(strings.Join(row[1:], "")), e.columns(), name)
	}
}
