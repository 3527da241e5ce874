package jobs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/keyring"
)

// ErrQuarantine means that the version has not been disabled for long enough to be
// destroyed.
var ErrQuarantine = errors.New("blob: key version is in quarantine")

// How long a version is disabled before it is destroyed.
const (
	DefaultQuarantine = 7 * 24 * time.Hour
	NoQuarantine      = time.Duration(-1)
)

// RetireOptions are for [Retire]. The zero value disables.
type RetireOptions struct {
	// Destroy destroys the version, once it has been disabled for Quarantine.
	Destroy bool

	// Quarantine is how long that is. Zero means [DefaultQuarantine]. A negative value,
	// such as [NoQuarantine], means none, for buckets that nobody else writes to. Make it
	// longer than the longest upload, and than the time that any process writes without
	// refreshing its ring.
	//
	// If the ring's store is a [keyring.Clock], the quarantine counts by that, and Retire
	// fails with a [*keyring.ClockError] instead of destroying by a wrong clock.
	// Otherwise make it longer than the difference between the clocks of the process that
	// disabled the version and this one.
	Quarantine time.Duration

	// Workers is how many objects are looked at at once; 0 means 8.
	Workers int

	// Limit, if set, sets the pace of the inventories, in objects.
	Limit Limiter
}

// Retire disables or destroys a version of a ring's master key if no object in
// buckets needs it. Pass all buckets that the ring seals for. Retire does not see
// older versions in the store, backups, what a store does not list (see
// [Inventory]), and envelopes that are kept elsewhere: they are unreadable
// afterwards.
//
// Retire refuses the primary ([keyring.ErrPrimary]): rotate and rewrap first. It
// then looks at every object and fails with an [*InUseError] that names those under
// the version and those that may be. It does not believe envelopes. An object may
// need the version if its SSE-S3 envelope does not open, which includes those under
// unknown, disabled and destroyed versions, if its envelope contradicts the hint in
// its metadata, and if it looks plain in a bucket without [blob.Options].AllowPlain.
// (With AllowPlain, an object whose envelope and metadata are both gone passes for a
// plain one.)
//
// If no object needs the version, Retire disables it and looks at every object
// again. If it finds an object that another process published in between, it enables
// the version again. After a success, every object that existed when the version was
// disabled opens without it.
//
// Retire cannot see an upload under way, or a process that has not heard of the
// rotation yet. Their objects cannot be read while the version is disabled, and can
// again if it is enabled. This is why Destroy waits: Retire with Destroy disables the
// version and returns [ErrQuarantine]. Call it again after the quarantine. It then
// destroys the version if still no object needs it and nobody enabled it meanwhile.
//
// Retire returns the version as it is afterwards, also with an error if it is known.
func Retire(ctx context.Context, ring *keyring.Ring, id string, opts *RetireOptions, buckets ...*blob.Bucket) (keyring.Version, error) {
	o := valueOr(opts)
	if o.Quarantine == 0 {
		o.Quarantine = DefaultQuarantine
	}
	if err := ring.Refresh(ctx); err != nil {
		return keyring.Version{}, fmt.Errorf("blob: retiring %s: %w", id, err)
	}
	info, err := versionOf(ring, id)
	if err != nil {
		return info, fmt.Errorf("blob: retiring %s: %w", id, err)
	}
	if err := checkClock(ring); err != nil {
		return info, err
	}
	p := newProver(ring, id)
	var looked time.Time // when the last look at all objects began
	unused := func() error {
		looked = time.Now()
		return p.checkUnused(ctx, o, buckets)
	}
	if err := unused(); err != nil {
		return info, err
	}
	if info.State == keyring.Enabled {
		disabled, err := ring.SetState(ctx, id, keyring.Disabled)
		if err != nil {
			return info, fmt.Errorf("blob: retiring %s: %w", id, err)
		}
		if err := unused(); err != nil {
			enabled, undo := ring.SetState(context.WithoutCancel(ctx), id, keyring.Enabled)
			if undo != nil {
				return disabled, errors.Join(err, fmt.Errorf("blob: %s stays disabled: %w", id, undo))
			}
			return enabled, err
		}
		info = disabled
	}
	if !o.Destroy {
		return info, nil
	}
	// What was published in the quarantine is in an inventory that begins after it.
	if end := info.Changed.Add(o.Quarantine); o.Quarantine > 0 && looked.Before(end) {
		return info, fmt.Errorf("%w: %s may be destroyed from %s on", ErrQuarantine, id, end.Format(time.RFC3339))
	}
	// The look took its time, and somebody may have enabled the version since.
	destroyed, err := ring.SetStateIf(ctx, id, keyring.Destroyed, func(now keyring.Version) error {
		if now.State != info.State || !now.Changed.Equal(info.Changed) {
			return fmt.Errorf("%w: %s was enabled meanwhile", ErrQuarantine, id)
		}
		return nil
	})
	if err != nil {
		if now, findErr := versionOf(ring, id); findErr == nil {
			info = now
		}
		return info, fmt.Errorf("blob: retiring %s: %w", id, err)
	}
	return destroyed, nil
}

// clockTolerance is how far another process's clock may be ahead of this one.
const clockTolerance = 10 * time.Minute

// checkClock refuses to begin or end a quarantine by a clock that is behind the clock
// that made a version of the ring. The quarantine would be shorter than it says.
func checkClock(ring *keyring.Ring) error {
	for _, v := range ring.Versions() {
		if ahead := time.Until(v.Created); ahead > clockTolerance {
			return fmt.Errorf("%w: version %s was made %v in the future (check all clocks)", ErrQuarantine, v.ID, ahead.Round(time.Minute))
		}
	}
	return nil
}

// versionOf returns a version that may be retired.
func versionOf(ring *keyring.Ring, id string) (keyring.Version, error) {
	keys := ring.Versions()
	i := slices.IndexFunc(keys, func(k keyring.Version) bool { return k.ID == id })
	switch {
	case i < 0:
		return keyring.Version{}, keyring.ErrUnknownKey
	case keys[i].Primary:
		return keys[i], keyring.ErrPrimary
	case keys[i].State == keyring.Destroyed:
		return keys[i], keyring.ErrDestroyed
	}
	return keys[i], nil
}
