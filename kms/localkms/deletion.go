package localkms

import (
	"context"
	"time"
)

// The days between ScheduleKeyDeletion and the deletion.
const (
	MinDeletionDays     = 7
	MaxDeletionDays     = 30
	defaultDeletionDays = 30
)

// ScheduleKeyDeletion refuses every use of the key, and deletes it after days, from
// MinDeletionDays to MaxDeletionDays; zero means 30. It returns when.
// [Client.CancelKeyDeletion] keeps the key until then.
//
// From that time on the key is not found. Its material, aliases, grants and policy
// are removed from the document by the process that first uses or opens the
// service, or that is in [Service.Run]. What the key encrypted is lost once no copy
// of an older document is left. Databases keep such copies: etcd until it is
// compacted, PostgreSQL until it is vacuumed and its log is recycled.
//
// The days count by the store's clock if it has one, see [keyring.Clock]. Otherwise they
// count from the newest time in the document if this process's clock is behind that, so
// that no other process deletes the key early.
//
// A key that is pending deletion already is [kms.ErrPendingDeletion], and a default
// key [ErrReserved].
func (c *Client) ScheduleKeyDeletion(ctx context.Context, keyID string, days int) (time.Time, error) {
	var when time.Time
	err := c.change(ctx, opScheduleKeyDeletion, keyID, func(d *draft, k *key) error {
		if days == 0 {
			days = defaultDeletionDays
		}
		if days < MinDeletionDays || days > MaxDeletionDays {
			return invalid("deletion in %d days, want %d to %d", days, MinDeletionDays, MaxDeletionDays)
		}
		if k.isDefault {
			return reserved("default key " + k.arn)
		}
		deadline := min(d.latestTime()+int64(days)*day, maxMillis)
		when = date(deadline)
		d.edit(k, func(k *key) { k.deletions = []deletion{{newMark(), deadline}} })
		return nil
	})
	if err != nil {
		return time.Time{}, err
	}
	return when, nil
}

// latestTime returns the time from which a deadline counts. The store's clock is right, and a
// time in the document that is far ahead of it is not.
func (d *draft) latestTime() int64 {
	limit := maxMillis
	if d.ofStore {
		limit = d.now + clockTolerance
	}
	return max(d.now, d.newestTime(limit))
}

// CancelKeyDeletion keeps a key that is pending deletion, and leaves it disabled.
// Any other key is [kms.ErrInvalid], or [kms.ErrNotFound] once it is deleted.
func (c *Client) CancelKeyDeletion(ctx context.Context, keyID string) error {
	return c.change(ctx, opCancelKeyDeletion, keyID, func(d *draft, k *key) error {
		if k.state != PendingDeletion {
			return invalid("%s is not pending deletion", k.arn)
		}
		takeBack(d, k.deletions...)
		d.edit(k, func(k *key) {
			k.deletions = nil
			if len(k.disabled) == 0 {
				k.disable()
			}
		})
		return nil
	})
}
