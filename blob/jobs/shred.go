package jobs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"gocloud.dev/gcerrors"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/blob/internal/store"
	"github.com/blobseal/blobseal/blob/stored"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/sse"
)

// ErrNothingToShred means that no object is under the key that was to be shredded.
var ErrNothingToShred = errors.New("blob: no object is under the key")

// ShredEvent is what a [ShredRecord] tells.
type ShredEvent string

// The events of a record. Each "shred" of an object that is deleted, or of a key
// that is destroyed, is followed, later, by a "shredded" or a "failed" of the
// same; where one is missing, the process ended between, and whether it happened
// has to be looked up. Objects whose key is destroyed share what follows that of
// the key.
const (
	ShredBegins ShredEvent = "shred"    // it is about to be unreadable
	ShredDone   ShredEvent = "shredded" // it is unreadable
	ShredFailed ShredEvent = "failed"   // it is as it was; of a key, see Error
)

// ShredRecord is a line of the record of what was made unreadable. One without a
// Key is of a key that seals objects.
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

// ShredReport counts what was made unreadable.
type ShredReport struct {
	// Objects are unreadable now, or will be once a key service deletes the key; of
	// a ShredKey that failed, they are those that it recorded.
	Objects int64
	Failed  int64 // these are as they were, or do not tell their key
}

// ShredOptions are for [ShredPrefix] and [ShredKey]. The zero value is
// right for most.
type ShredOptions struct {
	Workers int     // how many objects are in hand at once; 0 means 8
	Limit   Limiter // if set, sets the pace, in objects
}

// shredBatch is how many objects are recorded, and the record synced, before any
// of them is deleted.
const shredBatch = 256

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

// sync makes the record last, if its writer can, as an *os.File can.
func (r shredRecorder) sync() error {
	if s, ok := r.dst.(interface{ Sync() error }); ok {
		if err := s.Sync(); err != nil {
			return fmt.Errorf("blob: record of shredding: %w", err)
		}
	}
	return nil
}

// shredLine is the record of an object.
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

// ShredObject makes one object unreadable by deleting its sealed data key, and the
// ciphertext with it. See [ShredPrefix].
func ShredObject(ctx context.Context, b *blob.Bucket, key string, record io.Writer) error {
	s := storeOf(b)
	e, env := inspect(ctx, s, listed{key: key, size: -1})
	if e.Kind == 0 {
		return e.Err
	}
	r := shredRecorder{record}
	line := shredLine(s.Name, e)
	if err := r.write(ShredBegins, line, nil); err != nil {
		return err
	}
	if err := r.sync(); err != nil {
		return err
	}
	err := shred(ctx, s, e, env)
	event := ShredDone
	if err != nil {
		event = ShredFailed
	}
	return errors.Join(err, r.write(event, line, err), r.sync())
}

// ShredPrefix makes all objects whose keys begin with prefix unreadable, by
// deleting their sealed data keys, and the ciphertext with them. What it is going
// to do is in the record, and synced if record has a Sync method, before it is
// done. Objects that are not encrypted fail, with [blob.ErrPlain], and stay: to delete
// them shreds nothing. An empty prefix is refused, as it is the whole bucket.
//
// This is as good as the store's deletion. Older versions that the store keeps,
// replicas, and backups still have the sealed keys, and whoever has the master key
// opens them. To reach those, give what is to be forgotten together a key of its
// own, and destroy that: see [ShredKey].
//
// Objects that are written while it runs are shredded or not; one that is
// replaced by this Bucket while it is being shredded fails, with [blob.ErrChanged].
func ShredPrefix(ctx context.Context, b *blob.Bucket, prefix string, record io.Writer, opts *ShredOptions) (*ShredReport, error) {
	s := storeOf(b)
	report := new(ShredReport)
	if prefix == "" {
		return report, fmt.Errorf("%w: an empty prefix is the whole bucket", sse.ErrInvalid)
	}
	o := valueOr(opts)
	type found struct {
		Entry
		env *sse.Envelope
	}
	r := shredRecorder{record}
	var batch []found
	flush := func() error {
		for _, f := range batch {
			if err := r.write(ShredBegins, shredLine(s.Name, f.Entry), nil); err != nil {
				return err
			}
		}
		if err := r.sync(); err != nil {
			return err
		}
		errs := make([]error, len(batch))
		each(workers(o.Workers), len(batch), func(i int) {
			errs[i] = s.Absence(ctx, batch[i].Key, shred(ctx, s, batch[i].Entry, batch[i].env))
		})
		for i, f := range batch {
			event := ShredDone
			switch {
			case errors.Is(errs[i], store.ErrDeleted): // by somebody else
				report.Objects++
				errs[i] = nil
			case errs[i] != nil:
				report.Failed++
				event = ShredFailed
			default:
				report.Objects++
			}
			if err := r.write(event, shredLine(s.Name, f.Entry), errs[i]); err != nil {
				return err
			}
		}
		clear(batch)
		batch = batch[:0]
		return ctx.Err()
	}
	err := inOrder(ctx, workers(o.Workers), lister(s, prefix), func(ctx context.Context, object listed) found {
		if err := wait(ctx, o.Limit); err != nil {
			return found{Entry{Key: object.key, Err: err}, nil}
		}
		e, env := inspectListed(ctx, s, object)
		return found{e, env}
	}, func(_ listed, f found) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		if errors.Is(f.Err, store.ErrDeleted) {
			return nil
		}
		if batch = append(batch, f); len(batch) < shredBatch {
			return nil
		}
		return flush()
	})
	if err == nil {
		err = flush()
	}
	if err = errors.Join(err, r.sync()); err != nil {
		return report, err
	}
	if report.Failed > 0 {
		return report, fmt.Errorf("%w: %d failed", ErrIncomplete, report.Failed)
	}
	return report, nil
}

// shred deletes an object if it still is the one that was recorded.
func shred(ctx context.Context, s *store.Store, e Entry, env *sse.Envelope) error {
	switch e.Kind {
	case 0:
		return e.Err
	case stored.KindPlain:
		return stored.ErrPlain
	}
	w := s.Locks.Watch(e.Key)
	defer w.End()
	remove := func() error { return s.Inner.Delete(ctx, e.Key) }
	if env != nil {
		return replace(ctx, s, w, env, remove)
	}
	return s.Change(ctx, w, func(bool) error {
		now := s.Inspect(ctx, e.Key, -1)
		seen := stored.Version{Size: e.Stored, ModTime: e.ModTime}
		switch {
		case now.Kind == 0:
			return now.Err
		case now.Kind != e.Kind, !now.Version().Same(seen):
			return stored.ErrChanged
		}
		return remove()
	})
}

// replace runs publish, which writes or deletes a key, unless the version that
// began with the envelope seen is no longer there; it then returns
// [blob.ErrChanged]. w has watched the key since before it was read. Only
// [blob.Options].IfUnchanged guards against other processes.
func replace(ctx context.Context, s *store.Store, w *stored.Watch, seen *sse.Envelope, publish func() error) error {
	return s.Change(ctx, w, func(changed bool) error {
		if changed {
			return stored.ErrChanged
		}
		now, err := s.EnvelopeAt(ctx, w.Key)
		if gcerrors.Code(err) == gcerrors.NotFound {
			return fmt.Errorf("%w: %w", stored.ErrChanged, err)
		}
		if err != nil {
			return err
		}
		if !stored.SameEnvelope(seen, now) {
			return stored.ErrChanged
		}
		return publish()
	})
}

// each calls do for 0 to n-1, from several goroutines.
func each(workers, n int, do func(i int)) {
	var group sync.WaitGroup
	next := make(chan int)
	for range min(workers, n) {
		group.Go(func() {
			for i := range next {
				do(i)
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	group.Wait()
}

// KeyDestroyer destroys one key. [Version] makes one of a ring's version; for a
// key of a key service, a service has its own calls, such as DisableKey and
// ScheduleKeyDeletion of AWS KMS and of package localkms.
type KeyDestroyer interface {
	// Disable keeps the key from sealing and opening. It does nothing for a key
	// that is disabled.
	Disable(ctx context.Context) error
	// Destroy destroys the key, or schedules that.
	Destroy(ctx context.Context) error
}

// Version is a version of a ring's master key as a [KeyDestroyer]. The primary
// cannot be destroyed: rotate first.
func Version(ring *keyring.Ring, id string) KeyDestroyer { return version{ring, id} }

type version struct {
	ring *keyring.Ring
	id   string
}

func (v version) Disable(ctx context.Context) error {
	_, err := v.ring.SetState(ctx, v.id, keyring.Disabled)
	return err
}

func (v version) Destroy(ctx context.Context) error {
	_, err := v.ring.SetState(ctx, v.id, keyring.Destroyed)
	return err
}

// ShredKey destroys a key, and with it everything that it sealed, wherever there
// are copies: older versions, replicas, and backups of the buckets too. (Backups of
// a ring's document that are older than this hold the version: destroy them, or
// their root. A key service may wait for days before it deletes.) It disables the
// key, so that no more is sealed under it, records every object in buckets that is
// under it, syncs the record if it can, and only then destroys. If it fails before
// that, the key stays disabled, and nothing is lost yet.
//
// A process that does not know yet that the key is disabled, as one whose ring has
// not been refreshed, seals on: what it writes after the record is not in it, and
// lost all the same.
//
// If no object in buckets is under the key, ShredKey changes nothing and returns
// [ErrNothingToShred]: the key may have been mistyped. Name a key of a key service by
// its id or ARN, never by an alias. To destroy a key that nothing needs, use [Retire].
//
// Objects that do not tell which key they need are recorded as failed.
func ShredKey(ctx context.Context, key KeyRef, destroyer KeyDestroyer, record io.Writer, opts *ShredOptions, buckets ...*blob.Bucket) (*ShredReport, error) {
	report := new(ShredReport)
	if err := key.check(); err != nil {
		return report, err
	}
	if len(buckets) == 0 || key.Mode == sse.ModeCustomer {
		return report, fmt.Errorf("%w: shredding needs a key with an id, and its buckets", sse.ErrInvalid)
	}
	o := valueOr(opts)
	if err := findUse(ctx, key, o, buckets); err != nil {
		return report, err
	}
	if err := destroyer.Disable(ctx); err != nil {
		return report, fmt.Errorf("blob: disabling %v: %w", key, err)
	}
	r := shredRecorder{record}
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
