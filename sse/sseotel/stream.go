package sseotel

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/blobseal/blobseal/sse"
)

// stream counts the streams of one mode and direction.
type stream struct {
	labels         []attribute.KeyValue
	bytes, objects atomic.Int64
	option         metric.ObserveOption
	observer       func(plain int64, err error) // hear, allocated once

	mu       sync.Mutex
	failures map[string]*failures // by code
}

// failures counts streams that failed for one reason.
type failures struct {
	n      int64
	option metric.ObserveOption
}

func (s *stream) init(mode attribute.KeyValue, direction string) {
	s.labels = []attribute.KeyValue{mode, directionKey.String(direction)}
	s.failures = make(map[string]*failures)
	if direction == "decrypt" { // an alert sees the first damage only as a rise from zero
		s.fail("Corrupt", 0)
		s.fail("Truncated", 0)
	}
	s.option = attributes(s.labels...)
	s.observer = s.hear
}

// hear observes a stream. See [sse.Encryption.Observed].
func (s *stream) hear(plain int64, err error) {
	if plain > 0 {
		s.bytes.Add(plain)
	}
	switch {
	case err == nil:
	case err == io.EOF:
		s.objects.Add(1)
	default:
		s.fail(streamCode(err), 1)
	}
}

// fail counts n streams that failed.
func (s *stream) fail(code string, n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.failures[code]
	if f == nil {
		f = &failures{option: attributes(append(s.labels[:len(s.labels):len(s.labels)], errorKey.String(code))...)}
		s.failures[code] = f
	}
	f.n += n
}

// isUsed reports whether the stream has counted anything.
func (s *stream) isUsed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.failures {
		if f.n > 0 {
			return true
		}
	}
	return s.bytes.Load() > 0 || s.objects.Load() > 0
}

// streamCode returns the code of an error that ended a stream. An error that is not this
// library's is that of the source or the destination.
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
	broken := m.sum("blobseal.stream.failures", "{stream}", "Streams that failed before the end of their object.")
	if len(m.errs) > 0 {
		return // some instruments may be missing
	}
	_, err := m.meter.RegisterCallback(func(ctx context.Context, o metric.Observer) error {
		for i := range t.modes {
			for op := range operations {
				t.modes[i].pending[op].flush(ctx, t.keys, t.modes[i].ok[op])
			}
			for _, s := range []*stream{&t.modes[i].sealed, &t.modes[i].opened} {
				if !s.isUsed() {
					continue
				}
				o.ObserveInt64(bytes, s.bytes.Load(), s.option)
				o.ObserveInt64(objects, s.objects.Load(), s.option)
				s.mu.Lock()
				for _, f := range s.failures {
					o.ObserveInt64(broken, f.n, f.option)
				}
				s.mu.Unlock()
			}
		}
		return nil
	}, bytes, objects, broken)
	m.note(err)
}
