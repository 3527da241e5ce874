package sseotel

import (
	"context"
	"errors"
	"reflect"
	"strings"
	"sync"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/blobseal/blobseal/sse"
)

// ScopeName is the name of the instrumentation scope.
const ScopeName = "github.com/blobseal/blobseal/sse/sseotel"

// Option is an option of [New].
type Option interface{ apply(*config) }

type config struct {
	tracers trace.TracerProvider
	meters  metric.MeterProvider
	names   bool
}

type option func(*config)

func (o option) apply(c *config) { o(c) }

// WithTracerProvider sets where spans go. The default is the global provider.
func WithTracerProvider(p trace.TracerProvider) Option {
	return option(func(c *config) { c.tracers = p })
}

// WithMeterProvider sets where metrics go. The default is the global provider.
func WithMeterProvider(p metric.MeterProvider) Option {
	return option(func(c *config) { c.meters = p })
}

// WithObjectNames adds the names of buckets and objects, and the texts of errors,
// to spans. Metrics never carry them.
func WithObjectNames() Option { return option(func(c *config) { c.names = true }) }

// Telemetry makes wrappers and observers that report to one pair of providers. It
// is safe for concurrent use.
type Telemetry struct {
	tracer trace.Tracer
	unset  trace.TracerProvider // the global provider until one is set; nil if that is set
	names  bool

	keys    metric.Float64Histogram
	service metric.Float64Histogram
	audit   metric.Int64Counter
	runs    metric.Int64Counter

	modes   [4]modeState // by sse.Mode; 0 is any other
	results results      // of the key service

	instruments instruments // of what is observed

	mu       sync.Mutex
	observed map[*func(metric.Observer)]struct{}
}

// New returns a Telemetry. Without options, it uses the global providers of package
// otel, also if they are set later. It fails only if the meter provider refuses an
// instrument.
func New(opts ...Option) (*Telemetry, error) {
	c := config{meters: otel.GetMeterProvider()}
	for _, o := range opts {
		o.apply(&c)
	}
	t := &Telemetry{names: c.names, observed: make(map[*func(metric.Observer)]struct{})}
	t.setTracer(c.tracers)
	m := &maker{meter: c.meters.Meter(ScopeName)}
	t.keys = m.histogram("blobseal.key.operation.duration", "Duration of key operations of ciphers.")
	t.service = m.histogram("blobseal.kms.operation.duration", "Duration of operations of key service clients.")
	t.audit = m.counter("blobseal.audit.records", "{record}", "Records that were given to the audit sink.")
	t.runs = m.counter("blobseal.job.runs", "{run}", "Runs of jobs that have ended.")
	for i := range t.modes {
		t.modes[i].init(t, sse.Mode(i))
	}
	t.observeStreams(m)
	if err := t.observeOthers(m); err != nil {
		m.errs = append(m.errs, err)
	}
	return t, errors.Join(m.errs...)
}

// setTracer sets the tracer to that of p, or of the global provider if p is nil.
func (t *Telemetry) setTracer(p trace.TracerProvider) {
	if p == nil {
		p = otel.GetTracerProvider()
		if strings.HasSuffix(reflect.TypeOf(p).String(), "global.tracerProvider") { // what there is before it is set
			t.unset = p
		}
	}
	if _, ok := p.(noop.TracerProvider); !ok {
		t.tracer = p.Tracer(ScopeName)
	}
}

// traces reports whether anybody records spans. A span that nobody records takes as long as
// all metrics.
func (t *Telemetry) traces() bool {
	return t.tracer != nil && (t.unset == nil || otel.GetTracerProvider() != t.unset)
}

// start starts a span. Without a provider, the span does nothing.
func (t *Telemetry) start(ctx context.Context, name string, opts ...trace.SpanStartOption) (context.Context, trace.Span) {
	if !t.traces() {
		return ctx, noop.Span{}
	}
	return t.tracer.Start(ctx, name, opts...)
}

// maker makes instruments and collects errors.
type maker struct {
	meter metric.Meter
	errs  []error
}

// durations are the bounds of histograms in seconds. A key in memory takes about
// 10 µs, a key service some milliseconds.
var durations = []float64{
	.00001, .000025, .00005, .0001, .00025, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10,
}

func (m *maker) histogram(name, text string) metric.Float64Histogram {
	h, err := m.meter.Float64Histogram(name, metric.WithUnit("s"), metric.WithDescription(text),
		metric.WithExplicitBucketBoundaries(durations...))
	m.note(err)
	return h
}

func (m *maker) counter(name, unit, text string) metric.Int64Counter {
	c, err := m.meter.Int64Counter(name, metric.WithUnit(unit), metric.WithDescription(text))
	m.note(err)
	return c
}

func (m *maker) sum(name, unit, text string) metric.Int64ObservableCounter {
	c, err := m.meter.Int64ObservableCounter(name, metric.WithUnit(unit), metric.WithDescription(text))
	m.note(err)
	return c
}

func (m *maker) level(name, unit, text string) metric.Int64ObservableUpDownCounter {
	c, err := m.meter.Int64ObservableUpDownCounter(name, metric.WithUnit(unit), metric.WithDescription(text))
	m.note(err)
	return c
}

func (m *maker) seconds(name, text string) metric.Float64ObservableGauge {
	g, err := m.meter.Float64ObservableGauge(name, metric.WithUnit("s"), metric.WithDescription(text))
	m.note(err)
	return g
}

func (m *maker) note(err error) {
	if err != nil {
		m.errs = append(m.errs, err)
	}
}

// observe makes each collection call report, until stop is called.
func (t *Telemetry) observe(report func(metric.Observer)) (stop func()) {
	id := &report
	t.mu.Lock()
	defer t.mu.Unlock()
	t.observed[id] = struct{}{}
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.observed, id)
	}
}

// collect reports everything that is observed.
func (t *Telemetry) collect(_ context.Context, o metric.Observer) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for report := range t.observed {
		(*report)(o)
	}
	return nil
}

func attributes(kv ...attribute.KeyValue) metric.MeasurementOption {
	return metric.WithAttributeSet(attribute.NewSet(kv...))
}
