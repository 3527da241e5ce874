package keyring

import (
	"context"
	"time"
)

// MaxDocumentSize is the largest document of a ring in bytes. A [Store] takes
// documents up to it, and may refuse larger ones.
const MaxDocumentSize = 1 << 20

// Store keeps one opaque document under compare-and-swap. Except for ids, times and
// states, the document is encrypted. Most services use a store that exists; to write one,
// test it with package keyringtest, which has a test for each sentence below.
//
//   - Load of a store without a document fails with [ErrNotExist]. A document
//     that cannot be read, for whatever reason, is another error.
//   - Swap with version "" creates the document, if there is none.
//   - Swap with the current version replaces the document. Load then returns
//     the new document and the version that Swap returned.
//   - Swap with any other version fails with [ErrConflict] and changes nothing.
//   - A version is never empty, stays the same as long as the document does,
//     and never names two different documents.
//   - Load returns what the latest successful Swap wrote, through whichever
//     process or handle, whole, and never a part or an older document.
//   - Of several Swaps at once from one version, one succeeds.
//   - Documents are arbitrary bytes, from 1 to [MaxDocumentSize].
//   - A store keeps no reference to its arguments, and a caller may change the
//     results.
//   - ctx bounds the whole operation. If ctx has ended, both methods do nothing and
//     return an error that wraps ctx's.
//   - All methods are safe for concurrent use.
//
// After any other error of Swap, the store may hold the old document or the new one.
// Callers load it to find out.
type Store interface {
	// Load returns the document and its version.
	Load(ctx context.Context) (data []byte, version string, err error)

	// Swap replaces the document of the given version, durably, and returns
	// the new document's version.
	Swap(ctx context.Context, version string, data []byte) (newVersion string, err error)
}

// Watcher is a [Store] that reports changes, so that [Ring.Run] learns of them at once and
// not after an interval. A ring that hears nothing still finds changes when it loads.
type Watcher interface {
	// Watch calls changed once when it begins to watch, and then after every
	// successful Swap through any process or handle. One call may stand for several
	// Swaps, or for none. changed returns at once, and may be called from any
	// goroutine.
	//
	// Watch returns when ctx ends, with an error that wraps ctx's, or when it can no
	// longer watch, with the reason. A store that can never watch returns
	// [errors.ErrUnsupported]. After Watch has returned, none of its goroutines runs.
	Watch(ctx context.Context, changed func()) error
}

// Clock is a [Store] that tells the time of its server, so that all processes date changes
// by one clock. The store of package sqlstore does so for PostgreSQL, and that of
// [NewFileStore] tells the time of the file system. The other stores have no clock.
//
// With a store's clock, a process whose own clock is wrong neither rotates a ring nor lets
// a quarantine end early: see [ClockError]. Without one, such a process cannot tell its
// wrong clock from a ring that nobody has changed for a long time. Keep clocks synchronized
// there.
type Clock interface {
	// Now returns the time of the clock that all processes with this store share. A
	// store that turns out to have no clock returns [errors.ErrUnsupported].
	Now(ctx context.Context) (time.Time, error)
}
