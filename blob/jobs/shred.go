package jobs

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"gocloud.dev/gcerrors"
	"golang.org/x/sync/errgroup"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/blob/internal/store"
	"github.com/blobseal/blobseal/blob/stored"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/sse"
)

// ErrNothingToShred means that no object is under the key that was to be shredded.
var ErrNothingToShred = errors.New("blob: no object is under the key")

// ShredEvent is the event of a [ShredRecord].
type ShredEvent string

// The events of a record. A "shred" precedes each deletion of an object and each
// destruction of a key; a "shredded" or "failed" of the same object or key follows it. If
// none follows, the process ended in between: look up whether it happened. Objects whose
// key is destroyed share the key's outcome.
const (
	ShredBegins ShredEvent = "shred"    // it is about to become unreadable
	ShredDone   ShredEvent = "shredded" // it is unreadable
	ShredFailed ShredEvent = "failed"   // it is unchanged; for a key, see Error
)

// ShredRecord is a line of the record of a shredding, about an object or, if Key is
// empty, about a key that seals objects.
type ShredRecord struct {
	Time    time.Time  `json:"time"`
	Event   ShredEvent `json:"event"`
	Bucket  string     `json:"bucket,omitempty"`
	Key     string     `json:"key,omitempty"`
	Kind    string     `json:"kind,omitempty"`
	Mode    string     `json:"mode,omitempty"`
	KeyID   string     `json:"keyId,omitempty"`
	Stored  int64      `json:"stored,omitempty"`
	Size    int64      `json:"size,omitempty"`
	ModTime *time.Time `json:"modTime,omitempty"`
	Error   string     `json:"error,omitempty"`
}

// ShredReport counts objects.
type ShredReport struct {
	// Objects are unreadable now, or will be when the key service deletes the key. If
	// ShredKey failed, they are the objects that it recorded.
	Objects int64
	Failed  int64 // unchanged, or under an unknown key
}

// ShredOptions are for [ShredPrefix] and [ShredKey]. Most callers pass nil.
type ShredOptions struct {
	Workers int     // how many objects are in hand at once; 0 means 8
	Limit   Limiter // if set, sets the pace, in objects
}

// shredBatchSize is how many objects ShredPrefix records, with one sync of the record,
// before it deletes them.
const shredBatchSize = 256

// shredRecorder writes a record, as JSON Lines.
type shredRecorder struct{ dst io.Writer }

func (r shredRecorder) write(event ShredEvent, line ShredRecord, err error) error {
	line.Time, line.Event = time.Now().UTC(), event
	if err != nil {
		line.Error = err.Error()
	}
	text, err := json.Marshal(line)
	if err == nil {
		_, err = r.dst.Write(append(text, '\n'))
	}
	if err != nil {
		return fmt.Errorf("blob: record of shredding: %w", err)
	}
	return nil
}

// sync syncs the record if its writer can, as an *os.File can.
func (r shredRecorder) sync() error {
	if s, ok := r.dst.(interface{ Sync() error }); ok {
		if err := s.Sync(); err != nil {
			return fmt.Errorf("blob: record of shredding: %w", err)
		}
	}
	return nil
}

// check refuses to shred without a record.
func (r shredRecorder) check() error {
	if r.dst == nil {
		return fmt.Errorf("%w: no writer for the record of what is shredded", sse.ErrInvalid)
	}
	return nil
}

// shredLine returns the record of an object.
func shredLine(bucket string, e Entry) ShredRecord {
	line := ShredRecord{Bucket: bucket, Key: e.Key, Stored: max(e.Stored, 0), Size: max(e.Size, 0)}
	if e.Kind != 0 {
		line.Kind = e.Kind.String()
	}
	if e.Seal != (KeyRef{}) {
		line.Mode, line.KeyID = e.Seal.Mode.String(), e.Seal.KeyID
	}
	if !e.ModTime.IsZero() {
		t := e.ModTime.UTC()
		line.ModTime = &t
	}
	return line
}

// ShredObject makes one object unreadable: it deletes the object and with it the sealed
// data key. See [ShredPrefix].
func ShredObject(ctx context.Context, b *blob.Bucket, key string, record io.Writer) error {
	p := &shredding{s: storeOf(b), record: shredRecorder{record}}
	if err := p.record.check(); err != nil {
		return err
	}
	seen := p.s.Inspect(ctx, store.Listed{Key: key, Size: -1})
	if seen.Kind == 0 {
		return seen.Err
	}
	p.batch = append(p.batch, seen)
	err := p.shredBatch(ctx)
	return errors.Join(p.failure, err, p.record.sync())
}

// ShredPrefix makes all objects whose keys begin with prefix unreadable: it deletes them
// and with them their sealed data keys. It writes to the record, and syncs it if it has a
// Sync method, before it deletes. Objects that are not encrypted fail with
// [blob.ErrPlain] and stay, since deleting them shreds nothing. An empty prefix, which
// means the whole bucket, is refused.
//
// This is as good as the store's deletion. Older versions in the store, replicas and
// backups still have the sealed keys, and whoever has the master key can open them. To
// reach those, put objects that are to be forgotten together under a key of their own and
// destroy it: see [ShredKey].
//
// Objects that are written while ShredPrefix runs may stay. An object that this Bucket
// replaces meanwhile fails with [blob.ErrChanged].
func ShredPrefix(ctx context.Context, b *blob.Bucket, prefix string, record io.Writer, opts *ShredOptions) (*ShredReport, error) {
	if prefix == "" {
		return new(ShredReport), fmt.Errorf("%w: an empty prefix is the whole bucket", sse.ErrInvalid)
	}
	o := valueOr(opts)
	p := &shredding{s: storeOf(b), record: shredRecorder{record}, workers: o.Workers}
	if err := p.record.check(); err != nil {
		return &p.report, err
	}
	err := lookAtAll(ctx, p.s, prefix, pace{o.Workers, o.Limit}, func(ctx context.Context, object store.Listed) (store.Object, error) {
		seen := p.s.InspectListed(ctx, object)
		seen.Trailer = nil // which may be large, and many objects wait for their batch
		return seen, seen.Err
	}, func(seen store.Object, _ error) error {
		if p.batch = append(p.batch, seen); len(p.batch) < shredBatchSize {
			return nil
		}
		return p.shredBatch(ctx)
	})
	if err == nil {
		err = p.shredBatch(ctx)
	}
	if err = errors.Join(err, p.record.sync()); err != nil {
		return &p.report, err
	}
	if p.failure != nil {
		return &p.report, fmt.Errorf("%w: %d failed, first: %w", ErrIncomplete, p.report.Failed, p.failure)
	}
	return &p.report, nil
}

// shredding is a shredding of objects of a bucket, in batches.
type shredding struct {
	s       *store.Store
	record  shredRecorder
	workers int
	batch   []store.Object
	report  ShredReport
	failure error // the first
}

// shredBatch records the batch, shreds it and records how that went.
func (p *shredding) shredBatch(ctx context.Context) error {
	for _, seen := range p.batch {
		if err := p.record.write(ShredBegins, shredLine(p.s.Name, entryOf(seen)), nil); err != nil {
			return err
		}
	}
	if err := p.record.sync(); err != nil {
		return err
	}
	errs := make([]error, len(p.batch))
	var group errgroup.Group
	group.SetLimit(workers(p.workers))
	for i, seen := range p.batch {
		group.Go(func() error {
			errs[i] = p.s.Absence(ctx, seen.Key, shred(ctx, p.s, seen))
			return nil // one that fails stops no other
		})
	}
	group.Wait()
	for i, seen := range p.batch {
		event, err := ShredDone, errs[i]
		if errors.Is(err, store.ErrDeleted) { // by somebody else
			err = nil
		}
		if err != nil {
			event = ShredFailed
			p.report.Failed++
			p.failure = cmp.Or(p.failure, fmt.Errorf("%q: %w", seen.Key, err))
		} else {
			p.report.Objects++
		}
		if err := p.record.write(event, shredLine(p.s.Name, entryOf(seen)), err); err != nil {
			return err
		}
	}
	clear(p.batch)
	p.batch = p.batch[:0]
	return nil
}

// shred deletes an object if it is still as it was seen. The store has no conditional
// deletion: what another process writes after this look is deleted, except on files.
func shred(ctx context.Context, s *store.Store, seen store.Object) error {
	switch seen.Kind {
	case 0:
		return seen.Err
	case stored.KindPlain:
		return stored.ErrPlain
	}
	return s.Commit(ctx, seen.Key, func() error {
		now := s.Inspect(ctx, store.Listed{Key: seen.Key, Size: seen.Stored})
		switch {
		case gcerrors.Code(now.Err) == gcerrors.NotFound:
			return fmt.Errorf("%w: %w", stored.ErrChanged, now.Err)
		case now.Kind == 0:
			return now.Err
		case !now.Same(seen):
			return stored.ErrChanged
		}
		return s.Inner.Delete(ctx, seen.Key)
	})
}

// KeyDestroyer destroys one key. [RingKeyDestroyer] returns one for a version of a ring.
// For a key of a key service, implement it with the service's calls, such as DisableKey
// and ScheduleKeyDeletion of AWS KMS and of package localkms.
type KeyDestroyer interface {
	// Disable stops the key from sealing and opening. It does nothing if the key is
	// disabled.
	Disable(ctx context.Context) error
	// Destroy destroys the key or schedules its destruction.
	Destroy(ctx context.Context) error
}

// RingKeyDestroyer returns the [KeyDestroyer] of a version of a ring's master key. The
// primary cannot be destroyed: rotate first.
func RingKeyDestroyer(ring *keyring.Ring, id string) KeyDestroyer { return ringVersion{ring, id} }

type ringVersion struct {
	ring *keyring.Ring
	id   string
}

func (v ringVersion) Disable(ctx context.Context) error {
	_, err := v.ring.SetState(ctx, v.id, keyring.Disabled)
	return err
}

func (v ringVersion) Destroy(ctx context.Context) error {
	_, err := v.ring.SetState(ctx, v.id, keyring.Destroyed)
	return err
}

// ShredKey destroys a key and with it everything that it sealed, including older
// versions, replicas and backups of the buckets. (Older backups of a ring's document still
// hold the version: destroy them, or their root. A key service may wait for days before it
// deletes.) ShredKey disables the key so that it seals no more, records every object in
// buckets that is under it, syncs the record if it can, and only then destroys the key. If
// it fails before that, the key stays disabled and nothing is lost yet.
//
// A process that has not heard that the key is disabled, because its ring has not been
// refreshed, still seals under it. What it writes after the record is lost and not in the
// record.
//
// If no object in buckets is under the key, ShredKey changes nothing and returns
// [ErrNothingToShred]: the key may have been mistyped. Name a key of a key service by its
// id or ARN, never by an alias. To destroy a key that nothing needs, use [Retire].
//
// Objects that do not tell which key they need are recorded as failed.
func ShredKey(ctx context.Context, key KeyRef, destroyer KeyDestroyer, record io.Writer, opts *ShredOptions, buckets ...*blob.Bucket) (*ShredReport, error) {
	report := new(ShredReport)
	if err := key.check(); err != nil {
		return report, err
	}
	if len(buckets) == 0 || key.Mode == sse.ModeCustomer || destroyer == nil {
		return report, fmt.Errorf("%w: shredding needs a key with an id, its destroyer, and its buckets", sse.ErrInvalid)
	}
	r := shredRecorder{record}
	if err := r.check(); err != nil {
		return report, err
	}
	o := valueOr(opts)
	if err := findUse(ctx, key, o, buckets); err != nil {
		return report, err
	}
	if err := destroyer.Disable(ctx); err != nil {
		return report, fmt.Errorf("blob: disabling %v: %w", key, err)
	}
	for _, b := range buckets {
		for e, err := range Inventory(ctx, b, &InventoryOptions{Workers: o.Workers, Limit: o.Limit}) {
			if err != nil {
				return report, err
			}
			switch {
			case key.names(e.Seal):
				report.Objects++
				err = r.write(ShredBegins, shredLine(b.Name(), e), nil)
			case e.Seal == KeyRef{} && e.Kind != stored.KindPlain:
				report.Failed++
				err = r.write(ShredFailed, shredLine(b.Name(), e), e.Err)
			}
			if err != nil {
				return report, err
			}
		}
	}
	line := ShredRecord{Mode: key.Mode.String(), KeyID: key.KeyID}
	if err := r.write(ShredBegins, line, nil); err != nil {
		return report, err
	}
	if err := r.sync(); err != nil {
		return report, err
	}
	if err := destroyer.Destroy(ctx); err != nil {
		err = fmt.Errorf("blob: destroying %v: %w", key, err)
		return report, errors.Join(err, r.write(ShredFailed, line, err), r.sync())
	}
	return report, errors.Join(r.write(ShredDone, line, nil), r.sync())
}

// findUse returns [ErrNothingToShred] unless an object in buckets is under the key.
func findUse(ctx context.Context, key KeyRef, o ShredOptions, buckets []*blob.Bucket) error {
	for _, b := range buckets {
		for e, err := range Inventory(ctx, b, &InventoryOptions{Workers: o.Workers, Limit: o.Limit}) {
			if err != nil {
				return err
			}
			if key.names(e.Seal) {
				return nil
			}
		}
	}
	return fmt.Errorf("%w: %v", ErrNothingToShred, key)
}
