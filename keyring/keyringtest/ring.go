package keyringtest

import (
	"crypto/rand"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/keyring"
)

// NewRing returns a new ring in memory, for tests of code that uses a ring:
//
//	cipher := sse.NewManaged(keyringtest.NewRing(t, nil))
//
// It logs nothing unless opts has a logger.
func NewRing(t testing.TB, opts *keyring.Options) *keyring.Ring {
	t.Helper()
	var o keyring.Options
	if opts != nil {
		o = *opts
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	ring, err := keyring.Create(t.Context(), NewStore(), NewRoot(), &o)
	require.NoError(t, err)
	return ring
}

// NewRoot returns a root with a random key.
func NewRoot() keyring.Root {
	key := make([]byte, 32)
	rand.Read(key)
	root, err := keyring.NewKeyRoot(key)
	if err != nil {
		panic(err) // 32 random bytes are a key
	}
	return root
}

// Clock is a clock that a test sets, for the Now of [keyring.Options]. Rings age by
// it, but waits, such as those of [keyring.Ring.Run], take real time. To test those, use a
// bubble of testing/synctest instead. A Clock is safe for concurrent use.
type Clock struct {
	mu  sync.Mutex
	now time.Time
}

// NewClock returns a clock that stands still at the beginning of 2026.
func NewClock() *Clock { return &Clock{now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)} }

// Now returns the clock's time.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Advance moves the clock by d, which may be negative.
func (c *Clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}
