package visibility

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/blobseal/blobseal/internal/document"
)

// Store has each call of another store take a random time, and loses its last writes on
// request, as a failover does. It does not watch.
type Store struct {
	Slowest time.Duration // of a call

	mu    sync.Mutex
	store document.Store
	rand  *rand.Rand
	past  [][]byte // documents, oldest first
}

// NewStore returns a Store over store, which must be empty.
func NewStore(store document.Store, seed uint64) *Store {
	return &Store{Slowest: slowest, store: store, rand: rand.New(rand.NewPCG(seed, 1))}
}

// delay waits, for half of the time that a call may take at most.
func (s *Store) delay() {
	s.mu.Lock()
	d := time.Duration(s.rand.Int64N(int64(s.Slowest/2) + 1))
	s.mu.Unlock()
	time.Sleep(d)
}

// Load implements [document.Store].
func (s *Store) Load(ctx context.Context) ([]byte, string, error) {
	s.delay()
	defer s.delay()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.store.Load(ctx)
}

// Swap implements [document.Store].
func (s *Store) Swap(ctx context.Context, version string, data []byte) (string, error) {
	s.delay()
	defer s.delay()
	s.mu.Lock()
	defer s.mu.Unlock()
	next, err := s.store.Swap(ctx, version, data)
	if err == nil {
		s.past = append(s.past, slices.Clone(data))
	}
	return next, err
}

// LoseWrites puts the document back that was current that many writes ago.
func (s *Store) LoseWrites(ctx context.Context, writes int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.past) <= writes {
		return nil
	}
	_, version, err := s.store.Load(ctx)
	if err != nil {
		return err
	}
	_, err = s.store.Swap(ctx, version, s.past[len(s.past)-1-writes])
	return err
}
