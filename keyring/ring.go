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
	refreshSpread          = 250 * time.Millisecond // over which replicas spread their loads when they hear of a change
	missBurst              = 60                     // loads after misses without a pause; then there is one a second
)

// Options change what [Open] and [Create] do. Most services leave them nil.
type Options struct {
	// Ring is the id of the ring that Open requires: another ring in the store is
	// [ErrOtherRing]. Set it if somebody could confuse the store's path or name.
	// Create ignores it.
	Ring string

	// Period is the age at which a primary is rotated, in whole seconds from a minute to
	// 3650 days. Zero means 90 days in Create, and the ring's own period in Open. In Open
	// any other period is [ErrInvalid]: [Ring.SetPeriod] changes it.
	Period time.Duration

	// HardAge is the age at which this process refuses to seal under a primary that
	// could not be rotated. It must not be less than the ring's period. Zero means four
	// periods, or with ReadOnly no limit.
	HardAge time.Duration

	// RefreshInterval is how often [Ring.Run] loads the document, give or take a fifth. It
	// is at least a second; zero means a minute. A version that another process disabled
	// keeps opening here for that long.
	RefreshInterval time.Duration

	// ReadOnly is for a ring that is provisioned from elsewhere, such as a file that
	// each pod copies from a secret. This process never writes the ring: it does not
	// rotate, and Rotate, SetState, SetPeriod and ChangeRoot return [ErrReadOnly]. Without
	// ReadOnly, each copy would rotate on its own, and none could read what another sealed.
	ReadOnly bool

	// Backup gets each document that adds a version. The document is encrypted, and not
	// stored yet, so the version has not sealed anything. If Backup fails, the version is
	// not added. Backup may also get a document that is then not stored. ctx ends after
	// half a minute.
	Backup func(ctx context.Context, document []byte) error

	// Now is the wall clock that ages are measured by. Most services leave it nil,
	// which means [time.Now]. If the store is a [Clock], that one dates changes.
	Now func() time.Time

	// Logger gets failures in the background. Nil means [slog.Default].
	Logger *slog.Logger
}

// Ring is an open key ring. All methods are safe for concurrent use. It holds
// no resources to close.
//
// Primary and Key answer from memory. While the primary is young and the key is
// known, they take no lock and allocate nothing.
type Ring struct {
	doc  *document.Replica[*snapshot, *draft]
	opts Options

	rotating chan struct{} // held by the one call that adds a version
	rotated  atomic.Uint64 // number of versions that this Ring added
	failed   atomic.Uint64 // number of rotations that failed
	rotation rotation      // by age
	future   atomic.Pointer[futureVersion]
	warned   atomic.Uint64 // id of the primary that warnOfAge warned about, plus one
}

// Open opens the ring in store under root. The Ring keeps using both. ctx bounds the call.
// A store without a ring is [ErrNotExist]: [Create] makes one.
//
// The other errors are those of the document ([ErrDamaged], [ErrVersion], [ErrRoot],
// [ErrRootUnavailable], [ErrOtherRing]), [ErrStore] and [ErrInvalid]. They wrap the errors
// of the store, the root and ctx.
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

// Create makes a new ring, stores it and opens it. If the store already holds a ring, the
// error is [ErrExist]: Create never replaces a ring, because no other ring opens what it
// sealed. Create logs the new ring's id as a warning.
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
		return nil, invalid("store or root is nil")
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
		return invalid("negative hard age: %v", o.HardAge)
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

// ID returns the ring's id: 16 random hex digits.
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

// Stats say how a [Ring], or the key service of package localkms, keeps up with its store.
// All except Generation count from when this process opened the document.
type Stats struct {
	Generation uint64 // number of the document in use; it only grows

	// Refreshed is when the last successful load began. This process knows all changes
	// that were made before. Refreshed has a monotonic clock reading.
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

// Document returns the encrypted document that this Ring uses. It is a backup: put it into
// an empty store to restore the ring, under the same root. If the store has lost the ring,
// take the document from a running process.
func (r *Ring) Document() []byte { return r.doc.Document() }

// Refresh loads the document. ctx bounds the wait.
//
// If the store lost its latest writes, its document lacks what this Ring knows. Then the
// Ring merges its own document into the stored one and writes the result back. If that
// fails, the error wraps [ErrRollback] and the reason. A document of another ring is
// [ErrOtherRing]. After an error the Ring keeps its versions.
func (r *Ring) Refresh(ctx context.Context) error { return r.doc.Refresh(ctx) }

// Run refreshes the ring every RefreshInterval and rotates it when its primary is due. It
// returns only when ctx ends, with ctx's error; a load or rotation that is running then
// continues. If the store is a [Watcher], Run also refreshes within a quarter of a second
// of hearing of a change; processes spread their loads over that time.
//
// Run logs failures and goes on. It retries a failed refresh and a broken watch after a
// pause that grows from about a second. When a refresh works again, Run retries a rotation
// that is due at once.
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
