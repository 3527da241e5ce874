package keyring

import (
	"bytes"
	"context"
	"strconv"
	"sync"
)

// memStore is the [Store] of [NewMemStore].
type memStore struct {
	mu    sync.Mutex
	data  []byte
	swaps uint64        // number of successful swaps; zero means no document
	next  chan struct{} // closed by the next swap; nil if nobody watches
}

var _ Watcher = (*memStore)(nil)

// NewMemStore returns an empty [Store] in memory, for tests and examples: the ring is lost
// with the process. The store is a [Watcher].
//
// Package keyringtest has a store that fails when a test asks for it. In a bubble of
// testing/synctest, a ring ages, rotates and refreshes by the bubble's clock.
func NewMemStore() Store { return new(memStore) }

// Load implements [Store].
func (s *memStore) Load(ctx context.Context) ([]byte, string, error) {
	if err := ctx.Err(); err != nil {
		return nil, "", err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.swaps == 0 {
		return nil, "", ErrNotExist
	}
	return bytes.Clone(s.data), s.version(), nil
}

// Swap implements [Store].
func (s *memStore) Swap(ctx context.Context, version string, data []byte) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if version != s.version() {
		return "", ErrConflict
	}
	s.data = bytes.Clone(data)
	s.swaps++
	if s.next != nil {
		close(s.next)
		s.next = nil
	}
	return s.version(), nil
}

// MaxSize returns the size of the largest document in bytes. Package localkms asks for it.
func (s *memStore) MaxSize() int { return maxFileSize }

// Watch implements [Watcher].
func (s *memStore) Watch(ctx context.Context, changed func()) error {
	for {
		s.mu.Lock()
		if s.next == nil {
			s.next = make(chan struct{})
		}
		next := s.next
		s.mu.Unlock()
		changed()
		select {
		case <-next:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// version is the current version, or "" if there is no document.
func (s *memStore) version() string {
	if s.swaps == 0 {
		return ""
	}
	return strconv.FormatUint(s.swaps, 10)
}
