package localkms

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/blobseal/blobseal/kms"
)

// The rotation period, in days, and the number of versions of a key.
const (
	MinRotationDays     = 90
	MaxRotationDays     = 2560
	defaultRotationDays = 365

	// maxVersions is the largest number of versions of one key: ten rotations a
	// year for a hundred years.
	maxVersions = 1000
)

// Origin tells why a version of a key was made.
type Origin string

// The origins of a version.
const (
	Created           Origin = "created" // with the key
	ScheduledRotation Origin = "scheduled"
	OnDemandRotation  Origin = "on demand"
)

// originCodes are the origins by their number in a document.
var originCodes = []Origin{1: Created, 2: ScheduledRotation, 3: OnDemandRotation}

// Rotation describes the rotation of a key.
type Rotation struct {
	Days     int       `json:"days,omitempty"` // the period; zero means no schedule
	Next     time.Time `json:"next,omitzero"`  // by schedule; zero if there is none
	Versions int       `json:"versions"`       // the newest encrypts
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
	Number  int       `json:"number"` // from 1; the KeyVersion of reports and audit records
	Created time.Time `json:"created"`
	Origin  Origin    `json:"origin"`
}

// name returns the version's number for reports and records.
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

// EnableKeyRotation rotates the key every so many days, from MinRotationDays to
// MaxRotationDays; zero means 365. The first rotation is that many days from now.
// If the key has that period already, nothing changes.
//
// A key whose date has come is rotated, if it is enabled, by the process that first
// uses or opens the service, or that is in [Service.Run]; but not within half a period of
// its last rotation by schedule, because processes whose clocks differ would rotate it in turn.
// Older versions go on decrypting what they encrypted.
func (c *Client) EnableKeyRotation(ctx context.Context, keyID string, days int) error {
	return c.change(ctx, opEnableKeyRotation, keyID, func(d *draft, k *key) error {
		if days == 0 {
			days = defaultRotationDays
		}
		if err := checkRotation(days); err != nil {
			return err
		}
		if err := k.checkUsable(); err != nil {
			return err
		}
		if int(k.rotation.days) != days {
			d.editSettings(k, func(k *key) {
				k.rotation = schedule{days: uint16(days), next: nextRotation(d.now, uint16(days))}
			})
		}
		return nil
	})
}

// DisableKeyRotation ends the rotation of the key by schedule.
func (c *Client) DisableKeyRotation(ctx context.Context, keyID string) error {
	return c.change(ctx, opDisableKeyRotation, keyID, func(d *draft, k *key) error {
		if k.rotation.days != 0 {
			d.editSettings(k, func(k *key) { k.rotation = schedule{} })
		}
		return nil
	})
}

// RotateKey adds a version to the key now and returns it. The version encrypts from
// then on. The schedule stays as it is. The key must be enabled; a key with
// 1,000 versions is [ErrLimit].
func (c *Client) RotateKey(ctx context.Context, keyID string) (Version, error) {
	var made Version
	err := c.change(ctx, opRotateKeyOnDemand, keyID, func(d *draft, k *key) error {
		if err := k.checkUsable(); err != nil {
			return err
		}
		if len(k.versions) >= maxVersions {
			return fmt.Errorf("%w: %s has %d versions", ErrLimit, k.arn, len(k.versions))
		}
		made = d.rotate(k, OnDemandRotation).current().info()
		return nil
	})
	if errors.Is(err, kms.ErrUnavailable) {
		c.service.failed.Add(1)
	}
	if err != nil {
		return Version{}, err
	}
	c.service.rotated.Add(1)
	return made, nil
}

// ListKeyRotations returns the versions of one key, oldest first. The list needs no
// pages: rotation stops at 1000 versions.
func (c *Client) ListKeyRotations(ctx context.Context, keyID string) ([]Version, error) {
	return view(ctx, c, opListKeyRotations, keyID, func(k *key) (versions []Version) {
		for i := range k.versions {
			versions = append(versions, k.versions[i].info())
		}
		return versions
	})
}
