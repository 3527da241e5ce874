package keyring

import (
	"errors"
	"fmt"

	"github.com/blobseal/blobseal/internal/document"
)

// ErrInvalid: an argument that is wrong in itself, such as a root key of another
// length than 32 bytes. Nothing was read or written.
var ErrInvalid = errors.New("keyring: invalid argument")

// argumentError is an ErrInvalid, in words that need no such heading.
type argumentError string

func (e argumentError) Error() string        { return "keyring: " + string(e) }
func (e argumentError) Is(target error) bool { return target == ErrInvalid }

func invalid(format string, args ...any) error {
	return argumentError(fmt.Sprintf(format, args...))
}

// Errors of a [Store], which the ring passes on.
var (
	// ErrNotExist: the store holds no document. It is never the answer of a
	// store that cannot be read.
	ErrNotExist = document.ErrNotExist

	// ErrConflict: the document in the store is not the version that was to be
	// replaced. The ring loads again and tries again, so its callers meet it
	// only if ctx ends meanwhile.
	ErrConflict = document.ErrConflict

	// ErrStore: the store failed, and what was asked may work later. The
	// store's own error is wrapped beside it.
	ErrStore = document.ErrStore
)

// Errors of a document. A ring that is already open keeps what it last read.
var (
	// ErrDamaged: the document is not one, is cut short, was changed by
	// accident (its checksum does not match) or contradicts itself.
	ErrDamaged = document.ErrDamaged

	// ErrVersion: the document was written in a format that this release does
	// not know.
	ErrVersion = document.ErrVersion

	// ErrRoot: the document is intact, and the root does not open it: another
	// key, another passphrase, or a document that was edited on purpose.
	ErrRoot = document.ErrRoot

	// ErrRootUnavailable: the root could not be asked, as when a key service
	// does not answer. A root of one's own may wrap it to say so.
	ErrRootUnavailable = document.ErrRootUnavailable

	// ErrRollback: the store holds an older document than this ring has
	// already seen, another one of the same age, or what became of such a one.
	ErrRollback = document.ErrRollback

	// ErrOtherRing: the store now holds another ring's document.
	ErrOtherRing = document.ErrOtherRing

	// ErrFull: the document would be larger than the ring or its store can hold.
	ErrFull = errors.New("keyring: ring is full")

	// ErrPeriod: the rotation period is out of bounds, or [Options] does not
	// fit that of the existing ring.
	ErrPeriod = errors.New("keyring: unsuitable rotation period")
)

// Errors of a key version.
var (
	// ErrUnknownKey: no version of this ring has that id. If it also is
	// [ErrStore], the store could not be asked, and the version may exist.
	ErrUnknownKey = errors.New("keyring: unknown key")

	// ErrDisabled: the version is disabled. An administrator may enable it.
	ErrDisabled = errors.New("keyring: key is disabled")

	// ErrDestroyed: the version was destroyed, and with it whatever it sealed.
	ErrDestroyed = errors.New("keyring: key is destroyed")

	// ErrPrimary: the primary can be neither disabled nor destroyed. Rotate first.
	ErrPrimary = errors.New("keyring: key is the primary")

	// ErrTooOld: the primary is older than [Options].HardAge and cannot be
	// rotated. The reason is wrapped beside it.
	ErrTooOld = errors.New("keyring: primary is too old to seal with")
)
