package jobs

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/blob/internal/store"
	"github.com/blobseal/blobseal/blob/stored"
	"github.com/blobseal/blobseal/sse"
)

// Limiter sets the pace of a job, which waits before each object. A
// *rate.Limiter of golang.org/x/time/rate is one.
type Limiter interface {
	Wait(ctx context.Context) error
}

// Entry is one object of a [Inventory]. What it says is what the object's
// envelope says, which is not authentic before a key has opened it: see
// [Check].
type Entry struct {
	Key          string
	Kind         stored.Kind // zero for an object that could not be read
	Seal         KeyRef      // what opens it; zero without an envelope
	BucketKey    bool        // in SSE-KMS: see [sse.KMSOptions]
	Stored       int64       // bytes in the store
	Size         int64       // bytes of plaintext; -1 where that is not known
	EnvelopeSize int         // bytes of Stored that are not the body
	ModTime      time.Time   // in the store

	// Err says why an object is damaged, is of an unknown version, or could not
	// be read.
	Err error
}

// InventoryOptions are for [Inventory]. The zero value is right for most.
type InventoryOptions struct {
	// Filter chooses objects. One with Modes or KeyIDs leaves out what has no
	// envelope, and so what could not be read: that no object is in it is no
	// proof that a key is without use. See [CheckUnused].
	Filter Filter

	// Workers is how many objects are looked at at once; 0 means 8.
	Workers int

	// Limit, if set, sets the pace.
	Limit Limiter
}

// Inventory tells of every object what kind it is, under which key, and how
// large. It touches no key and reads no body: one request for the head of each
// object, and a second where that is not an envelope, which is looked at again if
// it should be one. Entries come in the order of the store's listing and are nowhere
// collected; an object that cannot be read is an Entry with Err. The sequence ends
// with an error if the listing fails or ctx ends, and then is not the whole bucket.
// Objects written or deleted meanwhile are in it or not.
//
// A store that keeps older versions, or has backups, has objects that no listing
// shows. In a directory, fileblob (of gocloud v0.47.0) shows nothing of subdirectories
// that are links or that it may not read, and nothing at all if the bucket's own
// directory is a link.
func Inventory(ctx context.Context, b *blob.Bucket, opts *InventoryOptions) iter.Seq2[Entry, error] {
	s := storeOf(b)
	o := valueOr(opts)
	return sequence(func(yield func(Entry) error) error {
		if err := o.Filter.check(); err != nil {
			return err
		}
		return inOrder(ctx, workers(o.Workers), lister(s, o.Filter.Prefix), func(ctx context.Context, object listed) Entry {
			if err := wait(ctx, o.Limit); err != nil {
				return Entry{Key: object.key, Err: err}
			}
			e, _ := inspectListed(ctx, s, object)
			return e
		}, func(_ listed, e Entry) error {
			if err := ctx.Err(); err != nil {
				return err
			}
			switch {
			case errors.Is(e.Err, store.ErrDeleted):
				return nil
			case o.Filter.narrow() && (e.Seal == KeyRef{} || !o.Filter.match(e.Seal)):
				return nil
			}
			return yield(e)
		})
	})
}

// inspect reads the head of an object. The envelope is nil if there is none.
func inspect(ctx context.Context, s *store.Store, object listed) (Entry, *sse.Envelope) {
	o := s.Inspect(ctx, object.key, object.size)
	return entryOf(o), o.Envelope
}

// inspectListed reads the head of an object that the listing showed. The entry's
// error is [store.ErrDeleted] if the listing no longer does.
func inspectListed(ctx context.Context, s *store.Store, object listed) (Entry, *sse.Envelope) {
	o := s.InspectListed(ctx, object.key, object.size)
	return entryOf(o), o.Envelope
}

// entryOf returns the entry of an object.
func entryOf(o store.Object) Entry {
	e := Entry{Key: o.Key, Kind: o.Kind, Stored: o.Stored, Size: o.Size, ModTime: o.ModTime, Err: o.Err}
	if env := o.Envelope; env != nil {
		e.Seal, e.BucketKey, e.EnvelopeSize = keyOf(env), env.BucketKeyEnabled(), env.Size()
	}
	return e
}

// Totals sums an inventory up. The zero Totals is ready.
type Totals struct {
	Objects, Stored, Size int64 // Size without the objects whose size is not known
	Plain                 Count
	UnknownVersion        Count
	Damaged               Count
	Unreadable            Count
	Sealed                map[KeyRef]Count

	// Other is of objects under further keys, once Sealed has maxKeys of them:
	// objects say themselves what key they are under.
	Other Count
}

// Count is of some of the objects.
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
	case e.Seal != KeyRef{}: // also if the body is damaged: the key is needed still
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
	keys := make([]KeyRef, 0, len(t.Sealed))
	for k := range t.Sealed {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, compareKeys)
	return keys
}

func lister(s *store.Store, prefix string) func(context.Context, func(listed) error) error {
	return func(ctx context.Context, visit func(listed) error) error {
		err := s.List(ctx, prefix, func(o store.Listed) error { return visit(listed{key: o.Key, size: o.Size}) })
		if err != nil {
			return fmt.Errorf("blob: listing %q: %w", prefix, err)
		}
		return nil
	}
}

// storeOf returns what a bucket reads and writes.
func storeOf(b *blob.Bucket) *store.Store {
	var s *store.Store
	b.As(&s)
	return s
}
