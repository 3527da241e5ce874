package localkms

import (
	"context"
	"time"
)

// The window between ScheduleKeyDeletion and the deletion, in days.
const (
	MinDeletionDays     = 7
	MaxDeletionDays     = 30
	DefaultDeletionDays = 30
)

// ScheduleKeyDeletion stops every use of the key at once, and deletes it after
// days, from MinDeletionDays to MaxDeletionDays; zero means DefaultDeletionDays.
// It returns when. Until then [Client.CancelKeyDeletion] takes it back.
//
// Then the key is gone: its material, its aliases, its grants and its policy.
// The process that first opens or uses the service after that, or that is in
// [Service.Run], writes a document without them; whether that has happened or
// not, the key is not found. What it encrypted cannot be read any more, by
// anyone, once copies of older documents, or their roots, are gone as well. A
// database makes such copies by itself: etcd keeps what was replaced until it is
// compacted, PostgreSQL until it is vacuumed and its log is recycled.
//
// A key that waits already is kms.ErrPendingDeletion, a default key [ErrReserved].
func (c *Client) ScheduleKeyDeletion(ctx context.Context, keyID string, days int) (when time.Time, err error) {
	err = c.change(ctx, OpScheduleKeyDeletion, keyID, func(d *draft, k *key) error {
		if days == 0 {
			days = DefaultDeletionDays
		}
		if days < MinDeletionDays || days > MaxDeletionDays {
			return invalid("deletion in %d days, want %d to %d", days, MinDeletionDays, MaxDeletionDays)
		}
		if k.isDefault {
			return reserved("default key " + k.arn)
		}
		if err := k.notDeleting(); err != nil {
			return err
		}
		deadline := min(d.now+int64(days)*day, maxMillis)
		when = date(deadline)
		d.edit(k, func(k *key) { k.deletions = []deletion{{newMark(), deadline}} })
		return nil
	})
	if err != nil {
		return time.Time{}, err
	}
	return when, nil
}

// CancelKeyDeletion takes ScheduleKeyDeletion back and leaves the key disabled.
// A key that is not waiting to be deleted is kms.ErrInvalid; one whose window has
// passed is kms.ErrNotFound.
func (c *Client) CancelKeyDeletion(ctx context.Context, keyID string) error {
	return c.change(ctx, OpCancelKeyDeletion, keyID, func(d *draft, k *key) error {
		if k.state != PendingDeletion {
			return invalid("%s is not pending deletion", k.arn)
		}
		d.forget(marksOf(k.deletions)...)
		d.edit(k, func(k *key) {
			k.deletions = nil
			if len(k.disabled) == 0 {
				k.disable()
			}
		})
		return nil
	})
}
