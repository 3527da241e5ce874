package jobs

import (
	"context"
	"iter"
	"maps"
	"slices"
	"time"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/blob/internal/store"
	"github.com/blobseal/blobseal/blob/stored"
)

// Limiter sets the pace of a job, which waits before each object, and ends with the
// error if Wait fails. A *rate.Limiter of golang.org/x/time/rate is a Limiter.
type Limiter interface {
	Wait(ctx context.Context) error
}

// Entry describes one object of an [Inventory], as its envelope does. An envelope is not
// authentic until a key has opened it: see [Check].
type Entry struct {
	Key          string
	Kind         stored.Kind // zero for an object that could not be read
	Seal         KeyRef      // the key; zero without an envelope
	BucketKey    bool        // in SSE-KMS: see [sse.KMSOptions]
	Stored       int64       // bytes in the store
	Size         int64       // bytes of plaintext; -1 if unknown
	EnvelopeSize int         // bytes of Stored that are the envelope
	ModTime      time.Time   // in the store

	// Err says why the object is damaged, of an unknown version, or unreadable.
	Err error
}

// InventoryOptions are for [Inventory]. The zero value is right for most.
type InventoryOptions struct {
	// Filter chooses objects. A filter with Modes or KeyIDs leaves out objects without an
	// envelope, and so those that could not be read. An empty result is therefore no
	// proof that a key is unused: see [CheckUnused].
	Filter Filter

	// Workers is how many objects are looked at at once; 0 means 8.
	Workers int

	// Limit, if set, sets the pace.
	Limit Limiter
}

// Inventory lists every object with its kind, key and sizes. It uses no key and reads no
// body: it makes one request for the head of each object, and a second one if the head
// is not an envelope or begins a composite object. Entries come in the order of the
// store's listing, one at a time. An object that cannot be read is an Entry with Err. If
// the listing or the limiter fails or ctx ends, the sequence ends with an error and does
// not cover the whole bucket. Objects that are written or deleted meanwhile may be
// missing.
//
// No listing shows older versions that a store keeps, or backups. fileblob does not show
// subdirectories that are links or unreadable, and shows nothing if the bucket's own
// directory is a link.
func Inventory(ctx context.Context, b *blob.Bucket, opts *InventoryOptions) iter.Seq2[Entry, error] {
	s := storeOf(b)
	o := valueOr(opts)
	return sequence(func(yield func(Entry) error) error {
		if err := o.Filter.check(); err != nil {
			return err
		}
		return lookAtAll(ctx, s, o.Filter.Prefix, pace{o.Workers, o.Limit}, func(ctx context.Context, object store.Listed) (Entry, error) {
			e := entryOf(s.InspectListed(ctx, object))
			return e, e.Err
		}, func(e Entry, _ error) error {
			if !o.Filter.chooses(e.Seal) {
				return nil
			}
			return yield(e)
		})
	})
}

// entryOf returns the entry of an object.
func entryOf(o store.Object) Entry {
	e := Entry{Key: o.Key, Kind: o.Kind, Stored: o.Stored, Size: o.Size, ModTime: o.ModTime, Err: o.Err}
	if env := o.Envelope; env != nil {
		e.Seal, e.BucketKey, e.EnvelopeSize = keyOf(env), env.BucketKeyEnabled(), env.Size()
	}
	return e
}

// Totals adds up an inventory. The zero Totals is ready to use.
type Totals struct {
	Objects, Stored, Size int64 // Size without objects of unknown size
	Plain                 Count
	UnknownVersion        Count
	Damaged               Count
	Unreadable            Count
	Sealed                map[KeyRef]Count

	// Other counts objects under further keys once Sealed has 10,000, since anybody
	// who writes to the store can name keys.
	Other Count
}

// Count counts objects and their bytes.
type Count struct {
	Objects int64 `json:"objects"`
	Stored  int64 `json:"stored"` // bytes in the store
}

// maxKeys bounds what a bucket of forged envelopes can do to [Totals].
const maxKeys = 10_000

// Add adds an entry.
func (t *Totals) Add(e Entry) {
	t.Objects++
	t.Stored += max(e.Stored, 0)
	t.Size += max(e.Size, 0)
	switch {
	case e.Seal != KeyRef{}: // a damaged object may still need its key
		count, known := t.Sealed[e.Seal]
		if !known && len(t.Sealed) >= maxKeys {
			t.Other.add(e)
			break
		}
		if t.Sealed == nil {
			t.Sealed = make(map[KeyRef]Count)
		}
		count.add(e)
		t.Sealed[e.Seal] = count
	case e.Kind == stored.KindPlain:
		t.Plain.add(e)
	case e.Kind == stored.KindUnknownVersion:
		t.UnknownVersion.add(e)
	case e.Kind == stored.KindDamaged:
		t.Damaged.add(e)
	default:
		t.Unreadable.add(e)
	}
}

func (c *Count) add(e Entry) {
	c.Objects++
	c.Stored += max(e.Stored, 0)
}

// Keys returns the keys of Sealed, ordered by mode and id.
func (t *Totals) Keys() []KeyRef {
	return slices.SortedFunc(maps.Keys(t.Sealed), compareKeys)
}

// storeOf returns the bucket's view of the store under it.
func storeOf(b *blob.Bucket) *store.Store {
	var s *store.Store
	b.As(&s)
	return s
}
