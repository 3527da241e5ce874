package kms_test

import (
	"context"
	"sync"

	"github.com/blobseal/blobseal/kms"
)

// memorySink keeps records; err is what Write says.
type memorySink struct {
	mu      sync.Mutex
	records []kms.Record
	err     error
}

func (s *memorySink) Write(_ context.Context, r kms.Record) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	s.records = append(s.records, r)
	return nil
}
