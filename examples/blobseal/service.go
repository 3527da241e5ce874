package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/user"
	"path/filepath"
	"strings"

	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/audit"
	"github.com/blobseal/blobseal/kms/localkms"
	"github.com/blobseal/blobseal/sse"
)

// A key service is a directory: its document, encrypted under its root, and its
// audit trail, in the clear.
func keysPath(dir string) string  { return filepath.Join(dir, "keys") }
func trailPath(dir string) string { return filepath.Join(dir, "audit.jsonl") }

// keyService is an open key service, as one principal uses it.
type keyService struct {
	*localkms.Client            // for what is not a use: it records that itself
	uses             kms.Client // for uses, which are recorded
	cached           kms.Client // the same, and asks once for what is asked again
	dir              string
	principal        kms.Principal
	trail            *trail
}

// openService opens the key service in a directory, for the principal in ctx. The
// caller closes it.
func (c *console) openService(ctx context.Context, dir string, root rootSource) (*keyService, error) {
	s := &keyService{dir: dir, principal: kms.PrincipalFrom(ctx)}
	if _, err := os.Stat(keysPath(dir)); errors.Is(err, os.ErrNotExist) { // before the root, which costs
		return nil, s.about("", "", keyring.ErrNotExist)
	} else if err != nil {
		return nil, about(dir, err)
	}
	key, err := root.open(ctx, c)
	if err != nil {
		return nil, err
	}
	return s, s.open(ctx, c, key, nil)
}

func (s *keyService) open(ctx context.Context, c *console, root tink.AEADWithContext, wrap func(keyring.Store) keyring.Store) error {
	file, err := keyring.NewFileStore(keysPath(s.dir))
	if err != nil {
		return s.about("", "", err)
	}
	var store keyring.Store = file
	s.trail = &trail{ctx: ctx, path: trailPath(s.dir), wait: c.auditWait}
	opts := &localkms.Options{
		Audit:  s.trail,
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
		return s.about("", "", err)
	}
	s.uses = audit.NewClient(s.Client, s.trail)
	s.cached = audit.NewClient(kms.NewCache(s.Client, nil), s.trail)
	return nil
}

// Close gives up the audit trail. A nil service has none.
func (s *keyService) Close() {
	if s != nil {
		s.trail.Close()
	}
}

// resolve returns the ARN of a key.
func (s *keyService) resolve(ctx context.Context, key string) (string, error) {
	report := new(kms.Report)
	err := s.Authorize(kms.WithReport(ctx, report), kms.OpDecrypt, key, nil)
	if report.KeyID != "" { // whether it may be used is another question
		return report.KeyID, nil
	}
	return "", err
}

// mayOpen tells whether the principal may decrypt the data key of obj.
func (s *keyService) mayOpen(ctx context.Context, obj sse.Object, env *sse.Envelope) bool {
	ec := env.Context()
	ec[sse.ContextObject] = obj.Bucket
	if !env.BucketKey() {
		ec[sse.ContextObject] += "/" + obj.Key
	}
	return !errors.Is(s.Authorize(ctx, kms.OpDecrypt, env.KeyID(), ec), kms.ErrDenied)
}

// asPrincipal returns a ctx in which a principal asks; by default the user whose
// process this is.
func asPrincipal(ctx context.Context, id string) context.Context {
	if id == "" {
		id = fmt.Sprintf("user:%d", os.Getuid())
		if u, err := user.Current(); err == nil && u.Username != "" {
			id = "user:" + u.Username
		}
	}
	return kms.WithPrincipal(ctx, kms.Principal{ID: id})
}

// shortKey is the id in a key's ARN; other names stay as they are.
func shortKey(key string) string {
	if _, id, found := strings.Cut(key, ":key/"); found {
		return id
	}
	return key
}

// about puts an error of an operation of the service into words.
func (s *keyService) about(op kms.Operation, key string, err error) error {
	if err == nil {
		return nil
	}
	if errors.As(err, new(*problem)) || errors.As(err, new(usageError)) || errors.Is(err, context.Canceled) {
		return about(s.dir, err)
	}
	return problemf(err, "%s: %s", s.dir, s.says(op, key, err))
}

// says is an error in words, without its subject. A refusal names the principal,
// the operation and the key.
func (s *keyService) says(op kms.Operation, key string, err error) string {
	after := func(kind error) string { // what the service says of its kind of error
		if _, detail, found := strings.Cut(err.Error(), kind.Error()+": "); found {
			return detail
		}
		return plain(err)
	}
	refused := func(kind error, why, command string) string {
		if arn := after(kind); strings.HasPrefix(arn, "arn:") {
			key = arn
		}
		return fmt.Sprintf("%q may not %s with %s: %s: blobseal kms %s --kms %s %s", s.principal.ID, op, key, why, command, s.dir, shortKey(key))
	}
	if text := aboutRoot("key service", err); text != "" {
		return text
	}
	var policy *localkms.PolicyError
	switch {
	case errors.Is(err, audit.ErrNotRecorded):
		return "not recorded in the audit trail, and so not done: " + trailSays(err)
	case errors.Is(err, keyring.ErrNotExist):
		return "no such key service; make one with: blobseal kms init --kms " + s.dir
	case errors.Is(err, keyring.ErrVersion):
		return "the key service was written by another version of blobseal: " + after(keyring.ErrVersion)
	case errors.Is(err, keyring.ErrDamaged):
		return fmt.Sprintf("%s is not a key service's, or damaged: restore it from a backup (%s)", keysPath(s.dir), after(keyring.ErrDamaged))
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
		if detail := after(kms.ErrNotFound); strings.HasPrefix(detail, "grant ") {
			return "no such " + detail
		} else {
			return fmt.Sprintf("no such key: %s; see: blobseal kms list --kms %s", detail, s.dir)
		}
	case errors.Is(err, kms.ErrInvalid):
		return after(kms.ErrInvalid)
	case isDirectory(keysPath(s.dir)):
		return keysPath(s.dir) + " is a directory"
	}
	return strings.TrimPrefix(plain(err), kms.ErrUnavailable.Error()+": ")
}
