package localkms

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/blobseal/blobseal/internal/follow"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms/audit"
)

// What an [Options] field means that is zero.
const (
	DefaultRefreshInterval = time.Second
	DefaultMaxStaleness    = time.Minute
)

// Options change what [Open] does. The zero Options, and nil, are right for
// most services that have their keys already.
type Options struct {
	// Create makes a new service, without keys, if the store has none. A caller
	// that sets it should be sure of its store: with an empty store in place of
	// the right one, it starts a service that opens nothing of the old one's.
	Create bool

	// Policy is the policy of the service itself, in Cedar; see the package
	// documentation. It is not stored: each process brings its own. Empty means
	// that every principal may do everything within the account of its [Client],
	// except where a key's policy says otherwise.
	Policy string

	// Quota bounds what each account may hold.
	Quota Quota

	// Audit takes a record of each operation that is not a [kms.Client]'s own:
	// those are recorded by [audit.NewClient], which also sees the uses that a
	// cache answers. Nil means that nothing is recorded.
	//
	// A change of a key is recorded before it is stored, any other operation
	// before its result is handed out, and one that cannot be recorded fails with
	// [audit.ErrNotRecorded] and changes nothing. Should the store then refuse the change,
	// a second record with the same request id says so.
	Audit audit.Sink

	// ContinueWithoutRecord lets operations go on whose record could not be
	// written. The record goes to Logger instead, as an error.
	ContinueWithoutRecord bool

	// RefreshInterval is how old the service's knowledge of the store may be when
	// a key is used: a call that finds it older loads the document first, while
	// others go on. So it is also how long a key that another process disabled goes
	// on serving here, but for the time that a load takes. In [Service.Run], with a
	// store that is a [keyring.Watcher], that is a tenth of a second as a rule, but a
	// connection can be gone for a while before anyone notices, and what is promised
	// is the interval. Zero means DefaultRefreshInterval. A process that has its store
	// to itself may set it high.
	RefreshInterval time.Duration

	// MaxStaleness is how long the service goes on with what it knows while the
	// store fails or hangs; after that every use of a key is kms.ErrUnavailable.
	// Zero means DefaultMaxStaleness, or RefreshInterval if that is longer; less
	// than RefreshInterval is refused.
	MaxStaleness time.Duration

	// Now is the wall clock, by which keys are deleted and rotated. Nil means
	// [time.Now]; tests bring their own.
	Now func() time.Time

	// Logger hears of what fails without failing a call: loads of the store, and
	// rotations and deletions that were due. Nil means [slog.Default].
	Logger *slog.Logger
}

// Service is an open key service. Its [Client] does the work. All methods are
// safe for concurrent use, and it holds no resources to close.
type Service struct {
	store   keyring.Store
	root    tink.AEADWithContext
	opts    Options
	log     *slog.Logger
	limit   int     // of the document, in bytes
	policy  *policy // the service's own, or nil
	current atomic.Pointer[snapshot]

	writer chan struct{} // held by the one call that may replace the document
	loads  loads
	lost   sync.Map // keyID -> deadline (int64) that was seen to have passed

	maintaining atomic.Bool
	resume      atomic.Int64 // no maintenance before, after one that failed; since start
	start       time.Time
}

// Open opens the service in store under root. Both are used for as long as the
// Service is. ctx bounds the call.
//
// Keys whose deletion has become due are deleted before Open returns, if the
// store allows.
//
// Its errors are [keyring.ErrNotExist], those of the document
// ([keyring.ErrDamaged], [keyring.ErrVersion], [keyring.ErrRoot]),
// [kms.ErrUnavailable] when the store or the root could not be asked, [ErrPolicy]
// for Options.Policy, and [kms.ErrInvalid]. Those of the store, of the root and
// of ctx are visible to [errors.Is].
func Open(ctx context.Context, store keyring.Store, root tink.AEADWithContext, opts *Options) (*Service, error) {
	if store == nil || root == nil {
		return nil, invalid("no store or no root")
	}
	s := &Service{store: store, root: root, writer: make(chan struct{}, 1), start: time.Now()}
	s.loads.init()
	if opts != nil {
		s.opts = *opts
	}
	if err := s.opts.check(); err != nil {
		return nil, err
	}
	s.log = s.opts.Logger
	s.limit = documentLimit(store)
	if s.opts.Policy != "" {
		p, err := newPolicy(s.opts.Policy)
		if err != nil {
			return nil, err
		}
		s.policy = p
	}
	began := time.Now()
	snap, err := s.first(ctx)
	if err != nil {
		return nil, err
	}
	s.install(snap, began)
	if s.now() >= snap.due {
		s.maintain(ctx, ownPatience)
	}
	return s, nil
}

func (o *Options) check() error {
	if o.RefreshInterval < 0 || o.MaxStaleness < 0 {
		return invalid("negative RefreshInterval or MaxStaleness")
	}
	if o.RefreshInterval == 0 {
		o.RefreshInterval = DefaultRefreshInterval
	}
	if o.MaxStaleness == 0 {
		o.MaxStaleness = max(DefaultMaxStaleness, o.RefreshInterval)
	}
	if o.MaxStaleness < o.RefreshInterval {
		return invalid("MaxStaleness %v is less than RefreshInterval %v", o.MaxStaleness, o.RefreshInterval)
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return o.Quota.check()
}

// ownPatience is how long Open and Run wait for what is due.
const ownPatience = 30 * time.Second

// first loads the document, or makes one.
func (s *Service) first(ctx context.Context) (*snapshot, error) {
	for attempt := 0; ; attempt++ {
		snap, err := s.load(ctx)
		if err == nil || !errors.Is(err, keyring.ErrNotExist) || !s.opts.Create {
			return snap, err
		}
		h, dek, err := newHeader(ctx, s.root)
		if err != nil {
			return nil, err
		}
		snap, err = s.swap(ctx, "", &snapshot{header: h, dek: dek}, &draft{contents: contents{keys: map[keyID]*key{}, aliases: map[aliasName]alias{}}})
		if err == nil || !errors.Is(err, keyring.ErrConflict) {
			return snap, err
		}
		if err := backOff(ctx, attempt); err != nil { // someone else made one: load it
			return nil, err
		}
	}
}

// now is the wall clock's time, in Unix milliseconds.
func (s *Service) now() int64 { return s.wall(time.Now()) }

// wall is now for a caller that has the time already.
func (s *Service) wall(now time.Time) int64 {
	if s.opts.Now != nil {
		now = s.opts.Now()
	}
	return millis(now)
}

// Refresh loads the document at once. Calls do so by themselves, see
// Options.RefreshInterval. ctx bounds the call.
//
// A document that is not a later one of the same service is refused, with
// [keyring.ErrRollback] or [keyring.ErrOtherRing], and so is one that does not
// open; the service then goes on with what it had, up to Options.MaxStaleness.
// All of these are also [kms.ErrUnavailable].
func (s *Service) Refresh(ctx context.Context) error { return s.reload(ctx, time.Now()) }

// Generation returns the number of the document that this Service uses. It only
// grows: by one with each change.
func (s *Service) Generation() uint64 { return s.current.Load().generation }

// Of what Run does by itself.
const (
	refreshTimeout = 10 * time.Second       // of one load
	refreshSpread  = 100 * time.Millisecond // over which the processes that hear of a change load it
)

// Run refreshes the service in time, rotates and deletes what is due, until ctx
// ends, and returns ctx's error. If the store is a [keyring.Watcher], Run also
// refreshes within a tenth of a second of hearing of a change; the processes that
// hear of it spread their loads over that time.
//
// What fails goes to the Logger, and Run goes on: a load that failed is tried again
// after RefreshInterval at the latest, and a watch that broke after a pause, which
// grows from about a second to a minute.
//
// Any number of processes may each have theirs. Without it, the same happens
// when the service is used or opened, and the call that finds it due waits for
// it; but nothing is heard of.
func (s *Service) Run(ctx context.Context) error {
	o := follow.Options{
		Interval: s.opts.RefreshInterval / 3 * 2, // before callers have to
		Spread:   refreshSpread,
		Broken: func(failures int, err error) {
			s.log.LogAttrs(ctx, slog.LevelWarn, "localkms: watch of the store broke, changes are seen by interval until it is back",
				slog.Int("failures", failures), slog.Any("error", err))
		},
	}
	if w, ok := s.store.(keyring.Watcher); ok {
		o.Watch = w.Watch
	}
	return follow.Run(ctx, o, func(ctx context.Context, failures int) error {
		err := s.refreshInBackground(ctx, failures)
		if s.now() >= s.current.Load().due {
			s.maintain(ctx, ownPatience)
		}
		return err
	})
}

// refreshInBackground is one load of Run, after so many that failed in a row.
func (s *Service) refreshInBackground(ctx context.Context, failures int) error {
	bounded, cancel := context.WithTimeout(ctx, refreshTimeout)
	defer cancel()
	err := s.reload(bounded, time.Now())
	switch {
	case ctx.Err() != nil:
	case err != nil:
		s.log.LogAttrs(ctx, slog.LevelError, "localkms: refresh failed, old document stays in use",
			slog.Int("failures", failures+1), slog.Any("error", err))
	case failures > 0:
		s.log.LogAttrs(ctx, slog.LevelInfo, "localkms: refresh works again",
			slog.Int("failures", failures), slog.Uint64("generation", s.Generation()))
	}
	return err
}

// Format implements [fmt.Formatter]: every verb shows the service's id alone.
func (s *Service) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "key service %x", s.current.Load().service)
}

// LogValue implements [slog.LogValuer] with the service's id alone.
func (s *Service) LogValue() slog.Value { return slog.StringValue(fmt.Sprint(s)) }

// MarshalText implements [encoding.TextMarshaler] with the service's id alone.
func (s *Service) MarshalText() ([]byte, error) { return []byte(fmt.Sprint(s)), nil }

// Client returns the service as the given account sees it in the given region:
// keys and aliases belong to both. Each is 1 to 64 letters, digits, dots,
// dashes and underscores; empty ones are [DefaultAccount] and [DefaultRegion].
//
// It costs nothing, and any number of clients may be in use.
func (s *Service) Client(account, region string) (*Client, error) {
	c := &Client{service: s, scope: scope{account: account, region: region}}
	if account == "" {
		c.account = DefaultAccount
	}
	if region == "" {
		c.region = DefaultRegion
	}
	if err := c.scope.check(); err != nil {
		return nil, err
	}
	return c, nil
}
