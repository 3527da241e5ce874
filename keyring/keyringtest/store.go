package keyringtest

import (
	"context"
	"sync"

	"github.com/blobseal/blobseal/keyring"
)

// Store is a store in memory that fails when a test asks for it. Any number of rings
// can share a Store, as processes do. It is safe for concurrent use. Faults take effect
// with the next call.
type Store struct {
	mu           sync.Mutex
	memory       keyring.Store // nil until it is used
	load, swap   fault
	lost         fault
	loads, swaps int
}

var (
	_ keyring.Store   = (*Store)(nil)
	_ keyring.Watcher = (*Store)(nil)
)

// A fault is an error that the next n calls return, or all later calls if n is negative.
type fault struct {
	err error
	n   int
}

func (f *fault) take() error {
	if f.n == 0 {
		return nil
	}
	if f.n > 0 {
		f.n--
	}
	return f.err
}

// NewStore returns an empty store.
func NewStore() *Store { return new(Store) }

// FailLoads makes the next n loads fail with err: all later loads if n is negative,
// none if n is 0.
func (s *Store) FailLoads(err error, n int) { s.set(&s.load, err, n) }

// FailSwaps makes the next n swaps fail with err and change nothing: all later swaps
// if n is negative, none if n is 0. [keyring.ErrConflict] looks as if another process
// had been faster.
func (s *Store) FailSwaps(err error, n int) { s.set(&s.swap, err, n) }

// LoseAnswers makes the next n swaps succeed but return err, as if a connection broke
// after the request: all later swaps if n is negative, none if n is 0.
func (s *Store) LoseAnswers(err error, n int) { s.set(&s.lost, err, n) }

func (s *Store) set(f *fault, err error, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	*f = fault{err, n}
}

// Loads returns the number of loads so far, including those that failed.
func (s *Store) Loads() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.loads
}

// Swaps returns the number of swaps so far, including those that failed.
func (s *Store) Swaps() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.swaps
}

// Load implements [keyring.Store].
func (s *Store) Load(ctx context.Context) ([]byte, string, error) {
	if err := s.take(&s.loads, &s.load); err != nil {
		return nil, "", err
	}
	return s.inner().Load(ctx)
}

// Swap implements [keyring.Store].
func (s *Store) Swap(ctx context.Context, version string, data []byte) (string, error) {
	if err := s.take(&s.swaps, &s.swap); err != nil {
		return "", err
	}
	newVersion, err := s.inner().Swap(ctx, version, data)
	if err != nil {
		return "", err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.lost.take(); err != nil {
		return "", err
	}
	return newVersion, nil
}

// Watch implements [keyring.Watcher].
func (s *Store) Watch(ctx context.Context, changed func()) error {
	return s.inner().(keyring.Watcher).Watch(ctx, changed)
}

// MaxSize returns the size of the largest document in bytes. Package localkms asks for it.
func (s *Store) MaxSize() int { return s.inner().(interface{ MaxSize() int }).MaxSize() }

// inner returns the store that holds the document.
func (s *Store) inner() keyring.Store {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.memory == nil {
		s.memory = keyring.NewMemStore()
	}
	return s.memory
}

func (s *Store) take(count *int, f *fault) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	*count++
	return f.take()
}
