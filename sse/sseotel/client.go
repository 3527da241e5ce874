package sseotel

import (
	"context"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/audit"
)

// Client returns c with telemetry. If c is or wraps a [kms.Authorizer], the result is one.
// Authorize is reported only if it refuses, because no operation follows then. A nil Client
// stays nil.
//
// Behind a cache, the client reports the calls that reach the key service. In front
// of it, it reports every use of a key, and the attribute blobseal.cached tells which
// uses the cache answered.
func (t *Telemetry) Client(c kms.Client) kms.Client {
	if isNil(c) {
		return nil
	}
	wrapped := &client{t, c}
	if authorizer, ok := kms.Find[kms.Authorizer](c); ok {
		return &authorizingClient{wrapped, authorizer}
	}
	return wrapped
}

type client struct {
	t     *Telemetry
	inner kms.Client
}

// authorizingClient is a client whose service is an Authorizer.
type authorizingClient struct {
	*client
	authorizer kms.Authorizer
}

// Unwrap returns the client that c wraps; see [kms.Find].
func (c *client) Unwrap() kms.Client { return c.inner }

// GenerateDataKey implements [kms.Client].
func (c *client) GenerateDataKey(ctx context.Context, keyID string, ec kms.Context) (*kms.DataKey, error) {
	ctx, call := c.t.call(ctx, kms.OpGenerateDataKey, "kms.GenerateDataKey", keyID)
	key, err := c.inner.GenerateDataKey(ctx, keyID, ec)
	if key != nil && call.report.KeyID == "" {
		call.report.KeyID = key.KeyID
	}
	call.end(err)
	return key, err
}

// Decrypt implements [kms.Client].
func (c *client) Decrypt(ctx context.Context, keyID string, ciphertext []byte, ec kms.Context) ([]byte, error) {
	ctx, call := c.t.call(ctx, kms.OpDecrypt, "kms.Decrypt", keyID)
	plaintext, err := c.inner.Decrypt(ctx, keyID, ciphertext, ec)
	call.end(err)
	return plaintext, err
}

// Authorize implements [kms.Authorizer].
func (c *authorizingClient) Authorize(ctx context.Context, op kms.Operation, keyID string, ec kms.Context) error {
	start := time.Now()
	err := c.authorizer.Authorize(ctx, op, keyID, ec)
	if err != nil {
		kv := appendResult([]attribute.KeyValue{operationKey.String("Authorize"), cachedKey.Bool(false)}, err)
		c.t.service.Record(ctx, time.Since(start).Seconds(), attributes(kv...))
	}
	return err
}

// call is a call of a key service.
type call struct {
	t             *Telemetry
	ctx           context.Context
	op            kms.Operation
	keyID         string // as requested
	start         time.Time
	span          trace.Span
	outer, report *kms.Report
}

// call begins a call, with a report of its own.
func (t *Telemetry) call(ctx context.Context, op kms.Operation, name, keyID string) (context.Context, *call) {
	c := &call{t: t, op: op, keyID: keyID, outer: kms.ReportFrom(ctx), report: new(kms.Report)}
	ctx, c.span = t.start(kms.WithReport(ctx, c.report), name, trace.WithSpanKind(trace.SpanKindClient))
	c.ctx, c.start = ctx, time.Now()
	return ctx, c
}

// end ends the call with err, and fills in the caller's report.
func (c *call) end(err error) {
	*c.outer = *c.report
	if c.t.service.Enabled(c.ctx) {
		c.t.service.Record(c.ctx, time.Since(c.start).Seconds(), c.t.results.of(c.op, c.report.Cached, err)...)
	}
	if !c.span.IsRecording() {
		c.span.End()
		return
	}
	kv := []attribute.KeyValue{requestedKey.String(c.keyID), cachedKey.Bool(c.report.Cached)}
	if c.report.KeyID != "" {
		kv = append(kv, keyIDKey.String(c.report.KeyID))
	}
	c.t.endSpan(c.span, kv, err)
}

// results are the attributes of calls that succeeded, made once.
type results struct{ made sync.Map }

type resultName struct {
	op     kms.Operation
	cached bool
}

func (r *results) of(op kms.Operation, cached bool, err error) []metric.RecordOption {
	name := resultName{op, cached}
	if err == nil {
		if made, ok := r.made.Load(name); ok {
			return made.([]metric.RecordOption)
		}
	}
	kv := appendResult([]attribute.KeyValue{operationKey.String(string(op)), cachedKey.Bool(cached)}, err)
	options := []metric.RecordOption{attributes(kv...)}
	if err == nil {
		r.made.Store(name, options)
	}
	return options
}

// Sink returns s with a counter of its records. A nil Sink stays nil.
func (t *Telemetry) Sink(s audit.Sink) audit.Sink {
	if isNil(s) {
		return nil
	}
	for _, outcome := range []string{success, failed} { // an alert sees the first failure only as a rise from zero
		t.audit.Add(context.Background(), 0, attributes(outcomeKey.String(outcome)))
	}
	return &sink{t, s}
}

type sink struct {
	t     *Telemetry
	inner audit.Sink
}

// Write implements [audit.Sink].
func (s *sink) Write(ctx context.Context, r audit.Record) error {
	err := s.inner.Write(ctx, r)
	outcome := success
	if err != nil {
		outcome = failed
	}
	s.t.audit.Add(ctx, 1, attributes(outcomeKey.String(outcome)))
	return err
}
