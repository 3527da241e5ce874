package keyring

import (
	"bytes"
	"context"
	"strconv"
	"sync"
)

// MemStore is a [Store] in memory, for tests and examples: the ring is lost with the
// process. The zero MemStore is empty and ready to use.
//
// Package keyringtest has one that fails when a test asks for it. In a bubble of
// testing/synctest, a ring ages, rotates and refreshes by the bubble's clock.
type MemStore struct {
	mu    sync.Mutex
	data  []byte
	swaps uint64        // number of successful swaps; zero means that there is no document
	next  chan struct{} // closed by the next swap, if someone waits for it
}

var (
	_ Watcher = (*MemStore)(nil)
	_ Sizer   = (*MemStore)(nil)
)

// NewMemStore returns an empty store.
func NewMemStore() *MemStore { return new(MemStore) }

// Load implements [Store].
func (s *MemStore) Load(ctx context.Context) ([]byte, string, error) {
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
func (s *MemStore) Swap(ctx context.Context, version string, data []byte) (string, error) {
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

// MaxSize implements [Sizer].
func (s *MemStore) MaxSize() int { return MaxFileSize }

// Watch implements [Watcher].
func (s *MemStore) Watch(ctx context.Context, changed func()) error {
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
func (s *MemStore) version() string {
	if s.swaps == 0 {
		return ""
	}
	return strconv.FormatUint(s.swaps, 10)
}
