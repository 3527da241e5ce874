package localkms

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/blobseal/blobseal/internal/document"
	"github.com/blobseal/blobseal/kms"
)

// maintenancePause is how long the service waits after maintenance failed.
const maintenancePause = time.Minute

// usePatience is how long a use of a key waits for maintenance, and for a load
// because of age. ownPatience is how long Open and Run wait for maintenance.
const (
	usePatience = time.Second
	ownPatience = 30 * time.Second
)

// withPatience bounds ctx by wait, and by half of the time that ctx has left, so
// that the caller has time for its own work.
func withPatience(ctx context.Context, wait time.Duration) (context.Context, context.CancelFunc) {
	if deadline, ok := ctx.Deadline(); ok {
		wait = min(wait, time.Until(deadline)/2)
	}
	return context.WithTimeout(ctx, wait)
}

// clockTolerance is how far another process's clock may be ahead of this one, in
// milliseconds.
const clockTolerance = int64(document.ClockTolerance / time.Millisecond)

// maintenanceDue reports whether there is something for maintain.
func (s *Service) maintenanceDue() bool {
	snap, now := s.doc.State(), s.now()
	return now >= snap.due || snap.last > now+clockTolerance
}

// maintain deletes and rotates the keys that are due, within patience. It does
// nothing while another call does so, or shortly after it failed. Failures go to
// the Logger: a key that cannot be rotated keeps its version, and a key past its
// deadline is refused even if it could not be deleted.
//
// Deletions and rotations are edits of their own: as part of a caller's edit, they could
// make that fail. Deletions come first, because they make room.
func (s *Service) maintain(ctx context.Context, patience time.Duration) {
	if time.Since(s.start) < time.Duration(s.resume.Load()) || !s.maintaining.CompareAndSwap(false, true) {
		return
	}
	defer s.maintaining.Store(false)
	bounded, cancel := withPatience(ctx, patience)
	defer cancel()
	var err error
	if s.deletionDue() {
		err = s.deleteDue(bounded)
	}
	err = errors.Join(err, s.rotateDue(bounded))
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		s.log.LogAttrs(ctx, slog.LevelError, "localkms: rotation or deletion that is due failed", slog.Any("error", err))
	}
	if err != nil || s.maintenanceDue() {
		s.resume.Store(int64(time.Since(s.start) + maintenancePause))
	}
}

// maintainAfterEdit does what is due after an edit that succeeded. The store has
// just taken a document, so deletions do not wait for an earlier failure to pass.
func (s *Service) maintainAfterEdit(ctx context.Context) {
	deletion := s.deletionDue()
	if deletion {
		s.resume.Store(0)
	}
	if deletion || s.maintenanceDue() {
		s.maintain(ctx, usePatience)
	}
}

// deletionDue reports whether there is a key for deleteDue.
func (s *Service) deletionDue() bool {
	now := s.now()
	for _, k := range s.doc.State().keys {
		if k.isPastDeadline(now) || s.isLost(k) {
			return true
		}
	}
	return false
}

// deleteDue deletes the keys whose deadline has passed, by the store's clock if it has
// one, or was seen to pass before this process's clock went back.
func (s *Service) deleteDue(ctx context.Context) error {
	return s.perform(ctx, func(d *draft) []deed {
		var deeds []deed
		for _, k := range d.keys { // remove replaces d.keys, not the map that is ranged over
			if k.isPastDeadline(d.now) || s.isLost(k) && !d.ofStore {
				d.remove(k)
				deeds = append(deeds, deed{op: opDeleteKey, arn: k.arn})
			}
		}
		return deeds
	})
}

// rotateDue rotates the keys whose date has come, the longest overdue first, as
// many as the document has room for. A date that is further off than a whole period was
// set by a process whose clock is ahead: the period begins now instead.
func (s *Service) rotateDue(ctx context.Context) error {
	left, made := 0, 0
	var moved []string
	err := s.perform(ctx, func(d *draft) []deed {
		var due []*key
		moved = nil
		for _, k := range d.keys { // editSettings replaces d.keys, not the map that is ranged over
			switch {
			case k.state != Enabled || k.rotation.days == 0:
			case k.periodBegan() > d.now+clockTolerance:
				d.editSettings(k, func(k *key) { k.rotation.next = nextRotation(d.now, k.rotation.days) })
				moved = append(moved, k.arn)
			case d.now >= k.rotation.next && len(k.versions) < maxVersions && !k.rotatedLately(d.now):
				due = append(due, k)
			}
		}
		slices.SortFunc(due, func(a, b *key) int { return cmp.Compare(a.rotation.next, b.rotation.next) })
		room := max(0, s.format.limitFor(d)-d.size) / (2 * minVersionSize) // twice: a chunk more has a tag more
		left = max(0, len(due)-room)
		var deeds []deed
		for _, k := range due[:len(due)-left] {
			next := d.rotate(k, ScheduledRotation)
			deeds = append(deeds, deed{op: opRotateKey, arn: k.arn, version: next.current().name()})
		}
		made = len(deeds)
		return deeds
	})
	if err == nil {
		s.rotated.Add(uint64(made))
	}
	if err == nil && len(moved) > 0 {
		s.log.LogAttrs(ctx, slog.LevelWarn, "localkms: next rotation was further off than the period, which begins again (check all clocks)",
			slog.Any("keys", moved))
	}
	if err == nil && left > 0 {
		err = fmt.Errorf("%w: %d keys are due for rotation, but the document has no room for their versions", ErrFull, left)
	}
	if err != nil {
		s.failed.Add(1)
	}
	return err
}

// servicePrincipal performs maintenance.
var servicePrincipal = kms.Principal{ID: "localkms", Type: "Service"}

// deed is one deletion or rotation.
type deed struct {
	op           kms.Operation
	arn, version string
}

// perform stores what edit did to the draft, and records each deed before. If a
// deed that was recorded then does not happen, a second record with the same
// request id says so.
func (s *Service) perform(ctx context.Context, edit func(*draft) []deed) error {
	recorded := make(map[deed]*call)
	var deeds []deed
	err := s.update(ctx, func(d *draft) error {
		deeds = edit(d)
		return nil
	}, func() error {
		for _, one := range deeds {
			if recorded[one] != nil {
				continue
			}
			o := s.beginDeed(ctx, one)
			if err := o.recordChange(); err != nil {
				return err
			}
			recorded[one] = o
		}
		return nil
	})
	reason := err
	if reason == nil {
		for _, one := range deeds { // these happened
			delete(recorded, one)
		}
		reason = fmt.Errorf("%w: another process did it first", kms.ErrNotFound)
	}
	for _, o := range recorded {
		o.retract(reason) // the deed did not happen: there is nothing left to refuse
	}
	return err
}

// beginDeed begins a deed as an operation of the service itself.
func (s *Service) beginDeed(ctx context.Context, one deed) *call {
	ctx = kms.WithResource(kms.WithPrincipal(ctx, servicePrincipal), "")
	o := s.begin(ctx, one.op, "", nil)
	o.report.KeyID, o.report.KeyVersion = one.arn, one.version
	return o
}
