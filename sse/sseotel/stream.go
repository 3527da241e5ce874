package sseotel

import (
	"context"
	"errors"
	"io"
	"sync/atomic"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/blobseal/blobseal/sse"
)

// stream counts what the streams of one mode and direction do.
type stream struct {
	t              *Telemetry
	labels         []attribute.KeyValue
	bytes, objects atomic.Int64
	option         metric.ObserveOption
	observer       func(plain int64, err error) // hear, allocated once
}

func (s *stream) init(t *Telemetry, mode attribute.KeyValue, direction string) {
	s.t, s.labels = t, []attribute.KeyValue{mode, directionKey.String(direction)}
	s.option = attributes(s.labels...)
	s.observer = s.hear
}

// hear is the observer of a stream: see [sse.Encryption.Observed].
func (s *stream) hear(plain int64, err error) {
	if plain > 0 {
		s.bytes.Add(plain)
	}
	switch {
	case err == nil:
	case err == io.EOF:
		s.objects.Add(1)
	default:
		kv := append(s.labels[:len(s.labels):len(s.labels)], errorKey.String(streamCode(err)))
		s.t.broken.Add(context.Background(), 1, attributes(kv...))
	}
}

// streamCode returns the code of an error that ended a stream. Everything that is
// not the library's own is the source's or the destination's.
func streamCode(err error) string {
	for _, known := range []error{sse.ErrCorrupt, sse.ErrTooLarge, sse.ErrInvalid, sse.ErrUsed, context.Canceled, context.DeadlineExceeded} {
		if errors.Is(err, known) {
			_, code := classify(err)
			return code
		}
	}
	return "IO"
}

// observeStreams reports the counts of all streams.
func (t *Telemetry) observeStreams(m *maker) {
	bytes := m.sum("blobseal.plaintext.io", "By", "Plaintext that was encrypted or decrypted.")
	objects := m.sum("blobseal.objects", "{object}", "Whole objects that were encrypted or decrypted to the end.")
	if bytes == nil || objects == nil {
		return
	}
	_, err := m.meter.RegisterCallback(func(ctx context.Context, o metric.Observer) error {
		for i := range t.modes {
			for op := range operations {
				t.modes[i].pending[op].flush(ctx, t.keys, t.modes[i].ok[op])
			}
			for _, s := range []*stream{&t.modes[i].sealed, &t.modes[i].opened} {
				b, n := s.bytes.Load(), s.objects.Load()
				if b > 0 || n > 0 {
					o.ObserveInt64(bytes, b, s.option)
					o.ObserveInt64(objects, n, s.option)
				}
			}
		}
		return nil
	}, bytes, objects)
	m.note(err)
}
