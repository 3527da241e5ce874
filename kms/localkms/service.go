package localkms

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/blobseal/blobseal/internal/document"
	"github.com/blobseal/blobseal/internal/isnil"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/audit"
)

const (
	defaultRefreshInterval = time.Second
	defaultMaxStaleness    = time.Minute
)

// Options change what [Open] and [Create] do. Most services set Audit and Policy.
type Options struct {
	// Policy is the policy of the service itself, in Cedar; see the package
	// documentation. It is not stored: each process brings its own. If it is empty,
	// every principal may do everything within the account of its [Client], except
	// where a key's policy says otherwise.
	Policy string

	// Quota bounds what each account may hold.
	Quota Quota

	// Audit takes a record of every operation except the two of [kms.Client], which
	// [audit.NewClient] records; that also sees the uses that a cache answers. Nil
	// records nothing.
	//
	// A change is recorded before it is stored, and any other operation before its
	// result is returned. An operation that cannot be recorded fails with
	// [audit.ErrNotRecorded] and changes nothing. If the store then refuses a recorded
	// change, a second record with the same request id says so.
	Audit audit.Sink

	// RefreshInterval is how old the service's knowledge of the store may be when a
	// key is used. A call that finds it older loads the document first, while other
	// calls go on. So a key that another process disabled may serve here for this
	// long, plus the time of a load. Zero means a second. A process that has its store
	// to itself may set it high.
	RefreshInterval time.Duration

	// MaxStaleness is how long the service uses what it knows while the store fails or
	// hangs. After that, every use of a key is [kms.ErrUnavailable]. Zero means a
	// minute, or RefreshInterval if that is longer.
	//
	// If the store is known to lack the version that would encrypt, for example after a
	// failover, and has not been healed for half a minute, or for half of MaxStaleness
	// if that is less, encrypting is [kms.ErrUnavailable] and [keyring.ErrRollback].
	MaxStaleness time.Duration

	// Now is the wall clock by which keys are rotated and deleted. Nil means
	// [time.Now]. If the store is a [keyring.Clock], changes are dated by that. A
	// process whose clock differs from the store's by more than ten minutes then
	// rotates and deletes nothing, and of an administrator's changes it makes only
	// those that take power away: see [ErrFull]. All others are
	// [kms.ErrUnavailable] and a [*keyring.ClockError].
	Now func() time.Time

	// Logger hears about failures that fail no call: loads, rotations, deletions. Nil
	// means [slog.Default].
	Logger *slog.Logger
}

// Service is an open key service. Its [Client] does the work. All methods are
// safe for concurrent use, and it holds no resources to close.
type Service struct {
	doc    *document.Replica[*snapshot, *draft]
	format *format
	opts   Options
	log    *slog.Logger
	policy *policy  // the service's own, or nil
	lost   sync.Map // keyID -> deadline (int64) that has passed, even if the clock goes back

	rotated atomic.Uint64 // number of versions of keys that this Service added
	failed  atomic.Uint64 // number of attempts at that which failed

	maintaining atomic.Bool
	resume      atomic.Int64 // when maintenance may be tried again after a failure; since start
	start       time.Time
}

// Open opens the service in store under root, and uses both for as long as the
// Service is used. ctx bounds the call. Keys whose deletion is due are deleted
// before Open returns, if the store allows.
//
// Its errors are [keyring.ErrNotExist], see [Create]; [keyring.ErrDamaged],
// [keyring.ErrVersion] and [keyring.ErrRoot] for the document;
// [kms.ErrUnavailable] if the store or the root could not be asked; [ErrPolicy] for
// Options.Policy; and [kms.ErrInvalid].
func Open(ctx context.Context, store keyring.Store, root keyring.Root, opts *Options) (*Service, error) {
	s, err := newService(store, root, opts)
	if err != nil {
		return nil, err
	}
	s.doc, err = document.Open(ctx, store, root, s.format, s.engineOptions())
	if err != nil {
		return nil, openError(ctx, err)
	}
	if s.maintenanceDue() {
		s.maintain(ctx, ownPatience)
	}
	return s, nil
}

// Create makes a new service without keys, stores it and opens it. A store that
// holds a document already is [keyring.ErrExist], so that no service is ever
// replaced. Create logs the new service's id as a warning: a service that creates
// one because its volume was not mounted opens nothing that was encrypted before.
// It refuses roots that are too easy to guess, with [kms.ErrInvalid]: see
// [keyring.Create]. Otherwise Create is like [Open].
func Create(ctx context.Context, store keyring.Store, root keyring.Root, opts *Options) (*Service, error) {
	s, err := newService(store, root, opts)
	if err != nil {
		return nil, err
	}
	s.doc, err = document.Create(ctx, store, root, s.format, newDraft(), s.engineOptions())
	if err != nil {
		return nil, openError(ctx, err)
	}
	s.log.LogAttrs(ctx, slog.LevelWarn, "localkms: created a new key service, which opens nothing that was encrypted before",
		slog.String("service", s.doc.State().Identity()))
	return s, nil
}

// newService checks the arguments of Open and Create.
func newService(store keyring.Store, root keyring.Root, opts *Options) (*Service, error) {
	if isnil.Any(store) || isnil.Any(root) {
		return nil, invalid("no store or no root")
	}
	s := &Service{start: time.Now()}
	if opts != nil {
		s.opts = *opts
	}
	if err := s.opts.check(); err != nil {
		return nil, err
	}
	s.log = s.opts.Logger
	s.format = &format{limit: documentLimit(store), log: s.log}
	if s.opts.Policy != "" {
		p, err := newPolicy(s.opts.Policy)
		if err != nil {
			return nil, err
		}
		s.policy = p
	}
	return s, nil
}

// engineOptions returns the options of the engine.
func (s *Service) engineOptions() document.Options {
	return document.Options{
		Interval: s.opts.RefreshInterval / 3 * 2, // before callers have to
		Spread:   refreshSpread, MissBurst: missBurst,
		MaxAge: s.opts.RefreshInterval, MaxStaleness: s.opts.MaxStaleness, Patience: usePatience,
		Prefix: "localkms", Logger: s.log,
	}
}

const (
	missBurst     = 20                     // loads after a miss at once; then one a second
	refreshSpread = 100 * time.Millisecond // over which the processes that hear of a change load it
)

func (o *Options) check() error {
	if o.RefreshInterval < 0 || o.MaxStaleness < 0 {
		return invalid("negative RefreshInterval or MaxStaleness")
	}
	o.RefreshInterval = cmp.Or(o.RefreshInterval, defaultRefreshInterval)
	o.MaxStaleness = cmp.Or(o.MaxStaleness, max(defaultMaxStaleness, o.RefreshInterval))
	if o.MaxStaleness < o.RefreshInterval {
		return invalid("MaxStaleness %v is less than RefreshInterval %v", o.MaxStaleness, o.RefreshInterval)
	}
	o.Logger = cmp.Or(o.Logger, slog.Default())
	if o.Now == nil {
		o.Now = time.Now
	}
	return o.Quota.check()
}

// now returns the wall clock's time, in Unix milliseconds.
func (s *Service) now() int64 { return millis(s.opts.Now()) }

// Refresh loads the document now. Calls do so by themselves, see
// Options.RefreshInterval. ctx bounds the wait.
//
// If the document lacks changes that this process knows, Refresh merges them into
// the store, and fails with [keyring.ErrRollback] if the store refuses. A document
// of another service is [keyring.ErrOtherRing]. After an error the service uses
// what it had, up to Options.MaxStaleness. All errors are also
// [kms.ErrUnavailable].
func (s *Service) Refresh(ctx context.Context) error {
	return unavailable(ctx, s.doc.Refresh(ctx))
}

// freshSnapshot returns a snapshot that is young enough to use a key by. It performs
// maintenance that is due first.
func (s *Service) freshSnapshot(ctx context.Context) (*snapshot, error) {
	if err := contextError(ctx); err != nil {
		return nil, err
	}
	snap, err := s.doc.Fresh(ctx)
	if err != nil {
		return nil, unavailable(ctx, err)
	}
	if !s.maintenanceDue() {
		return snap, nil
	}
	s.maintain(ctx, usePatience)
	return s.doc.State(), nil
}

// loadFor returns a snapshot in which found is true, or one that was loaded after
// the call. id names what is looked for.
func (s *Service) loadFor(ctx context.Context, id string, found func(*snapshot) bool) (*snapshot, error) {
	snap, err := s.doc.Lookup(ctx, id, found)
	return snap, unavailable(ctx, err)
}

// update loads the document, lets edit change it and replaces it, and starts over
// if another process replaced it meanwhile. It calls commit before it stores
// anything. An error of edit or of commit ends the call.
func (s *Service) update(ctx context.Context, edit func(*draft) error, commit func() error) error {
	if err := contextError(ctx); err != nil {
		return err
	}
	var refused error // by edit or commit
	_, err := s.doc.Edit(ctx, func(d *draft) (bool, error) {
		wrongClock, err := s.setTime(ctx, d)
		if err != nil {
			return false, err
		}
		refused = edit(d)
		if refused == nil && d.changed && !d.takesAway && wrongClock != nil {
			refused = unavailable(ctx, wrongClock)
		}
		if refused == nil && d.changed {
			d.prune()
			refused = s.format.checkSize(d)
		}
		if refused == nil {
			refused = commit()
		}
		return d.changed, refused
	})
	switch {
	case refused != nil:
		return refused
	case errors.Is(err, keyring.ErrFull):
		return fmt.Errorf("%w: the store refused the document: %w", ErrFull, err)
	default:
		return unavailable(ctx, err)
	}
}

// setTime sets the draft's times. wrongClock is not nil if this process's clock differs
// from the store's; then only what takes power away is changed, dated by the store's.
func (s *Service) setTime(ctx context.Context, d *draft) (wrongClock, err error) {
	now, ofStore, err := s.doc.Time(ctx, s.opts.Now)
	var differ *keyring.ClockError
	if err != nil && !errors.As(err, &differ) {
		return nil, err
	}
	d.now, d.ofStore = millis(now), ofStore
	d.past = d.now
	if !ofStore {
		d.past = min(d.now, d.newestTime(maxMillis))
	}
	return err, nil
}

// ChangeRoot puts the document under another root and a new document key, in one
// write, and uses that root from then on. ctx bounds the call. Like [Create], it
// refuses roots that are too easy to guess.
//
// Call it in every running process before you disable the old root: a process
// that was not told fails to refresh, and the same call tells it. After an error
// of the store, call it again; if the root was changed already, it does nothing.
// Keys do not change, so an attacker who copied an older document and its root can
// still decrypt.
func (s *Service) ChangeRoot(ctx context.Context, root keyring.Root) error {
	if isnil.Any(root) {
		return invalid("no root")
	}
	err := s.doc.ChangeRoot(ctx, root, func(d *draft) error {
		d.sealed = nil // Seal draws another key
		return nil
	})
	if errors.Is(err, keyring.ErrInvalid) {
		return fmt.Errorf("%w: %w", kms.ErrInvalid, err)
	}
	if err != nil && (errors.Is(err, keyring.ErrStore) || errors.Is(err, keyring.ErrRootUnavailable) || ctx.Err() != nil) {
		return unavailable(ctx, err)
	}
	return err
}

// Merge adds to the service what another document of it holds: a backup, or
// [Service.Document] of a process that ran elsewhere. It must be under this service's
// root. What either of them took away stays so: keys that were disabled, denied,
// scheduled for deletion or deleted, grants and aliases that were removed. If both
// changed a key's policy, both have to permit. If the service has all of it already,
// nothing is written. ctx bounds the call.
//
// A service merges by itself what its own process knows. Merge is for documents that no
// running process knows. It is not recorded: it needs the root, not a permission. [Open]
// deletes keys whose deletion is due; if another document may have cancelled that, open
// the service with an Options.Now in the past, and merge. Merge fails with
// [keyring.ErrOtherRing], [ErrFull], or an error of the document as Open does.
func (s *Service) Merge(ctx context.Context, document []byte) error {
	other, err := s.doc.OpenOther(ctx, document)
	if err != nil {
		return openError(ctx, err)
	}
	if own := s.doc.State(); other.service != own.service {
		return fmt.Errorf("%w: document is of key service %x, not %x", keyring.ErrOtherRing, other.service, own.service)
	}
	merge := func(d *draft) error {
		if other.contents.includes(&d.contents) == nil {
			return nil
		}
		return s.format.Merge(d, other)
	}
	return s.update(ctx, merge, func() error { return nil })
}

// Document returns the encrypted document that this Service uses, for a backup.
func (s *Service) Document() []byte { return s.doc.Document() }

// Stats returns the statistics of this Service. Rotations are those of its keys. A
// rotation by schedule that fails counts once for all keys that are due. One on demand
// counts as failed if the store failed, not if it was refused.
func (s *Service) Stats() keyring.Stats {
	stats := keyring.Stats{Generation: s.doc.State().generation, Refreshed: s.doc.Verified(), Rotations: s.rotated.Load(), RotationFailures: s.failed.Load()}
	stats.Refreshes, stats.RefreshFailures = s.doc.Loads()
	return stats
}

// Run refreshes the service, and rotates and deletes keys that are due, until ctx
// ends. It returns ctx's error. If the store is a [keyring.Watcher], Run also
// refreshes within a tenth of a second of a change.
//
// Failures go to the Logger, and Run goes on: it retries a load after
// RefreshInterval at the latest, and a broken watch after a pause that grows from a
// second to a minute.
//
// Run it in every process that uses keys. Without it, calls refresh the service
// when they find it too old, and rotate and delete what they find due.
func (s *Service) Run(ctx context.Context) error {
	return s.doc.Run(ctx, func(ctx context.Context, _ bool) {
		if s.maintenanceDue() {
			s.maintain(ctx, ownPatience)
		}
	})
}

// Client returns the service as an account sees it in a region. Keys and aliases
// belong to both. Each is 1 to 64 letters, digits, dots, dashes and underscores;
// empty ones are "000000000000" and "local". A Client costs nothing: make
// one per request if you like.
func (s *Service) Client(account, region string) (*Client, error) {
	c := &Client{service: s, scope: scope{cmp.Or(account, defaultAccount), cmp.Or(region, defaultRegion)}}
	if err := c.scope.check(); err != nil {
		return nil, err
	}
	return c, nil
}
