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
//   - A store keeps no reference to what it was given, and a caller may change
//     what it got.
//   - ctx bounds the whole operation. If ctx has ended, both methods do nothing and
//     fail with an error that is ctx's.
//   - All methods are safe for concurrent use.
//
// A Swap that fails with any other error may have happened or not. Callers load to find
// out.
type Store interface {
	// Load returns the document and its version.
	Load(ctx context.Context) (data []byte, version string, err error)

	// Swap replaces the document of the given version, durably, and returns
	// the new document's version.
	Swap(ctx context.Context, version string, data []byte) (newVersion string, err error)
}

// Watcher is what a [Store] may implement besides, so that [Ring.Run] learns of a change
// when it happens and not after an interval. It only saves time: a ring that hears nothing
// finds changes when it loads.
type Watcher interface {
	// Watch calls changed once it has begun to watch, and from then on after
	// every Swap that succeeds, through whichever process or handle. One call may
	// stand for several Swaps, and another for none. changed returns at once, and
	// may be called from any goroutine.
	//
	// Watch returns when ctx ends, with an error that is ctx's, or when it can no
	// longer watch, with the reason. A store that never can returns
	// [errors.ErrUnsupported]. Once it has returned, nothing of it goes on.
	Watch(ctx context.Context, changed func()) error
}

// Clock is what a [Store] implements if it can tell the time of its server, so that all
// processes date changes by one clock: sqlstore does for PostgreSQL, and [NewFileStore] by
// the file system's. The others have none.
//
// By a store's clock, a process whose own clock is wrong neither rotates a ring nor lets a
// quarantine end early: see [ClockError]. Without one, it cannot be told from a process
// that meets a ring nobody has changed for a long time. Keep clocks synchronized there.
type Clock interface {
	// Now returns the time by the clock that all processes with this store share. A
	// store that has none after all returns [errors.ErrUnsupported].
	Now(ctx context.Context) (time.Time, error)
}
