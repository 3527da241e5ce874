package keyring

import (
	"errors"
	"fmt"
	"strings"

	"github.com/blobseal/blobseal/internal/document"
)

// ErrInvalid: an argument is never valid, such as a root key of 31 bytes. Nothing was read
// or written.
var ErrInvalid = errors.New("keyring: invalid argument")

// argumentError is an ErrInvalid whose text says only what is wrong.
type argumentError string

func (e argumentError) Error() string        { return "keyring: " + string(e) }
func (e argumentError) Is(target error) bool { return target == ErrInvalid }

func invalid(format string, args ...any) error {
	return argumentError(fmt.Sprintf(format, args...))
}

// VersionError says which version of a ring an error is about.
type VersionError struct {
	ID  string // the version's id
	Err error  // ErrUnknownKey, ErrDisabled, ErrDestroyed, ErrPrimary or ErrFull, and perhaps a reason
}

func (e *VersionError) Error() string {
	return fmt.Sprintf("keyring: %s: %s", e.ID, strings.TrimPrefix(e.Err.Error(), "keyring: "))
}

// Unwrap returns Err.
func (e *VersionError) Unwrap() error { return e.Err }

// ClockError: the clocks of this process and of the store differ by more than ten minutes.
// Nothing was changed. Set the clock that is wrong. Disabling and destroying versions still
// works: [Ring.SetState] dates the change by the store's clock.
type ClockError = document.ClockError

// Errors of a [Store], which the ring passes on.
var (
	// ErrNotExist: the store holds no document. A store that cannot be read returns
	// another error.
	ErrNotExist = document.ErrNotExist

	// ErrExist: [Create] found a ring in the store.
	ErrExist = document.ErrExist

	// ErrConflict: another writer replaced the document. The ring retries, so its
	// callers see this error only if ctx ends meanwhile.
	ErrConflict = document.ErrConflict

	// ErrStore: the store failed. Retry later. The store's own error is wrapped
	// beside it.
	ErrStore = document.ErrStore
)

// Errors of a document. An open ring keeps the document that it has.
var (
	// ErrDamaged: the document is not a ring, is cut short, is corrupt (its checksum
	// does not match) or contradicts itself. Restore a backup, or the [Ring.Document]
	// of a running process.
	ErrDamaged = document.ErrDamaged

	// ErrVersion: a newer release wrote the document. Nothing was changed. Install
	// that release.
	ErrVersion = document.ErrVersion

	// ErrRoot: the document is intact, but the root does not open it. The key or
	// passphrase is wrong, or somebody edited the document on purpose.
	ErrRoot = document.ErrRoot

	// ErrRootUnavailable: the root could not be asked, for example because a key
	// service does not answer. Your own root may wrap this error to say so.
	ErrRootUnavailable = document.ErrRootUnavailable

	// ErrRollback: the store lost changes that this ring knows, and the ring could not
	// write them back. The reason is wrapped beside it.
	ErrRollback = document.ErrRollback

	// ErrOtherRing: the store holds another ring's document.
	ErrOtherRing = document.ErrOtherRing

	// ErrReadOnly: [Options].ReadOnly forbids the change.
	ErrReadOnly = document.ErrReadOnly

	// ErrFull: the change does not fit into the document. Destroy versions that no
	// object needs.
	ErrFull = errors.New("keyring: ring is full")
)

// Errors of a version. All but ErrTooOld are in a [*VersionError].
var (
	// ErrUnknownKey: the ring has no version of that id, or no longer lists it because it
	// was destroyed long ago. If the error also is [ErrStore], the store could not be asked,
	// and the version may exist.
	ErrUnknownKey = errors.New("keyring: unknown key")

	// ErrDisabled: the version is disabled. [Ring.SetState] enables it.
	ErrDisabled = errors.New("keyring: key is disabled")

	// ErrDestroyed: the version was destroyed. Nothing that it sealed can be opened.
	ErrDestroyed = errors.New("keyring: key is destroyed")

	// ErrPrimary: the primary cannot be disabled or destroyed. Rotate first.
	ErrPrimary = errors.New("keyring: key is the primary (rotate first)")

	// ErrTooOld: the primary is older than [Options].HardAge, and the ring could not
	// rotate it. The reason is wrapped beside this error.
	ErrTooOld = errors.New("keyring: primary is too old to seal with")
)
