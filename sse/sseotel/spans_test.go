package sseotel_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"gocloud.dev/blob/memblob"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/sse"
	"github.com/blobseal/blobseal/sse/sseotel"
)

// attr returns the text of an attribute of a span, or "".
func attr(span tracetest.SpanStub, key string) string {
	for _, kv := range span.Attributes {
		if string(kv.Key) == key {
			return kv.Value.String()
		}
	}
	return ""
}

// named returns the spans of that name.
func (b *bed) named(name string) (spans tracetest.SpanStubs) {
	for _, span := range b.spans.GetSpans() {
		if span.Name == name {
			spans = append(spans, span)
		}
	}
	return spans
}

// TestSpans: a key operation has a span with mode and key id, above that of the key
// service, and an error its code. Nothing names the object.
func TestSpans(t *testing.T) {
	f := newFleet(t)
	object := seal(t, f.kms, []byte("meow"))
	require.NoError(t, f.service.DisableKey(t.Context(), f.service.key))
	_, err := open(t.Context(), f.kms, object)
	require.ErrorIs(t, err, kms.ErrDisabled)

	info, err := f.service.DescribeKey(t.Context(), f.service.key)
	require.NoError(t, err)
	sealing := f.named("sse.Encrypt")[0]
	require.Equal(t, "SSE-KMS", attr(sealing, "blobseal.mode"))
	require.Equal(t, info.ARN, attr(sealing, "blobseal.key.id"))
	require.Equal(t, sseotel.ScopeName, sealing.InstrumentationScope.Name)
	outer := f.named("kms.GenerateDataKey")[1] // in front of the cache; the one behind it ended first
	require.Equal(t, sealing.SpanContext.SpanID(), outer.Parent.SpanID())
	require.Equal(t, trace.SpanKindClient, outer.SpanKind)
	require.Equal(t, info.ARN, attr(outer, "blobseal.key.id"))
	require.Equal(t, f.service.key, attr(outer, "blobseal.key.requested_id"))
	require.Equal(t, "false", attr(outer, "blobseal.cached"))

	opening := f.named("sse.Decrypt")[0]
	require.Equal(t, codes.Error, opening.Status.Code)
	require.Equal(t, "Disabled", attr(opening, "error.type"))
	require.Equal(t, "refused", attr(opening, "blobseal.outcome"))
	require.NotContains(t, fmt.Sprintf("%+v", f.spans.GetSpans()), "cat.jpg")
}

// TestObjectNamesOnRequest: names appear in spans, and only there.
func TestObjectNamesOnRequest(t *testing.T) {
	f := newFleet(t, sseotel.WithObjectNames())
	seal(t, f.managed, []byte("meow"))
	span := f.named("sse.Encrypt")[0]
	require.Equal(t, "photos", attr(span, "blobseal.bucket"))
	require.Equal(t, "2026/cat.jpg", attr(span, "blobseal.object"))
	require.NotContains(t, f.scrape(), "cat.jpg")
}

// TestSpansOfBuckets: gocloud's span of a bucket operation gets mode and key id, and is
// the parent of the key operation's. The spans of others are left alone.
func TestSpansOfBuckets(t *testing.T) {
	f := newFleet(t)
	old := otel.GetTracerProvider()
	otel.SetTracerProvider(f.tracers)
	defer otel.SetTracerProvider(old)
	bucket, err := blob.NewBucket(memblob.OpenBucket(nil), "photos", f.managed, nil)
	require.NoError(t, err)
	ctx, request := f.tracers.Tracer("service").Start(t.Context(), "PUT /photos")
	require.NoError(t, bucket.WriteAll(ctx, cat.Key, []byte("meow"), nil))
	_, err = bucket.ReadAll(ctx, cat.Key)
	require.NoError(t, err)
	request.End()

	version := f.ring.Versions()[0].ID
	for operation, phase := range map[string]string{"NewWriter": "sse.Encrypt", "NewRangeReader": "sse.Decrypt"} {
		annotated := 0
		for _, span := range f.named("gocloud.dev/blob." + operation) {
			if attr(span, "blobseal.mode") == "" {
				continue // of the store's bucket
			}
			annotated++
			require.Equal(t, "SSE-S3", attr(span, "blobseal.mode"))
			require.Equal(t, version, attr(span, "blobseal.key.id"))
			children := 0
			for _, child := range f.named(phase) {
				if child.Parent.SpanID() == span.SpanContext.SpanID() {
					children++
				}
			}
			require.Equal(t, 1, children, phase)
		}
		require.Equal(t, 1, annotated, operation)
	}
	for _, span := range f.named("PUT /photos") {
		require.Empty(t, attr(span, "blobseal.mode"))
	}
}

// TestDecryptersOfSeveralModes: each envelope's own mode counts.
func TestDecryptersOfSeveralModes(t *testing.T) {
	f := newFleet(t)
	object := seal(t, f.managed, []byte("meow"))
	dec := f.Decrypter(sse.ByMode{sse.ModeManaged: sse.NewManaged(f.ring)})
	plain, err := open(t.Context(), dec, object)
	require.NoError(t, err)
	require.Equal(t, "meow", string(plain))
	_, err = open(t.Context(), dec, seal(t, f.customer, []byte("meow")))
	require.ErrorIs(t, err, sse.ErrMode)
	_, err = dec.Decrypt(t.Context(), cat, nil)
	require.ErrorIs(t, err, sse.ErrFormat)
	count := func(labels ...string) string {
		return f.value("blobseal_key_operation_duration_seconds_count", append(labels, `operation="decrypt"`)...)
	}
	require.Equal(t, "1", count(`mode="SSE-S3"`, `outcome="success"`))
	require.Equal(t, "1", count(`mode="SSE-C"`, `error_type="WrongMode"`))
	require.Equal(t, "1", count(`mode="none"`, `error_type="NotEncrypted"`))
}
