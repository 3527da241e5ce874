package message

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"syscall"

	"gocloud.dev/gcerrors"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/blob/jobs"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/audit"
	"github.com/blobseal/blobseal/kms/localkms"
	"github.com/blobseal/blobseal/sse"
)

// The exit codes of a command.
const (
	Done         = 0
	Failed       = 1
	Usage        = 2
	Refused      = 3
	NotAuthentic = 4
	NotFound     = 5
	Unavailable  = 6
	Interrupted  = 130
)

// ExitCodes lists all exit codes. README.md has the same table.
var ExitCodes = []struct {
	Code    int
	Meaning string
}{
	{Done, "done"},
	{Failed, "failed for another reason, or left objects undone"},
	{Usage, "usage: wrong flags, variables or config file"},
	{Refused, "refused: not permitted, disabled, destroyed, already there, or not confirmed"},
	{NotAuthentic, "not authentic: wrong key or root, damaged, truncated or edited"},
	{NotFound, "not found: no such file, ring, key, bucket or object"},
	{Unavailable, "unavailable: a key service, a store or the network does not answer; try again"},
	{Interrupted, "interrupted"},
}

// kinds says which exit code an error has. The first entry that applies counts, since
// an error is often of several kinds.
var kinds = []struct {
	code   int
	errors []error
}{
	{Interrupted, []error{context.Canceled}},
	{Failed, []error{syscall.ENOSPC, syscall.EFBIG, syscall.EISDIR, ErrIsDirectory}},
	{Refused, []error{
		ErrRefused, fs.ErrPermission, fs.ErrExist,
		kms.ErrDenied, kms.ErrDisabled, kms.ErrPendingDeletion,
		localkms.ErrPolicy, localkms.ErrLockout, localkms.ErrAlreadyExists, localkms.ErrReserved,
		keyring.ErrDisabled, keyring.ErrDestroyed, keyring.ErrPrimary, keyring.ErrExist, keyring.ErrTooOld, keyring.ErrRollback, keyring.ErrOtherRing,
		blob.ErrPlain, blob.ErrPolicy, sse.ErrMode, jobs.ErrInUse, jobs.ErrQuarantine, jobs.ErrTarget,
	}},
	{NotFound, []error{fs.ErrNotExist}},
	{Unavailable, []error{
		kms.ErrUnavailable, keyring.ErrStore, keyring.ErrConflict, audit.ErrInUse, context.DeadlineExceeded,
		syscall.ECONNREFUSED, syscall.ECONNRESET,
	}},
	{NotFound, []error{keyring.ErrNotExist, keyring.ErrUnknownKey, kms.ErrNotFound, jobs.ErrNothingToShred}},
	{NotAuthentic, []error{
		keyring.ErrRoot, keyring.ErrDamaged, kms.ErrCiphertext,
		sse.ErrKey, sse.ErrCorrupt, sse.ErrTruncated, sse.ErrFormat,
	}},
	{Unavailable, []error{keyring.ErrRootUnavailable}},
}

// ErrRefused is the kind of a problem that refuses what was asked.
var ErrRefused = errors.New("refused")

// ExitCode returns the exit code of a command that ends with err.
func ExitCode(err error) int {
	if err == nil {
		return Done
	}
	if errors.As(err, new(UsageError)) {
		return Usage
	}
	if several, ok := errors.AsType[*Failures](err); ok && several.code != Done {
		return several.code
	}
	if errors.As(err, new(*KeyNotAcceptedError)) {
		return Refused
	}
	if errors.As(err, new(*audit.ChainError)) {
		return NotAuthentic
	}
	for _, kind := range kinds {
		for _, is := range kind.errors {
			if errors.Is(err, is) {
				return kind.code
			}
		}
	}
	if errors.As(err, new(*net.OpError)) {
		return Unavailable
	}
	switch gcerrors.Code(err) {
	case gcerrors.NotFound:
		return NotFound
	case gcerrors.PermissionDenied, gcerrors.AlreadyExists, gcerrors.FailedPrecondition:
		return Refused
	case gcerrors.DeadlineExceeded, gcerrors.ResourceExhausted:
		return Unavailable
	}
	return Failed
}

// Failures is the kind of a problem with several files or objects. Its exit code is
// that of what is not authentic, or else the one that all failures have in common.
type Failures struct{ code int }

func (*Failures) Error() string { return "several failures" }

// Add adds a failure.
func (f *Failures) Add(err error) {
	switch code := ExitCode(err); {
	case code == NotAuthentic || f.code == Done:
		f.code = code
	case code != f.code && f.code != NotAuthentic:
		f.code = Failed
	}
}
