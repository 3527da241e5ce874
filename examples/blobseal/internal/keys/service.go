package keys

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/user"
	"strings"
	"sync"
	"time"

	"github.com/blobseal/blobseal/kms/audit"
	"github.com/blobseal/blobseal/kms/cache"

	"github.com/blobseal/blobseal/examples/blobseal/internal/console"
	"github.com/blobseal/blobseal/examples/blobseal/internal/message"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/localkms"
	"github.com/blobseal/blobseal/sse"
	"github.com/blobseal/blobseal/sse/sseotel"
)

// Service is an open key service, as one principal uses it. A key service is a
// directory with its document, encrypted under its root, and its audit trail, in the
// clear.
type Service struct {
	*localkms.Client            // for changes, which it records
	uses             kms.Client // for uses, which it records
	cached           kms.Client // as uses, with a cache
	cache            *cache.Client
	service          *localkms.Service
	Dir              string
	principal        kms.Principal
	rootFlags        RootSource
	Trail            *trail
	root             keyring.Root
	signerFile       *signerFile // of the trail
	announce         func(verifierKey string)
}

// OpenService opens the key service in a directory, for the principal in ctx. The
// caller closes it.
func OpenService(ctx context.Context, c *console.Console, dir string, root RootSource) (*Service, error) {
	s := &Service{Dir: dir, principal: kms.PrincipalFrom(ctx), rootFlags: root}
	if _, err := os.Stat(message.KeysPath(dir)); errors.Is(err, os.ErrNotExist) { // before opening the root, which takes time
		return nil, s.About("", keyring.ErrNotExist)
	} else if err != nil {
		return nil, message.About(dir, err)
	}
	key, err := root.Open(ctx, c)
	if err != nil {
		return nil, err
	}
	return s, s.open(ctx, c, key, localkms.Open)
}

// NewService returns a key service that is not open yet.
func NewService(dir string, root RootSource) *Service { return &Service{Dir: dir, rootFlags: root} }

// Create creates the key service in its directory, and opens it with an empty trail.
// announce is told the key that verifies what the trail's signer signs.
func (s *Service) Create(ctx context.Context, c *console.Console, root keyring.Root, announce func(verifierKey string)) error {
	s.announce = announce
	if err := s.open(ctx, c, root, localkms.Create); err != nil {
		return err
	}
	if err := s.Trail.Open(); err != nil { // an empty trail, so that a missing one shows
		s.Close()
		return message.Problemf(err, s.Dir, "created, but without its audit trail, so it refuses every use: %s", message.Reason(message.Trail("", err), ""))
	}
	return nil
}

type openService func(context.Context, keyring.Store, keyring.Root, *localkms.Options) (*localkms.Service, error)

func (s *Service) open(ctx context.Context, c *console.Console, root keyring.Root, open openService) error {
	store, err := keyring.NewFileStore(message.KeysPath(s.Dir))
	if err != nil {
		return s.About("", err)
	}
	if s.signerFile, err = newSignerFile(s.Dir); err != nil {
		return s.About("", err)
	}
	if s.signerFile.announce = s.announce; s.announce == nil {
		s.signerFile.announce = func(verifierKey string) {
			fmt.Fprintf(c.Stderr, "%s: the key that signs the audit trail was missing, and a new one was created.\nKeep its verifier key in another place (see audit verify): %s\n",
				message.Printable(s.Dir), verifierKey)
		}
	}
	s.root = root
	s.Trail = &trail{ctx: ctx, path: message.TrailPath(s.Dir), wait: c.AuditWait}
	s.Trail.signer = sync.OnceValues(func() (*signer, error) { return s.signerFile.open(ctx, root) })
	sink := audit.Sink(s.Trail)
	if c.Telemetry != nil {
		sink = c.Telemetry.Sink(sink)
	}
	opts := &localkms.Options{
		Audit:  sink,
		Logger: slog.New(slog.DiscardHandler), // the next command tries a failed rotation again
	}
	service, err := open(ctx, store, root, opts)
	if err == nil {
		s.Client, err = service.Client("", "")
	}
	if err != nil {
		s.Close()
		return s.About("", err)
	}
	s.service = service
	client := kms.Client(s.Client)
	if c.Telemetry != nil {
		client = c.Telemetry.Client(client)
	}
	s.cache = cache.New(client, nil)
	s.uses = audit.NewClient(client, sink)
	s.cached = audit.NewClient(s.cache, sink)
	return nil
}

// Observe reports what the service and its cache do.
func (s *Service) Observe(t *sseotel.Telemetry) {
	t.ObserveService(s.Dir, s.service)
	t.ObserveCache(s.Dir, s.cache)
}

// Run keeps up with changes by other processes, and rotates and deletes keys that are
// due, until ctx ends. It returns the error of ctx.
func (s *Service) Run(ctx context.Context) error { return s.service.Run(ctx) }

// Refreshed returns when the service was last known to be up to date.
func (s *Service) Refreshed() time.Time { return s.service.Stats().Refreshed }

// ChangeRoot encrypts the service's document, and the key that signs its trail, under
// another root.
func (s *Service) ChangeRoot(ctx context.Context, root keyring.Root) error {
	signer, err := s.Trail.signer()
	if err != nil {
		return err
	}
	return s.signerFile.changeRoot(ctx, signer, s.root, root, func() error {
		return s.service.ChangeRoot(ctx, root)
	})
}

// Close closes the audit trail. The service may be nil.
func (s *Service) Close() {
	if s != nil {
		s.Trail.Close()
	}
}

// Resolve returns the ARN of a key.
func (s *Service) Resolve(ctx context.Context, key string) (string, error) {
	report := new(kms.Report)
	err := s.Authorize(kms.WithReport(ctx, report), kms.OpDecrypt, key, nil)
	if report.KeyID != "" { // also if the principal may not use the key
		return report.KeyID, nil
	}
	return "", err
}

// MayOpen reports whether the principal may decrypt the data key of obj.
func (s *Service) MayOpen(ctx context.Context, obj sse.Object, env *sse.Envelope) bool {
	ec := env.Context()
	ec[sse.ContextObject] = obj.Bucket
	if !env.BucketKeyEnabled() {
		ec[sse.ContextObject] += "/" + obj.Key
	}
	return !errors.Is(s.Authorize(ctx, kms.OpDecrypt, env.KeyID(), ec), kms.ErrDenied)
}

// AsPrincipal returns a ctx in which a principal asks, by default the user of this
// process.
func AsPrincipal(ctx context.Context, id string) context.Context {
	if id == "" {
		id = fmt.Sprintf("user:%d", os.Getuid())
		if u, err := user.Current(); err == nil && u.Username != "" {
			id = "user:" + u.Username
		}
	}
	return kms.WithPrincipal(ctx, kms.Principal{ID: id})
}

// About returns an error of an operation of the service as a [message.Problem].
func (s *Service) About(key string, err error) error {
	return s.attempt(key).About(s.Dir, err)
}

// Words returns the words for an error of an operation of the service.
func (s *Service) Words(key string, err error) message.Words {
	return s.attempt(key).Words(err)
}

// Command returns a command on the service that can be pasted into a shell.
func (s *Service) Command(command string, args ...string) string {
	return s.attempt("").Command(strings.Fields("kms "+command), args...)
}

func (s *Service) attempt(key string) message.Attempt {
	return message.Attempt{Service: s.Dir, Root: s.rootFlags.Args(), Principal: s.principal.ID, Key: key}
}
