package kmstest

import (
	"context"
	"slices"
	"sync"

	"github.com/blobseal/blobseal/kms/audit"
)

// Sink is an audit trail in memory that fails when a test asks for it. The zero Sink
// is empty and ready to use. It is safe for concurrent use.
type Sink struct {
	mu      sync.Mutex
	records []audit.Record
	err     error
	n       int
}

var _ audit.Sink = (*Sink)(nil)

// Fail makes the next n writes fail with err, without a record: all later writes if n
// is negative, none if n is 0.
func (s *Sink) Fail(err error, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err, s.n = err, n
}

// Records returns the records so far, the oldest first.
func (s *Sink) Records() []audit.Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.records)
}

// Forget removes the records so far.
func (s *Sink) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.records = nil
}

// Write implements [audit.Sink].
func (s *Sink) Write(ctx context.Context, r audit.Record) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.n != 0 {
		if s.n > 0 {
			s.n--
		}
		return s.err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	s.records = append(s.records, r)
	return nil
}
