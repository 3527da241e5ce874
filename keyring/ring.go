package keyring

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/blobseal/blobseal/internal/document"
)

// Defaults of [Options].
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

	// Now is the wall clock that ages are measured by. Most services leave it nil,
	// which means [time.Now].
	Now func() time.Time

	// Logger hears what fails in the background. Nil means [slog.Default].
	Logger *slog.Logger
}

// Ring is an open key ring. All methods are safe for concurrent use. It holds
// no resources to close.
//
// Primary and Key answer from memory: they take no lock and allocate nothing
// as long as the primary is young and the key is known.
type Ring struct {
	doc  *document.Replica[*snapshot, *draft]
	opts Options
	log  *slog.Logger

	rotating chan struct{} // held by the one call of Rotate that makes a version
	rotated  atomic.Uint64 // number of versions that this Ring made
	rotation rotation      // by age
	future   atomic.Pointer[futureVersion]
}

// Open opens the ring in store under root. Both are used for as long as the
// Ring is. ctx bounds the call.
//
// Its errors are [ErrNotExist], those of the document ([ErrDamaged],
// [ErrVersion], [ErrRoot], [ErrRootUnavailable]), [ErrStore], [ErrPeriod] and
// [ErrInvalid]. Those of the store, of the root and of ctx are visible to
// [errors.Is].
func Open(ctx context.Context, store Store, root Root, opts *Options) (*Ring, error) {
	if store == nil || root == nil {
		return nil, invalid("no store or no root")
	}
	r := &Ring{rotating: make(chan struct{}, 1)}
	if opts != nil {
		r.opts = *opts
	}
	if err := r.opts.check(); err != nil {
		return nil, err
	}
	r.log = r.opts.Logger
	if err := r.openOrCreate(ctx, store, root); err != nil {
		return nil, err
	}
	s := r.doc.State()
	if p := r.opts.Period; p != 0 && p != s.period {
		return nil, fmt.Errorf("%w: options ask for %v, ring %v has %v: SetPeriod changes it", ErrPeriod, p, s.ring, s.period)
	}
	if err := r.opts.checkHardAge(s.period); err != nil {
		return nil, err
	}
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
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return nil
}

func (o *Options) checkHardAge(period time.Duration) error {
	if o.HardAge != 0 && o.HardAge < period {
		return fmt.Errorf("%w: hard age %v is less than the ring's period %v", ErrPeriod, o.HardAge, period)
	}
	return nil
}

// replica returns the options of the engine.
func (o *Options) replica() document.Options {
	return document.Options{
		Interval: o.RefreshInterval, Spread: refreshSpread, MissBurst: missBurst, Prefix: "keyring", Logger: o.Logger,
	}
}

// openOrCreate opens the document, or makes one.
func (r *Ring) openOrCreate(ctx context.Context, store Store, root Root) (err error) {
	r.doc, err = document.Open(ctx, store, root, format{}, r.opts.replica())
	if !errors.Is(err, ErrNotExist) || !r.opts.Create {
		return err
	}
	period := r.opts.Period
	if period == 0 {
		period = DefaultPeriod
	}
	if err := r.opts.checkHardAge(period); err != nil {
		return err
	}
	d, err := newRing(period, r.opts.Now())
	if err != nil {
		return err
	}
	r.doc, err = document.Create(ctx, store, root, format{}, d, r.opts.replica())
	if errors.Is(err, document.ErrExist) { // another process made one
		r.doc, err = document.Open(ctx, store, root, format{}, r.opts.replica())
	}
	return err
}

// ID returns the ring's id: 16 hex digits, drawn when it was made.
func (r *Ring) ID() string { return r.doc.State().ring.String() }

// Generation returns the number of the document that this Ring uses. It only grows.
func (r *Ring) Generation() uint64 { return r.doc.State().generation }

// Period returns the ring's rotation period.
func (r *Ring) Period() time.Duration { return r.doc.State().period }

// Keys describes all versions as this Ring knows them, oldest first. The
// caller owns the slice.
func (r *Ring) Keys() []Info { return slices.Clone(r.doc.State().infos) }

// Document returns the encrypted document that this Ring uses. It is a backup: put
// into an empty store, it is the ring again, under the same root. Take it from a running
// process if the store has lost the ring.
func (r *Ring) Document() []byte { return bytes.Clone(r.doc.Document()) }

// Refresh loads the document. ctx bounds the wait.
//
// A document that is not a later one of the same ring is refused, with
// [ErrRollback] or [ErrOtherRing], and so is one that does not open. The ring
// keeps what it had.
func (r *Ring) Refresh(ctx context.Context) error { return r.doc.Refresh(ctx) }

// Format implements [fmt.Formatter]: every verb shows the ring's id alone.
func (r *Ring) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "ring %s", r.ID()) }

// LogValue implements [slog.LogValuer] with the ring's id alone.
func (r *Ring) LogValue() slog.Value { return slog.StringValue(r.ID()) }

// MarshalText implements [encoding.TextMarshaler] with the ring's id alone.
func (r *Ring) MarshalText() ([]byte, error) { return []byte(r.ID()), nil }
