package keys

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/user"
	"path/filepath"
	"strings"

	"github.com/blobseal/blobseal/kms/audit"

	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/blobseal/blobseal/examples/blobseal/internal/console"
	"github.com/blobseal/blobseal/examples/blobseal/internal/message"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/localkms"
	"github.com/blobseal/blobseal/sse"
)

// A key service is a directory: its document, encrypted under its root, and its
// audit trail, in the clear.
func KeysPath(dir string) string  { return filepath.Join(dir, "keys") }
func TrailPath(dir string) string { return filepath.Join(dir, "audit.jsonl") }

// Service is an open key service, as one principal uses it.
type Service struct {
	*localkms.Client            // for what is not a use: it records that itself
	uses             kms.Client // for uses, which are recorded
	cached           kms.Client // the same, and asks once for what is asked again
	service          *localkms.Service
	Dir              string
	principal        kms.Principal
	Trail            *trail
}

// OpenService opens the key service in a directory, for the principal in ctx. The
// caller closes it.
func OpenService(ctx context.Context, c *console.Console, dir string, root RootSource) (*Service, error) {
	s := &Service{Dir: dir, principal: kms.PrincipalFrom(ctx)}
	if _, err := os.Stat(KeysPath(dir)); errors.Is(err, os.ErrNotExist) { // before the root, which costs
		return nil, s.About("", "", keyring.ErrNotExist)
	} else if err != nil {
		return nil, message.About(dir, err)
	}
	key, err := root.Open(ctx, c)
	if err != nil {
		return nil, err
	}
	return s, s.Open(ctx, c, key, nil)
}

func (s *Service) Open(ctx context.Context, c *console.Console, root tink.AEADWithContext, wrap func(keyring.Store) keyring.Store) error {
	file, err := keyring.NewFileStore(KeysPath(s.Dir))
	if err != nil {
		return s.About("", "", err)
	}
	var store keyring.Store = file
	s.Trail = &trail{ctx: ctx, path: TrailPath(s.Dir), wait: c.AuditWait}
	opts := &localkms.Options{
		Audit:  s.Trail,
		Logger: slog.New(slog.DiscardHandler), // a rotation that is due and fails is tried by the next command
	}
	if wrap != nil {
		store, opts.Create = wrap(store), true
	}
	service, err := localkms.Open(ctx, store, root, opts)
	if err == nil {
		s.Client, err = service.Client("", "")
	}
	if err != nil {
		s.Close()
		return s.About("", "", err)
	}
	s.service = service
	s.uses = audit.NewClient(s.Client, s.Trail)
	s.cached = audit.NewClient(kms.NewCache(s.Client, nil), s.Trail)
	return nil
}

// ChangeRoot puts the service's document under another root.
func (s *Service) ChangeRoot(ctx context.Context, root keyring.Root) error {
	return s.service.ChangeRoot(ctx, root)
}

// Close gives up the audit trail. A nil service has none.
func (s *Service) Close() {
	if s != nil {
		s.Trail.Close()
	}
}

// Resolve returns the ARN of a key.
func (s *Service) Resolve(ctx context.Context, key string) (string, error) {
	report := new(kms.Report)
	err := s.Authorize(kms.WithReport(ctx, report), kms.OpDecrypt, key, nil)
	if report.KeyID != "" { // whether it may be used is another question
		return report.KeyID, nil
	}
	return "", err
}

// MayOpen tells whether the principal may decrypt the data key of obj.
func (s *Service) MayOpen(ctx context.Context, obj sse.Object, env *sse.Envelope) bool {
	ec := env.Context()
	ec[sse.ContextObject] = obj.Bucket
	if !env.BucketKey() {
		ec[sse.ContextObject] += "/" + obj.Key
	}
	return !errors.Is(s.Authorize(ctx, kms.OpDecrypt, env.KeyID(), ec), kms.ErrDenied)
}

// AsPrincipal returns a ctx in which a principal asks; by default the user whose
// process this is.
func AsPrincipal(ctx context.Context, id string) context.Context {
	if id == "" {
		id = fmt.Sprintf("user:%d", os.Getuid())
		if u, err := user.Current(); err == nil && u.Username != "" {
			id = "user:" + u.Username
		}
	}
	return kms.WithPrincipal(ctx, kms.Principal{ID: id})
}

// ShortKey is the id in a key's ARN; other names stay as they are.
func ShortKey(key string) string {
	if _, id, found := strings.Cut(key, ":key/"); found {
		return id
	}
	return key
}

// About puts an error of an operation of the service into words.
func (s *Service) About(op kms.Operation, key string, err error) error {
	if err == nil {
		return nil
	}
	if errors.As(err, new(*message.Problem)) || errors.As(err, new(message.UsageError)) || errors.Is(err, context.Canceled) {
		return message.About(s.Dir, err)
	}
	return message.Problemf(err, "%s: %s", s.Dir, s.Says(op, key, err))
}

// Says is an error in words, without its subject. A refusal names the principal,
// the operation and the key.
func (s *Service) Says(op kms.Operation, key string, err error) string {
	if failed, ok := errors.AsType[*kms.KeyError](err); ok {
		err = failed.Err // which key and which operation is said below
		if failed.KeyID != "" {
			key = failed.KeyID
		}
	}
	after := func(kind error) string { // what the service says of its kind of error
		if _, detail, found := strings.Cut(err.Error(), kind.Error()+": "); found {
			return detail
		}
		return message.Plain(err)
	}
	refused := func(kind error, why, command string) string {
		if arn := after(kind); strings.HasPrefix(arn, "arn:") {
			key = arn
		}
		return fmt.Sprintf("%q may not %s with %s: %s: blobseal kms %s --kms %s %s", s.principal.ID, op, key, why, command, s.Dir, ShortKey(key))
	}
	if text := message.Root("key service", err); text != "" {
		return text
	}
	var policy *localkms.PolicyError
	switch {
	case errors.Is(err, audit.ErrNotRecorded):
		text := "not recorded in the audit trail, and so not done: " + message.TrailText(err)
		if errors.As(err, new(*audit.ChainError)) {
			trail := TrailPath(s.Dir)
			text += fmt.Sprintf(" (find out why; then move %s and %[1]s.* to another directory, to start a new trail)", trail)
		}
		return text
	case errors.Is(err, keyring.ErrNotExist):
		return "no such key service; make one with: blobseal kms init --kms " + s.Dir
	case errors.Is(err, keyring.ErrVersion):
		return "the key service was written by another version of blobseal: " + after(keyring.ErrVersion)
	case errors.Is(err, keyring.ErrDamaged):
		return fmt.Sprintf("%s is not a key service's, or damaged: restore it from a backup (%s)", KeysPath(s.Dir), after(keyring.ErrDamaged))
	case errors.As(err, &policy):
		return fmt.Sprintf("line %d, column %d: %s", policy.Line, policy.Column, policy.Reason)
	case errors.Is(err, localkms.ErrLockout):
		return fmt.Sprintf("under this policy %q could not put another one; --force sets it all the same", s.principal.ID)
	case errors.Is(err, localkms.ErrAlreadyExists):
		return after(localkms.ErrAlreadyExists) + ": already exists"
	case errors.Is(err, localkms.ErrManaged):
		return after(localkms.ErrManaged) + " belong to the service itself"
	case errors.Is(err, localkms.ErrLimit):
		return after(localkms.ErrLimit)
	case errors.Is(err, kms.ErrDenied):
		if detail := after(kms.ErrDenied); strings.Contains(detail, string(op)) {
			return detail
		} else {
			return fmt.Sprintf("%s with %s: %s", op, key, detail)
		}
	case errors.Is(err, kms.ErrDisabled):
		return refused(kms.ErrDisabled, "the key is disabled; enable it with", "enable")
	case errors.Is(err, kms.ErrPendingDeletion):
		return refused(kms.ErrPendingDeletion, "the key waits to be deleted; take that back with", "cancel-deletion")
	case errors.Is(err, kms.ErrNotFound):
		if detail := after(kms.ErrNotFound); strings.HasPrefix(detail, "grant ") || strings.HasPrefix(detail, "alias ") {
			return "no such " + detail
		}
		return fmt.Sprintf("no such key: %q; see: blobseal kms list --kms %s", key, s.Dir)
	case errors.Is(err, kms.ErrInvalid):
		return after(kms.ErrInvalid)
	case message.IsDirectory(KeysPath(s.Dir)):
		return KeysPath(s.Dir) + " is a directory"
	}
	return strings.TrimPrefix(message.Plain(err), kms.ErrUnavailable.Error()+": ")
}

// AboutKey is an error of a key that should have opened something, in words; it is
// empty if the error is not about the key. k may be nil.
func AboutKey(k *Keys, mode sse.Mode, keyID string, err error) string {
	switch {
	case k != nil && k.Service != nil && errors.Is(err, kms.ErrNotFound):
		return fmt.Sprintf("%s has no key %q, under which it is sealed", k.Service.Dir, keyID)
	case k != nil && k.Service != nil && message.RefusedByService(err):
		return k.Service.Says(kms.OpDecrypt, keyID, err)
	case errors.Is(err, sse.ErrMode) && mode != 0:
		return message.WantMode(mode)
	case errors.Is(err, keyring.ErrDisabled):
		return fmt.Sprintf("sealed under key %s, which is disabled; enable it with: blobseal ring enable %[1]s", keyID)
	case errors.Is(err, keyring.ErrDestroyed):
		return fmt.Sprintf("sealed under key %s, which was destroyed: nothing opens it any more", keyID)
	case errors.Is(err, keyring.ErrRootUnavailable) && k != nil && k.Ring != nil:
		return fmt.Sprintf("sealed under key %s, which ring %s may hold since it was opened: %s", keyID, k.RingPath, message.Root("ring", err))
	case errors.Is(err, keyring.ErrStore):
		return message.Plain(err)
	case errors.Is(err, keyring.ErrUnknownKey) && k != nil && k.Ring != nil:
		if !strings.HasPrefix(keyID, k.Ring.ID()+".") {
			return fmt.Sprintf("sealed under key %s of another ring; %s is ring %s", keyID, k.RingPath, k.Ring.ID())
		}
		return fmt.Sprintf("sealed under key %s, which ring %s does not hold: is the ring an old copy?", keyID, k.RingPath)
	}
	return ""
}
