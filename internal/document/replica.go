package document

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Store is keyring.Store, whose documentation is the contract.
type Store interface {
	Load(ctx context.Context) (data []byte, version string, err error)
	Swap(ctx context.Context, version string, data []byte) (newVersion string, err error)
}

// Watcher is keyring.Watcher.
type Watcher interface {
	Watch(ctx context.Context, changed func()) error
}

// Root is tink.AEADWithContext.
type Root interface {
	EncryptWithContext(ctx context.Context, plaintext, associatedData []byte) ([]byte, error)
	DecryptWithContext(ctx context.Context, ciphertext, associatedData []byte) ([]byte, error)
}

// NewRootChecker is a [Root] that can be too easy to guess. [Create] and
// [Replica.ChangeRoot] call CheckNew first and return its error. [Open] does not: an old
// document stays readable.
type NewRootChecker interface {
	Root
	CheckNew() error
}

func checkNewRoot(root Root) error {
	if c, ok := root.(NewRootChecker); ok {
		return c.CheckNew()
	}
	return nil
}

// State is what a process keeps of one document: a pointer to an immutable value.
type State interface {
	Identity() string   // stays the same for as long as the document exists
	Generation() uint64 // larger in each document that replaces another
}

// Format reads, writes, compares and merges documents of one kind. Its methods
// may be called concurrently.
type Format[S State, O any] interface {
	// Open parses and decrypts data. known is the state in use, and a format may reuse
	// its parts. known is nil before the first load. Errors are ErrDamaged, ErrVersion,
	// and those that RootError returns.
	Open(ctx context.Context, root Root, data []byte, known S) (O, error)

	// State returns what a process keeps of o.
	State(o O) (S, error)

	// Draft returns a copy of s to edit, without asking a root. If a state does not
	// hold enough for that, ok is false, and the engine opens the document again.
	Draft(s S) (o O, ok bool)

	// Seal encrypts o under that generation, and returns the document and its
	// state. If Seal asks the root, it also opens the result, so that no document
	// is stored that the root cannot open.
	Seal(ctx context.Context, root Root, o O, generation uint64) (data []byte, s S, err error)

	// Includes returns nil if next holds everything that known holds, and otherwise
	// an error that says what next lacks. Both have the same identity.
	Includes(known, next S) error

	// Merge adds to o everything that other holds. On content it must be
	// commutative, associative and idempotent. A format that cannot merge returns
	// errors.ErrUnsupported; its replicas reject documents that lack what they
	// know, with ErrRollback.
	Merge(o, other O) error
}

// Options configure a replica. Patience, Name and Logger have defaults.
type Options struct {
	Interval  time.Duration // between refreshes of Run, give or take a fifth
	Spread    time.Duration // over which processes spread their loads when they hear of a change
	MissBurst int           // loads after misses without a pause; then there is one a second

	MaxAge       time.Duration // of a state that Fresh returns
	MaxStaleness time.Duration // of a state that Fresh returns while the store fails
	Patience     time.Duration // of a caller of Fresh with a state younger than MaxStaleness; a second if zero

	ReadOnly bool // neither edit nor heal

	Prefix string // of log messages, such as "keyring"
	Name   string // of the log attribute with the document's identity, such as "ring"
	Logger *slog.Logger
}

// Bounds of every replica.
const (
	LoadTimeout = 10 * time.Second // of one load
	EditTimeout = 30 * time.Second // of one attempt to edit
	LostGrace   = 30 * time.Second // to keep sealing under a key that the store lacks
	seenLimit   = 256              // documents that a replica recognizes
	formerLimit = 8                // roots that a replica remembers
)

// Replica is this process's copy of a document. All methods are safe for
// concurrent use. It holds no resources to close.
type Replica[S State, O any] struct {
	store  Store
	format Format[S, O]
	opts   Options
	start  time.Time

	current  atomic.Pointer[snapshot[S]]
	verified atomic.Int64 // time from start until the latest successful load began
	diverged atomic.Pointer[Divergence[S]]
	keys     atomic.Pointer[rootSet]

	writer chan struct{} // held by the one call that may replace the document
	loads  loads
	seen   seen
}

// snapshot is a document as a process knows it. It is immutable.
type snapshot[S State] struct {
	state   S
	data    []byte // encrypted
	sum     [sha256.Size]byte
	version string   // the store's name for it
	root    *rootRef // that opened or sealed it
}

// rootRef identifies a root: roots themselves may not be comparable.
type rootRef struct{ Root }

// rootSet holds the roots to open documents with, in order. There is one, unless it is
// uncertain which of several the stored document is under.
type rootSet struct {
	roots  []*rootRef
	former []*rootRef // replaced by ChangeRoot; they may open documents that this process had before
}

func (s *rootSet) all() []*rootRef { return slices.Concat(s.roots, s.former) }

// Divergence means that the store lacks something that this process knows.
type Divergence[S State] struct {
	Since time.Time
	State S // of the stored document; nil if there is none
	Err   error
}

func newReplica[S State, O any](store Store, root Root, format Format[S, O], opts Options) *Replica[S, O] {
	opts.Logger = cmp.Or(opts.Logger, slog.Default())
	opts.Patience = cmp.Or(opts.Patience, time.Second)
	opts.Name = cmp.Or(opts.Name, "document")
	opts.Spread = max(opts.Spread, time.Millisecond)
	opts.MissBurst = max(opts.MissBurst, 1)
	r := &Replica[S, O]{store: store, format: format, opts: opts, start: time.Now(), writer: make(chan struct{}, 1)}
	r.keys.Store(&rootSet{roots: []*rootRef{{root}}})
	r.loads.changed = make(chan struct{})
	return r
}

// Open opens the document in store under root. ctx bounds the call.
func Open[S State, O any](ctx context.Context, store Store, root Root, format Format[S, O], opts Options) (*Replica[S, O], error) {
	r := newReplica(store, root, format, opts)
	began := time.Now()
	s, err := r.fetch(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := r.openLoaded(ctx, r.keys.Load().roots, s, new(snapshot[S])); err != nil {
		return nil, err
	}
	r.adopt(s, began)
	return r, nil
}

// Create stores o as the first document of its identity, and returns its replica.
// If the store already holds a document, the error is [ErrExist]. See [NewRootChecker].
func Create[S State, O any](ctx context.Context, store Store, root Root, format Format[S, O], o O, opts Options) (*Replica[S, O], error) {
	if err := checkNewRoot(root); err != nil {
		return nil, err
	}
	r := newReplica(store, root, format, opts)
	_, err := r.fetch(ctx)
	if err == nil {
		return nil, ErrExist
	}
	if !errors.Is(err, ErrNotExist) {
		return nil, err
	}
	_, err = r.put(ctx, r.keys.Load().roots[0], "", o, 1)
	if errors.Is(err, ErrConflict) {
		return nil, ErrExist
	}
	if err != nil {
		return nil, err
	}
	return r, nil
}

// State returns the state in use. Its generation only grows.
func (r *Replica[S, O]) State() S { return r.current.Load().state }

// Document returns a copy of the encrypted document that State came from.
func (r *Replica[S, O]) Document() []byte { return bytes.Clone(r.current.Load().data) }

// Verified returns when the last load that succeeded began: State is at least as
// new as the store was then.
func (r *Replica[S, O]) Verified() time.Time {
	return r.start.Add(time.Duration(r.verified.Load()))
}

// Diverged returns a [Divergence] while the store is known to lack something that State
// holds, and otherwise nil.
func (r *Replica[S, O]) Diverged() *Divergence[S] { return r.diverged.Load() }

// adopt makes s the current snapshot, unless the current one is later. began is when the
// store was asked for s.
func (r *Replica[S, O]) adopt(s *snapshot[S], began time.Time) {
	for {
		old := r.current.Load()
		if old != nil && r.isLater(old, s) {
			break
		}
		if r.current.CompareAndSwap(old, s) {
			if old == nil || old.sum != s.sum {
				r.seen.add(s.sum)
				r.loads.announce()
			}
			break
		}
	}
	r.diverged.Store(nil)
	good := int64(began.Sub(r.start))
	for {
		old := r.verified.Load()
		if old >= good || r.verified.CompareAndSwap(old, good) {
			return
		}
	}
}

// isLater reports whether old must stay in use although s was just loaded or stored.
func (r *Replica[S, O]) isLater(old, s *snapshot[S]) bool {
	if old.sum == s.sum {
		return false // only the store's name for it may differ
	}
	if old.state.Generation() != s.state.Generation() {
		return old.state.Generation() > s.state.Generation()
	}
	return r.format.Includes(old.state, s.state) != nil
}

// fetch loads the document. Its snapshot has no state and no root yet.
func (r *Replica[S, O]) fetch(ctx context.Context) (*snapshot[S], error) {
	data, version, err := r.store.Load(ctx)
	if err != nil {
		return nil, StoreError(ctx, "load", err)
	}
	s := &snapshot[S]{data: data, version: version}
	// Documents are large, and most loads find the same one again: comparing it costs a
	// tenth of hashing it.
	if known := r.current.Load(); known != nil && bytes.Equal(data, known.data) {
		s.sum = known.sum
	} else {
		s.sum = sha256.Sum256(data)
	}
	return s, nil
}

// openLoaded opens a document that was just loaded, and completes its snapshot.
func (r *Replica[S, O]) openLoaded(ctx context.Context, roots []*rootRef, loaded, known *snapshot[S]) (o O, err error) {
	if o, loaded.root, err = r.open(ctx, roots, loaded.data, known.state); err == nil {
		loaded.state, err = r.format.State(o)
	}
	return o, err
}

// compare is openLoaded for a document that is to replace the known one. Its error also
// says why it may not: [ErrOtherRing], or [ErrRollback], which is recorded.
func (r *Replica[S, O]) compare(ctx context.Context, roots []*rootRef, loaded, known *snapshot[S]) (O, error) {
	o, err := r.openLoaded(ctx, roots, loaded, known)
	if err == nil {
		err = r.judge(known.state, loaded.state)
	}
	if errors.Is(err, ErrRollback) {
		r.diverge(loaded.state, err)
	}
	return o, err
}

// open opens a document under the first root that can. If a root cannot be asked, open
// tries the next: the ring may have moved away from a key service that is gone.
func (r *Replica[S, O]) open(ctx context.Context, roots []*rootRef, data []byte, known S) (O, *rootRef, error) {
	var none O
	var first error
	for _, root := range roots {
		o, err := r.format.Open(ctx, root.Root, data, known)
		if err == nil {
			return o, root, nil
		}
		first = cmp.Or(first, err)
		if !errors.Is(err, ErrRoot) && !errors.Is(err, ErrRootUnavailable) {
			break
		}
	}
	return none, nil, first
}

// put seals o, puts it into the store in place of that version, and adopts it.
func (r *Replica[S, O]) put(ctx context.Context, root *rootRef, version string, o O, generation uint64) (*snapshot[S], error) {
	data, state, err := r.format.Seal(ctx, root.Root, o, generation)
	if err != nil {
		return nil, err
	}
	s := &snapshot[S]{state: state, data: data, sum: sha256.Sum256(data), root: root}
	return s, r.swap(ctx, version, s)
}

// swap puts s into the store in place of that version, and adopts it.
func (r *Replica[S, O]) swap(ctx context.Context, version string, s *snapshot[S]) (err error) {
	began := time.Now()
	if s.version, err = r.store.Swap(ctx, version, s.data); err != nil {
		return StoreError(ctx, "swap", err)
	}
	r.adopt(s, began)
	return nil
}

// judge returns nil if a loaded state may replace the known one, and otherwise
// ErrOtherRing or ErrRollback.
func (r *Replica[S, O]) judge(known, next S) error {
	if known.Identity() != next.Identity() {
		return fmt.Errorf("%w: %s, not %s", ErrOtherRing, next.Identity(), known.Identity())
	}
	if err := r.format.Includes(known, next); err != nil {
		return fmt.Errorf("%w: generation %d, after %d: %w", ErrRollback, next.Generation(), known.Generation(), err)
	}
	if next.Generation() < known.Generation() {
		return fmt.Errorf("%w: generation %d, after %d", ErrRollback, next.Generation(), known.Generation())
	}
	return nil
}

// diverge records that the store lacks what this process knows.
func (r *Replica[S, O]) diverge(stored S, err error) {
	since := time.Now()
	if d := r.diverged.Load(); d != nil {
		since = d.Since
	}
	r.diverged.Store(&Divergence[S]{Since: since, State: stored, Err: err})
}

func (r *Replica[S, O]) log(ctx context.Context, level slog.Level, message string, attrs ...slog.Attr) {
	attrs = append([]slog.Attr{slog.String(r.opts.Name, r.State().Identity())}, attrs...)
	r.opts.Logger.LogAttrs(ctx, level, r.opts.Prefix+": "+message, attrs...)
}

// seen recognizes the latest documents that a replica had.
type seen struct {
	mu   sync.Mutex
	sums [seenLimit][sha256.Size]byte
	next int
}

func (s *seen) add(sum [sha256.Size]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sums[s.next%seenLimit] = sum
	s.next++
}

func (s *seen) has(sum [sha256.Size]byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Contains(s.sums[:min(s.next, seenLimit)], sum)
}
