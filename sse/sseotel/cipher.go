package sseotel

import (
	"context"
	"reflect"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/blobseal/blobseal/sse"
)

// Cipher returns c with telemetry. A nil Cipher stays nil.
func (t *Telemetry) Cipher(c sse.Cipher) sse.Cipher {
	if isNil(c) {
		return nil
	}
	return &cipher{both: both{encrypter{t, c}, decrypter{t, c}}, inner: c}
}

// Encrypter returns e with telemetry. If e is a [sse.Decrypter] or a [sse.Cipher], so is the
// result. A nil Encrypter stays nil.
func (t *Telemetry) Encrypter(e sse.Encrypter) sse.Encrypter {
	if isNil(e) {
		return nil
	}
	if c, ok := e.(sse.Cipher); ok {
		return t.Cipher(c).(*cipher)
	}
	if d, ok := e.(sse.Decrypter); ok {
		return &both{encrypter{t, e}, decrypter{t, d}}
	}
	return &encrypter{t, e}
}

// Decrypter returns d with telemetry. d may be a [sse.ByMode]. If d is a [sse.Encrypter] or a
// [sse.Cipher], so is the result. A nil Decrypter stays nil.
func (t *Telemetry) Decrypter(d sse.Decrypter) sse.Decrypter {
	if isNil(d) {
		return nil
	}
	if e, ok := d.(sse.Encrypter); ok {
		return t.Encrypter(e).(sse.Decrypter)
	}
	return &decrypter{t, d}
}

// isNil reports whether v is nil or holds a nil value.
func isNil(v any) bool {
	value := reflect.ValueOf(v)
	return !value.IsValid() || value.Kind() == reflect.Pointer && value.IsNil()
}

type encrypter struct {
	t     *Telemetry
	inner sse.Encrypter
}

type decrypter struct {
	t     *Telemetry
	inner sse.Decrypter
}

type both struct {
	encrypter
	decrypter
}

type cipher struct {
	both
	inner sse.Cipher
}

// Mode implements [sse.Encrypter].
func (e *encrypter) Mode() sse.Mode { return e.inner.Mode() }

// RequestedKey returns [sse.RequestedKey] of the wrapped value.
func (e *encrypter) RequestedKey() string { return sse.RequestedKey(e.inner) }

// Encrypt implements [sse.Encrypter].
func (e *encrypter) Encrypt(ctx context.Context, obj sse.Object) (*sse.Encryption, error) {
	m := e.t.mode(e.inner.Mode())
	ctx, op := m.begin(ctx, encrypt, obj)
	enc, err := e.inner.Encrypt(ctx, obj)
	if err != nil || enc == nil {
		op.end("", err)
		return enc, err
	}
	op.end(enc.Envelope().KeyID(), nil)
	if op.start == 0 {
		return enc, nil
	}
	return enc.Observed(m.sealed.observer), nil
}

// Decrypt implements [sse.Decrypter].
func (d *decrypter) Decrypt(ctx context.Context, obj sse.Object, env *sse.Envelope) (*sse.Decryption, error) {
	m, keyID := &d.t.modes[0], ""
	if env != nil {
		m, keyID = d.t.mode(env.Mode()), env.KeyID()
	}
	ctx, op := m.begin(ctx, decrypt, obj)
	dec, err := d.inner.Decrypt(ctx, obj, env)
	op.end(keyID, err)
	if err != nil || dec == nil || op.start == 0 {
		return dec, err
	}
	return dec.Observed(m.opened.observer), nil
}

// Rewrap implements [sse.Cipher].
func (c *cipher) Rewrap(ctx context.Context, obj sse.Object, d *sse.Decryption) (*sse.Envelope, error) {
	ctx, op := c.encrypter.t.mode(c.inner.Mode()).begin(ctx, rewrap, obj)
	env, err := c.inner.Rewrap(ctx, obj, d)
	keyID := ""
	if env != nil {
		keyID = env.KeyID()
	}
	op.end(keyID, err)
	return env, err
}

// operation is a key operation of a cipher.
type operation uint8

const (
	encrypt operation = iota
	decrypt
	rewrap
	operations
)

var (
	operationNames = [operations]string{"encrypt", "decrypt", "rewrap"}
	spanNames      = [operations]string{"sse.Encrypt", "sse.Decrypt", "sse.Rewrap"}
)

// modeState holds the instruments and attributes of one mode.
type modeState struct {
	t    *Telemetry
	name attribute.KeyValue

	sealed, opened stream
	ok             [operations][]metric.RecordOption // of operations that succeed
	pending        [operations]pending
	start          [operations][]trace.SpanStartOption
}

// mode returns the state of a mode.
func (t *Telemetry) mode(mode sse.Mode) *modeState {
	if int(mode) >= len(t.modes) {
		mode = 0
	}
	return &t.modes[mode]
}

func (m *modeState) init(t *Telemetry, mode sse.Mode) {
	m.t, m.name = t, modeKey.String("none") // no envelope, or one that no release knows
	if mode != 0 {
		m.name = modeKey.String(mode.String())
	}
	m.sealed.init(m.name, "encrypt")
	m.opened.init(m.name, "decrypt")
	for op := range operations {
		m.ok[op] = []metric.RecordOption{attributes(m.name, operationKey.String(operationNames[op]), outcomeKey.String(success))}
		m.start[op] = []trace.SpanStartOption{trace.WithAttributes(m.name)}
	}
}

// epoch is a time in the past. Since(epoch) reads only the monotonic clock, which costs half
// of time.Now.
var epoch = time.Now().Add(-time.Second)

// running is a key operation that has begun.
type running struct {
	m      *modeState
	ctx    context.Context // of the span
	op     operation
	start  time.Duration // since epoch; 0 without metrics
	span   trace.Span    // or nil
	bucket trace.Span    // of the bucket operation, or nil
	obj    *sse.Object
}

// begin begins an operation, and returns its context.
func (m *modeState) begin(ctx context.Context, op operation, obj sse.Object) (context.Context, running) {
	r := running{m: m, op: op, ctx: ctx}
	if m.t.traces() {
		r.startSpan(obj)
		ctx = r.ctx
	}
	if m.t.keys.Enabled(ctx) {
		r.start = time.Since(epoch)
	}
	return ctx, r
}

// startSpan starts the operation's span, and finds the span of the bucket operation.
func (r *running) startSpan(obj sse.Object) {
	outer := trace.SpanFromContext(r.ctx)
	r.ctx, r.span = r.m.t.tracer.Start(r.ctx, spanNames[r.op], r.m.start[r.op]...)
	if outer.IsRecording() && isBucketOperation(outer) {
		r.bucket = outer
	}
	if r.m.t.names && (r.bucket != nil || r.span.IsRecording()) {
		r.obj = &sse.Object{Bucket: obj.Bucket, Key: obj.Key}
	}
}

// isBucketOperation reports whether a span is of gocloud's portable bucket.
func isBucketOperation(span trace.Span) bool {
	named, ok := span.(interface{ Name() string })
	return ok && strings.HasPrefix(named.Name(), "gocloud.dev/blob.")
}

// end ends the operation with err.
func (r *running) end(keyID string, err error) {
	if r.start != 0 {
		r.record((time.Since(epoch) - r.start).Seconds(), err)
	}
	if r.span == nil {
		return
	}
	if !r.span.IsRecording() && r.bucket == nil {
		r.span.End()
		return
	}
	kv := make([]attribute.KeyValue, 0, 6)
	kv = append(kv, r.m.name)
	if keyID != "" {
		kv = append(kv, keyIDKey.String(keyID))
	}
	if r.obj != nil {
		kv = append(kv, bucketKey.String(r.obj.Bucket), objectKey.String(r.obj.Key))
	}
	if r.bucket != nil {
		r.bucket.SetAttributes(kv...)
	}
	r.m.t.endSpan(r.span, kv, err)
}

// record records the duration. A sampled span makes an exemplar of it, at once.
func (r *running) record(seconds float64, err error) {
	m := r.m
	switch {
	case err != nil:
		kv := appendResult([]attribute.KeyValue{m.name, operationKey.String(operationNames[r.op])}, err)
		m.t.keys.Record(r.ctx, seconds, attributes(kv...))
	case r.span != nil && r.span.SpanContext().IsSampled():
		m.t.keys.Record(r.ctx, seconds, m.ok[r.op]...)
	default:
		m.pending[r.op].add(r.ctx, m.t.keys, seconds, m.ok[r.op])
	}
}

// endSpan ends a span with these attributes. The text of an error may name
// objects.
func (t *Telemetry) endSpan(span trace.Span, kv []attribute.KeyValue, err error) {
	if err != nil {
		outcome, code := classify(err)
		kv = append(kv, outcomeKey.String(outcome), errorKey.String(code))
		span.SetStatus(codes.Error, code)
		if t.names {
			span.RecordError(err)
		}
	}
	span.SetAttributes(kv...)
	span.End()
}
