package sseotel

import (
	"context"
	"sync"

	"go.opentelemetry.io/otel/metric"
)

// pending holds the durations of successful operations until there are enough for the
// histogram. A recording between two encryptions, which flush the processor's caches, costs
// three times as much as one after another recording.
type pending struct {
	mu     sync.Mutex
	n      int
	values [32]float64 // seconds
}

// add adds a duration, and records all of them if there are enough.
func (p *pending) add(ctx context.Context, h metric.Float64Histogram, seconds float64, options []metric.RecordOption) {
	p.mu.Lock()
	p.values[p.n] = seconds
	p.n++
	if p.n < len(p.values) {
		p.mu.Unlock()
		return
	}
	values := p.values
	p.n = 0
	p.mu.Unlock()
	for _, v := range values {
		h.Record(ctx, v, options...)
	}
}

// flush records the pending durations before metrics are collected.
func (p *pending) flush(ctx context.Context, h metric.Float64Histogram, options []metric.RecordOption) {
	p.mu.Lock()
	values, n := p.values, p.n
	p.n = 0
	p.mu.Unlock()
	for _, v := range values[:n] {
		h.Record(ctx, v, options...)
	}
}
