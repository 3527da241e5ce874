package keyring

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/blobseal/blobseal/internal/document"
	"github.com/blobseal/blobseal/internal/isnil"
)

const (
	defaultPeriod          = 90 * 24 * time.Hour
	defaultRefreshInterval = time.Minute
	hardPeriods            = 4                      // HardAge in periods
	refreshSpread          = 250 * time.Millisecond // over which the replicas that hear of a change load it
	missBurst              = 60                     // loads after a miss at once; then one a second
)

// Options change what [Open] and [Create] do. Most services leave them nil.
type Options struct {
	// Ring is the id of the ring that Open insists on: another ring in the store is
	// [ErrOtherRing]. Set it where the store is a path or a name that could be mistaken.
	// Create ignores it.
	Ring string

	// Period is the age at which a primary is rotated, in whole seconds from a minute to
	// 3650 days. Zero means 90 days in Create. In Open zero takes the ring's own period,
	// and any other than that is [ErrInvalid]: [Ring.SetPeriod] changes it.
	Period time.Duration

	// HardAge is the age at which this process refuses to seal under a primary that
	// could not be rotated. It must not be less than the ring's period. Zero means four
	// periods, or with ReadOnly no limit.
	HardAge time.Duration

	// RefreshInterval is how often [Ring.Run] loads the document, give or take a fifth,
	// at least a second. Zero means a minute. A version that was disabled elsewhere keeps
	// opening here for that long.
	RefreshInterval time.Duration

	// ReadOnly is for a ring that is provisioned from elsewhere, such as a file that
	// each pod copies from a secret. This process never writes it: it does not rotate,
	// and Rotate, SetState, SetPeriod and ChangeRoot are [ErrReadOnly]. Without it, each
	// copy would rotate by itself, and no copy could read what the others sealed.
	ReadOnly bool

	// Backup gets each document that adds a version, encrypted, before it is stored and
	// so before the version seals anything. If Backup fails, the version is not added. It
	// may also get a document that is then not stored. ctx ends after half a minute.
	Backup func(ctx context.Context, document []byte) error

	// Now is the wall clock that ages are measured by. Most services leave it nil,
	// which means [time.Now]. If the store is a [Clock], changes are dated by that.
	Now func() time.Time

	// Logger gets what fails in the background. Nil means [slog.Default].
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

	rotating chan struct{} // held by the one call of Rotate that makes a version
	rotated  atomic.Uint64 // number of versions that this Ring made
	failed   atomic.Uint64 // number of rotations that failed
	rotation rotation      // by age
	future   atomic.Pointer[futureVersion]
	warned   atomic.Uint64 // id of the primary that warnOfAge warned of, plus one
}

// Open opens the ring in store under root, and uses both for as long as the Ring is
// used. ctx bounds the call. A store without a ring is [ErrNotExist]: [Create] makes one.
//
// Its other errors are those of the document ([ErrDamaged], [ErrVersion], [ErrRoot],
// [ErrRootUnavailable], [ErrOtherRing]), [ErrStore] and [ErrInvalid]. The errors of the
// store, of the root and of ctx are wrapped beside them.
func Open(ctx context.Context, store Store, root Root, opts *Options) (*Ring, error) {
	r, err := newRing(store, root, opts)
	if err != nil {
		return nil, err
	}
	r.doc, err = document.Open(ctx, store, root, r.format(), r.replicaOptions())
	if err != nil {
		return nil, err
	}
	s := r.doc.State()
	if id := r.opts.Ring; id != "" && id != s.Identity() {
		return nil, fmt.Errorf("%w: store holds %v, options ask for %.64s", ErrOtherRing, s.ring, id)
	}
	if p := r.opts.Period; p != 0 && p != s.period {
		return nil, invalid("options ask for a period of %v, ring %v has %v (SetPeriod changes it)", p, s.ring, s.period)
	}
	if err := r.opts.checkHardAge(s.period); err != nil {
		return nil, err
	}
	return r, nil
}

// Create makes a new ring, stores it and opens it. A store that holds a ring already is
// [ErrExist], so that no ring is ever replaced; what was sealed under one ring does not
// open with another. Create logs the new ring's id as a warning.
//
// It refuses, with [ErrInvalid], roots that are too easy to guess: a passphrase of fewer
// than 12 bytes, and a key that is printable text. Otherwise it is like [Open].
func Create(ctx context.Context, store Store, root Root, opts *Options) (*Ring, error) {
	r, err := newRing(store, root, opts)
	if err != nil {
		return nil, err
	}
	if r.opts.ReadOnly {
		return nil, ErrReadOnly
	}
	r.opts.Period = cmp.Or(r.opts.Period, defaultPeriod)
	if err := r.opts.checkHardAge(r.opts.Period); err != nil {
		return nil, err
	}
	now, _, err := document.TimeOf(ctx, store, r.opts.Now)
	if err != nil {
		return nil, err
	}
	d, err := newDraft(r.opts.Period, now)
	if err != nil {
		return nil, err
	}
	r.doc, err = document.Create(ctx, store, root, r.format(), d, r.replicaOptions())
	if err != nil {
		return nil, err
	}
	r.opts.Logger.LogAttrs(ctx, slog.LevelWarn, "keyring: created a new ring, which opens nothing that was sealed before",
		slog.String("ring", r.ID()), slog.Duration("period", r.Period()))
	return r, nil
}

// newRing checks the arguments of Open and Create.
func newRing(store Store, root Root, opts *Options) (*Ring, error) {
	if isnil.Any(store) || isnil.Any(root) {
		return nil, invalid("no store or no root")
	}
	r := &Ring{rotating: make(chan struct{}, 1)}
	if opts != nil {
		r.opts = *opts
	}
	if err := r.opts.check(); err != nil {
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
	o.RefreshInterval = cmp.Or(o.RefreshInterval, defaultRefreshInterval)
	if o.RefreshInterval < time.Second {
		return invalid("refresh interval of %v, want at least a second", o.RefreshInterval)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	o.Logger = cmp.Or(o.Logger, slog.Default())
	return nil
}

func (o *Options) checkHardAge(period time.Duration) error {
	if o.HardAge != 0 && o.HardAge < period {
		return invalid("hard age %v is less than the ring's period %v", o.HardAge, period)
	}
	return nil
}

// replicaOptions returns the options of the engine.
func (r *Ring) replicaOptions() document.Options {
	return document.Options{
		Interval: r.opts.RefreshInterval, Spread: refreshSpread, MissBurst: missBurst, ReadOnly: r.opts.ReadOnly,
		Prefix: "keyring", Name: "ring", Logger: r.opts.Logger,
	}
}

func (r *Ring) format() format { return format{backup: r.opts.Backup} }

// ID returns the ring's id: 16 hex digits, drawn when it was made.
func (r *Ring) ID() string { return r.doc.State().ring.String() }

// Period returns the ring's rotation period.
func (r *Ring) Period() time.Duration { return r.doc.State().period }

// Versions returns all versions as this Ring knows them, oldest first; the last is the
// primary. The caller owns the slice.
func (r *Ring) Versions() []Version {
	var all []Version
	s := r.doc.State()
	for i := range s.versions {
		all = append(all, s.info(&s.versions[i]))
	}
	return all
}

// Stats tell how a [Ring], or the key service of package localkms, keeps up with its
// store. All but Generation are of this process, since it opened the document.
type Stats struct {
	Generation uint64 // number of the document in use; it only grows

	// Refreshed is when the last successful load began: nothing in the store that is
	// older is unknown here. It has a monotonic clock reading.
	Refreshed time.Time

	Refreshes       uint64 // loads that succeeded
	RefreshFailures uint64

	Rotations        uint64 // versions that this process added
	RotationFailures uint64
}

// Stats returns the statistics of this Ring.
func (r *Ring) Stats() Stats {
	s := Stats{Generation: r.doc.State().generation, Refreshed: r.doc.Verified(), Rotations: r.rotated.Load(), RotationFailures: r.failed.Load()}
	s.Refreshes, s.RefreshFailures = r.doc.Loads()
	return s
}

// Document returns the encrypted document that this Ring uses. It is a backup: put
// into an empty store, it is the ring again, under the same root. Take it from a running
// process if the store has lost the ring.
func (r *Ring) Document() []byte { return r.doc.Document() }

// Refresh loads the document. ctx bounds the wait.
//
// A document that lacks what this Ring knows, because the store lost its latest writes,
// is healed: the Ring merges its own document into the stored one and writes the result
// back. If that fails, the error is [ErrRollback] and the reason. A document of another
// ring is [ErrOtherRing]. After an error the Ring keeps what it had.
func (r *Ring) Refresh(ctx context.Context) error { return r.doc.Refresh(ctx) }

// Run refreshes the ring every RefreshInterval and rotates it in time, until
// ctx ends, and returns ctx's error. If the store is a [Watcher], Run also
// refreshes within a quarter of a second of hearing of a change; the processes
// that hear of it spread their loads over that time.
//
// Failures go to the Logger, and Run goes on: a refresh that failed is tried again
// sooner than after an interval, and so is a watch, each after a pause that grows
// from about a second. Once a refresh works again, a rotation that is due is tried
// at once.
//
// Run returns only when ctx ends. A load or rotation that is under way then goes on.
//
// Call Run once for each Ring, in every process. Without it, a ring still seals, opens,
// rotates and finds new versions when it is used, but learns of disabled and destroyed
// versions only from [Ring.Refresh].
func (r *Ring) Run(ctx context.Context) error {
	return r.doc.Run(ctx, func(ctx context.Context, recovered bool) {
		if recovered {
			r.rotation.retryNow()
		}
		if a, _, _ := r.beginRotation(ctx); a != nil {
			select {
			case <-a.done:
			case <-ctx.Done():
			}
		}
	})
}
