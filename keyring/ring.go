package keyring

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"github.com/tink-crypto/tink-go/v2/tink"
)

// What an [Options] field means that is zero.
const (
	DefaultPeriod          = 90 * 24 * time.Hour
	DefaultRefreshInterval = time.Minute
	hardPeriods            = 4 // HardAge in periods
)

// Options change what [Open] does. The zero Options, and nil, are right for
// most services.
type Options struct {
	// Create makes a new ring if the store has none. A service that sets it
	// should be sure of its store: with an empty store in place of the right
	// one it starts a ring that opens none of the old objects.
	Create bool

	// Period is how old a primary grows before it is rotated, in whole seconds
	// from MinPeriod to MaxPeriod. It is kept in the document when Open creates
	// the ring; zero means DefaultPeriod. A ring that exists keeps its own:
	// zero takes that, whatever it is, and another Period is ErrPeriod, as
	// Open changes nothing. [Ring.SetPeriod] does.
	Period time.Duration

	// HardAge is the age from which this process refuses to seal under a
	// primary that cannot be rotated. Zero means four periods of the ring.
	// Less than the ring's period is ErrPeriod.
	HardAge time.Duration

	// RefreshInterval is how often [Ring.Run] loads the document, give or take
	// a fifth. Zero means DefaultRefreshInterval, less than a second is an error.
	// It is also how long a version that was disabled elsewhere keeps opening here.
	RefreshInterval time.Duration

	// Logger hears what fails in the background. Nil means [slog.Default].
	Logger *slog.Logger
}

// Ring is an open key ring. All methods are safe for concurrent use. It holds
// no resources to close.
//
// Primary and Key answer from memory: they take no lock and allocate nothing
// as long as the primary is young and the key is known.
type Ring struct {
	store   Store
	opts    Options
	log     *slog.Logger
	now     func() time.Time // wall clock; time.Now but in tests
	current atomic.Pointer[snapshot]

	// roots are the roots to open the document with, in order: one, but for
	// the time that it is not certain which of two the store's document is under.
	roots atomic.Pointer[[]tink.AEADWithContext]

	writer   chan struct{} // held by the one call that may replace the document
	rotated  atomic.Uint64 // number of versions that this Ring made
	rotation rotation      // by age
	misses   misses
}

// Open opens the ring in store under root. Both are used for as long as the
// Ring is. ctx bounds the call.
//
// Its errors are [ErrNotExist], those of the document ([ErrDamaged],
// [ErrVersion], [ErrRoot], [ErrRootUnavailable]), [ErrStore], [ErrPeriod] and
// [ErrInvalid]. Those of the store, of the root and of ctx are visible to
// [errors.Is].
func Open(ctx context.Context, store Store, root tink.AEADWithContext, opts *Options) (*Ring, error) {
	if store == nil || root == nil {
		return nil, invalid("no store or no root")
	}
	r := &Ring{store: store, now: time.Now, writer: make(chan struct{}, 1)}
	r.roots.Store(&[]tink.AEADWithContext{root})
	if opts != nil {
		r.opts = *opts
	}
	if err := r.opts.check(); err != nil {
		return nil, err
	}
	r.log = r.opts.Logger
	if r.log == nil {
		r.log = slog.Default()
	}
	s, err := r.first(ctx)
	if err != nil {
		return nil, err
	}
	if p := r.opts.Period; p != 0 && p != s.period {
		return nil, fmt.Errorf("%w: options ask for %v, ring %v has %v: SetPeriod changes it", ErrPeriod, p, s.ring, s.period)
	}
	if err := r.opts.checkHardAge(s.period); err != nil {
		return nil, err
	}
	r.current.Store(s)
	return r, nil
}

func (o *Options) check() error {
	if o.Period != 0 {
		if err := checkPeriod(o.Period); err != nil {
			return err
		}
	}
	if o.HardAge < 0 {
		return invalid("hard age of %v", o.HardAge)
	}
	if o.RefreshInterval == 0 {
		o.RefreshInterval = DefaultRefreshInterval
	}
	if o.RefreshInterval < time.Second {
		return invalid("refresh interval of %v, want at least a second", o.RefreshInterval)
	}
	return nil
}

func (o *Options) checkHardAge(period time.Duration) error {
	if o.HardAge != 0 && o.HardAge < period {
		return fmt.Errorf("%w: hard age %v is less than the ring's period %v", ErrPeriod, o.HardAge, period)
	}
	return nil
}

// first loads the document, or makes one.
func (r *Ring) first(ctx context.Context) (*snapshot, error) {
	for attempt := 0; ; attempt++ {
		data, version, err := r.load(ctx)
		if err == nil {
			o, err := open(ctx, *r.roots.Load(), data, version)
			if err != nil {
				return nil, err
			}
			return o.snapshot, nil
		}
		if !errors.Is(err, ErrNotExist) || !r.opts.Create {
			return nil, err
		}
		period := r.opts.Period
		if period == 0 {
			period = DefaultPeriod
		}
		if err := r.opts.checkHardAge(period); err != nil {
			return nil, err
		}
		d, err := newRing(period, r.now())
		if err != nil {
			return nil, err
		}
		s, err := r.swap(ctx, (*r.roots.Load())[0], "", d)
		if err == nil || !errors.Is(err, ErrConflict) {
			return s, err
		}
		if err := backOff(ctx, attempt); err != nil { // someone else made one: load it
			return nil, err
		}
	}
}

// ID returns the ring's id: 16 hex digits, drawn when it was made.
func (r *Ring) ID() string { return r.current.Load().ring.String() }

// Generation returns the number of the document that this Ring uses. It only grows.
func (r *Ring) Generation() uint64 { return r.current.Load().generation }

// Period returns the ring's rotation period.
func (r *Ring) Period() time.Duration { return r.current.Load().period }

// Keys describes all versions as this Ring knows them, oldest first. The
// caller owns the slice.
func (r *Ring) Keys() []Info { return slices.Clone(r.current.Load().infos) }

// Format implements [fmt.Formatter]: every verb shows the ring's id alone.
func (r *Ring) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "ring %s", r.ID()) }

// LogValue implements [slog.LogValuer] with the ring's id alone.
func (r *Ring) LogValue() slog.Value { return slog.StringValue(r.ID()) }

// MarshalText implements [encoding.TextMarshaler] with the ring's id alone.
func (r *Ring) MarshalText() ([]byte, error) { return []byte(r.ID()), nil }

// load gets the document from the store.
func (r *Ring) load(ctx context.Context) ([]byte, string, error) {
	data, version, err := r.store.Load(ctx)
	if err != nil {
		return nil, "", storeError(ctx, "load", err)
	}
	return data, version, nil
}

// open opens a document under whichever root does. It also tries the next if one
// cannot be asked: its key service may be what the ring moved away from.
func open(ctx context.Context, roots []tink.AEADWithContext, data []byte, version string) (*opened, error) {
	var first error
	for i, root := range roots {
		o, err := openDocument(ctx, root, data, version)
		if err == nil {
			o.root = i
			return o, nil
		}
		if first == nil {
			first = err
		}
		if !errors.Is(err, ErrRoot) && !errors.Is(err, ErrRootUnavailable) {
			break
		}
	}
	return nil, first
}

// swap seals a draft under root and replaces the document of that version.
func (r *Ring) swap(ctx context.Context, root tink.AEADWithContext, version string, d *draft) (*snapshot, error) {
	data, s, err := sealDocument(ctx, root, d)
	if err != nil {
		return nil, err
	}
	s.storeVersion, err = r.store.Swap(ctx, version, data)
	if err != nil {
		return nil, storeError(ctx, "swap", err)
	}
	return s, nil
}

// install makes s the snapshot, unless a later one is there.
func (r *Ring) install(s *snapshot) {
	for {
		old := r.current.Load()
		if old.generation > s.generation || r.current.CompareAndSwap(old, s) {
			return
		}
	}
}

// lock waits for the right to replace the document. It belongs to one call of
// this Ring at a time; other processes are held off by compare-and-swap.
func (r *Ring) lock(ctx context.Context) error {
	select {
	case r.writer <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("keyring: %w", ctx.Err())
	}
}

func (r *Ring) unlock() { <-r.writer }

// update loads the document, lets edit change it, and replaces it, again and
// again until no one else came between. edit reports whether there is anything
// to write. The new document is under newRoot, or under its old root if that is
// nil. update returns, and installs, what the store then holds. The caller
// holds the lock.
func (r *Ring) update(ctx context.Context, newRoot tink.AEADWithContext, edit func(*opened, *draft) (bool, error)) (*snapshot, error) {
	for attempt := 0; ; attempt++ {
		before := r.current.Load()
		data, version, err := r.load(ctx)
		if err != nil {
			return nil, err
		}
		o, err := open(ctx, *r.roots.Load(), data, version)
		if err != nil {
			return nil, err
		}
		if err := before.accept(o.snapshot); err != nil {
			return nil, err
		}
		d := o.edit()
		changed, err := edit(o, d)
		if err != nil || !changed {
			r.install(o.snapshot)
			return o.snapshot, err
		}
		root := newRoot
		if root == nil {
			root = (*r.roots.Load())[o.root]
		}
		s, err := r.swap(ctx, root, version, d)
		if err == nil {
			r.install(s)
			return s, nil
		}
		if !errors.Is(err, ErrConflict) {
			return nil, err
		}
		if err := backOff(ctx, attempt); err != nil {
			return nil, err
		}
	}
}

// backOff waits a random while, longer after more attempts, but at most half a second.
func backOff(ctx context.Context, attempt int) error {
	limit := min(5*time.Millisecond<<min(attempt, 10), 500*time.Millisecond)
	timer := time.NewTimer(rand.N(limit))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrConflict, ctx.Err())
	}
}
