package localkms

import (
	"context"
	"fmt"
	"strconv"
	"time"
)

// The rotation period, in days, and how many versions a key has.
const (
	MinRotationDays     = 90
	MaxRotationDays     = 2560
	DefaultRotationDays = 365

	// MaxVersions is the largest number of versions of one key: ten of its
	// rotations a year for a hundred years.
	MaxVersions = 1000
)

// Origin tells how a version of a key came about.
type Origin uint8

// The origins of a version. The numbers are those of the document.
const (
	Created           Origin = 1 // with the key
	ScheduledRotation Origin = 2
	OnDemandRotation  Origin = 3
)

var originNames = [...]string{Created: "created", ScheduledRotation: "scheduled", OnDemandRotation: "on demand"}

func (o Origin) valid() bool { return o >= Created && o <= OnDemandRotation }

// String returns "created", "scheduled" or "on demand".
func (o Origin) String() string {
	if !o.valid() {
		return fmt.Sprintf("origin %d", uint8(o))
	}
	return originNames[o]
}

// MarshalText implements [encoding.TextMarshaler].
func (o Origin) MarshalText() ([]byte, error) {
	if !o.valid() {
		return nil, fmt.Errorf("localkms: no such origin: %d", uint8(o))
	}
	return []byte(originNames[o]), nil
}

// Rotation describes the rotation of a key.
type Rotation struct {
	Days     int       `json:"days,omitempty"` // the period; zero means no schedule
	Next     time.Time `json:"next,omitzero"`  // by schedule; zero if there is none
	Versions int       `json:"versions"`       // of the key's material, the newest of which encrypts
}

func (k *key) rotationInfo() Rotation {
	r := Rotation{Days: int(k.rotation.days), Versions: len(k.versions)}
	if r.Days != 0 {
		r.Next = date(k.rotation.next)
	}
	return r
}

// Version describes one version of a key's material.
type Version struct {
	Number  int       `json:"number"` // from 1; as text, it is the KeyVersion of reports and records
	Created time.Time `json:"created"`
	Origin  Origin    `json:"origin"`
}

// name is the version in reports and records.
func (v *material) name() string { return strconv.FormatUint(uint64(v.number), 10) }

func (v *material) info() Version {
	return Version{Number: int(v.number), Created: date(v.created), Origin: v.origin}
}

func checkRotation(days int) error {
	if days < MinRotationDays || days > MaxRotationDays {
		return invalid("rotation every %d days, want %d to %d", days, MinRotationDays, MaxRotationDays)
	}
	return nil
}

func nextRotation(now int64, days uint16) int64 { return min(now+int64(days)*day, maxMillis) }

// EnableKeyRotation rotates the key every so many days from now on, from
// MinRotationDays to MaxRotationDays; zero means DefaultRotationDays. For a key
// that is rotated already it changes the period, and the next date is days from
// now; with the same period nothing changes.
//
// A key is rotated when its date has come and it is enabled, by whichever
// process first uses the service, opens it, or is in [Service.Run]. Its id stays,
// and everything that older versions encrypted is still decrypted.
func (c *Client) EnableKeyRotation(ctx context.Context, keyID string, days int) error {
	return c.change(ctx, OpEnableKeyRotation, keyID, func(d *draft, k *key) error {
		if days == 0 {
			days = DefaultRotationDays
		}
		if err := checkRotation(days); err != nil {
			return err
		}
		if err := k.serves(); err != nil {
			return err
		}
		if int(k.rotation.days) != days {
			d.settle(k, func(k *key) {
				k.rotation = schedule{days: uint16(days), next: nextRotation(d.now, uint16(days))}
			})
		}
		return nil
	})
}

// DisableKeyRotation ends the rotation of the key by schedule.
func (c *Client) DisableKeyRotation(ctx context.Context, keyID string) error {
	return c.change(ctx, OpDisableKeyRotation, keyID, func(d *draft, k *key) error {
		if err := k.notDeleting(); err != nil {
			return err
		}
		if k.rotation.days != 0 {
			d.settle(k, func(k *key) { k.rotation = schedule{} })
		}
		return nil
	})
}

// RotateKey adds a version to the key now, which encrypts from then on, and
// returns it. It does not move the schedule. The key must be enabled; one that
// has MaxVersions is [ErrLimit].
func (c *Client) RotateKey(ctx context.Context, keyID string) (Version, error) {
	var made Version
	err := c.change(ctx, OpRotateKeyOnDemand, keyID, func(d *draft, k *key) error {
		if err := k.serves(); err != nil {
			return err
		}
		if len(k.versions) >= MaxVersions {
			return fmt.Errorf("%w: %s has %d versions", ErrLimit, k.arn, len(k.versions))
		}
		made = d.rotate(k, OnDemandRotation).current().info()
		return nil
	})
	if err != nil {
		return Version{}, err
	}
	return made, nil
}

// ListKeyRotations returns the versions of the key's material, oldest first.
func (c *Client) ListKeyRotations(ctx context.Context, keyID string) ([]Version, error) {
	var versions []Version
	err := c.view(ctx, OpListKeyRotations, keyID, func(k *key) error {
		for i := range k.versions {
			versions = append(versions, k.versions[i].info())
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return versions, nil
}
