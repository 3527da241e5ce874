package document_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/internal/document"
)

// note is a document of names, which merge by union.
type note struct {
	ID    string
	Gen   uint64
	Names map[string]bool
}

func (n *note) Identity() string { return n.ID }

func (n *note) Generation() uint64 { return n.Gen }

// notes is the format of notes. Its roots do not encrypt, but can fail.
type notes struct{ mergeable bool }

func (f notes) Seal(ctx context.Context, root document.Root, n *note, generation uint64) ([]byte, *note, error) {
	n.Gen = generation
	data, err := json.Marshal(n)
	if err != nil {
		return nil, nil, err
	}
	n, err = f.Open(ctx, root, data, nil)
	return data, n, err
}

func (f notes) Merge(n, other *note) error {
	if !f.mergeable {
		return errors.ErrUnsupported
	}
	maps.Copy(n.Names, other.Names)
	return nil
}

type openRoot struct{ err atomic.Pointer[error] }

func (r *openRoot) EncryptWithContext(context.Context, []byte, []byte) ([]byte, error) {
	return nil, nil
}

func (r *openRoot) DecryptWithContext(context.Context, []byte, []byte) ([]byte, error) {
	if err := r.err.Load(); err != nil {
		return nil, *err
	}
	return nil, nil
}

// memory is a store whose operations a test can delay or fail.
type memory struct {
	mu      sync.Mutex
	data    []byte
	version int
	loads   int
	hook    func(ctx context.Context, op string) error
}

func (m *memory) before(ctx context.Context, op string) error {
	m.mu.Lock()
	hook := m.hook
	if op == "load" {
		m.loads++
	}
	m.mu.Unlock()
	if hook == nil {
		return ctx.Err()
	}
	return hook(ctx, op)
}

func (m *memory) set(hook func(ctx context.Context, op string) error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.hook = hook
}

func (m *memory) Load(ctx context.Context) ([]byte, string, error) {
	if err := m.before(ctx, "load"); err != nil {
		return nil, "", err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.data == nil {
		return nil, "", document.ErrNotExist
	}
	return m.data, strconv.Itoa(m.version), nil
}

func (m *memory) Swap(ctx context.Context, version string, data []byte) (string, error) {
	if err := m.before(ctx, "swap"); err != nil {
		return "", err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.data == nil && version != "" || m.data != nil && version != strconv.Itoa(m.version) {
		return "", document.ErrConflict
	}
	m.put(data)
	return strconv.Itoa(m.version), nil
}

func (m *memory) put(data []byte) {
	m.data = data
	m.version++
}

// overwrite replaces the document, as a failover or an attacker does.
func (m *memory) overwrite(data []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.put(data)
}

func (m *memory) note(t *testing.T) *note {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	n := new(note)
	require.NoError(t, json.Unmarshal(m.data, n))
	return n
}

func (m *memory) count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.loads
}

type replica = document.Replica[*note, *note]

var quiet = slog.New(slog.DiscardHandler)

func options() document.Options {
	return document.Options{
		Interval: time.Minute, Spread: 100 * time.Millisecond, MissBurst: 3,
		MaxAge: time.Second, MaxStaleness: time.Minute, Prefix: "test", Logger: quiet,
	}
}

func create(t *testing.T, store document.Store, f notes, opts document.Options) *replica {
	t.Helper()
	r, err := document.Create(t.Context(), store, &openRoot{}, f, &note{ID: "a", Names: map[string]bool{}}, opts)
	require.NoError(t, err)
	return r
}

func open(t *testing.T, store document.Store, f notes) *replica {
	t.Helper()
	r, err := document.Open(t.Context(), store, &openRoot{}, f, options())
	require.NoError(t, err)
	return r
}

func add(t *testing.T, r *replica, name string) {
	t.Helper()
	_, err := r.Edit(t.Context(), func(n *note) (bool, error) {
		changed := !n.Names[name]
		n.Names[name] = true
		return changed, nil
	})
	require.NoError(t, err)
}

func has(name string) func(*note) bool { return func(n *note) bool { return n.Names[name] } }

var errDown = errors.New("down")
