package jobs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/blob/stored"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/sse"
)

var (
	// ErrInUse is what an [*InUseError] is, for errors.Is.
	ErrInUse = errors.New("blob: key is in use")

	// ErrQuarantine: the version has not been disabled for long enough to be
	// destroyed.
	ErrQuarantine = errors.New("blob: key version is in quarantine")
)

// ObjectName names an object.
type ObjectName struct {
	Bucket string `json:"bucket"`
	Key    string `json:"key"`
}

// String returns "bucket/key".
func (n ObjectName) String() string { return n.Bucket + "/" + n.Key }

// InUseError says what stands against retiring a key.
type InUseError struct {
	Seal KeyRef

	// Objects is how many objects are under the key; Names are the first of them,
	// at most 20.
	Objects int64
	Names   []ObjectName

	// Unclear is how many objects do not tell what key they are under: their
	// envelopes are damaged, of a later version, or could not be read.
	// UnclearNames are the first of them, at most 20.
	Unclear      int64
	UnclearNames []ObjectName
}

const maxNames = 20

// Error implements error.
func (e *InUseError) Error() string {
	var s strings.Builder
	fmt.Fprintf(&s, "blob: key %v is in use by %d objects", e.Seal, e.Objects)
	list := func(names []ObjectName, all int64) {
		for i, name := range names {
			s.WriteString([]string{" (", ", "}[min(i, 1)])
			fmt.Fprintf(&s, "%q", name)
		}
		if all > int64(len(names)) {
			s.WriteString(", …")
		}
		if len(names) > 0 {
			s.WriteString(")")
		}
	}
	list(e.Names, e.Objects)
	if e.Unclear > 0 {
		fmt.Fprintf(&s, ", and %d objects do not tell their key", e.Unclear)
		list(e.UnclearNames, e.Unclear)
	}
	return s.String()
}

// Is makes the error [ErrInUse].
func (e *InUseError) Is(target error) bool { return target == ErrInUse }

// add takes note of an object that stands against retiring the key.
func (e *InUseError) add(bucket string, entry Entry) {
	name := ObjectName{bucket, entry.Key}
	switch {
	case entry.Seal == e.Seal:
		e.Objects++
		if len(e.Names) < maxNames {
			e.Names = append(e.Names, name)
		}
	case entry.Seal == KeyRef{} && entry.Kind != stored.KindPlain:
		e.Unclear++
		if len(e.UnclearNames) < maxNames {
			e.UnclearNames = append(e.UnclearNames, name)
		}
	}
}

// Unused returns nil if no object in the buckets is under the key, and an
// [*InUseError] if one is or may be. It reads the head of every object. What is
// written meanwhile it sees or not: the key must not seal any more. opts' Filter
// is not used.
func Unused(ctx context.Context, key KeyRef, opts *InventoryOptions, buckets ...*blob.Bucket) error {
	if len(buckets) == 0 {
		return fmt.Errorf("%w: no bucket to look into", sse.ErrInvalid)
	}
	o := valueOr(opts)
	o.Filter = Filter{}
	found := &InUseError{Seal: key}
	for _, b := range buckets {
		for entry, err := range Inventory(ctx, b, &o) {
			if err != nil {
				return err
			}
			found.add(b.Name(), entry)
		}
	}
	if found.Objects+found.Unclear > 0 {
		return found
	}
	return nil
}

// How long a version is disabled before it is destroyed.
const (
	DefaultQuarantine = 7 * 24 * time.Hour
	NoQuarantine      = time.Duration(-1)
)

// RetireOptions are for [Retire]. The zero value disables.
type RetireOptions struct {
	// Destroy destroys the version, once it has been disabled for Quarantine.
	Destroy bool

	// Quarantine is how long that is; 0 means DefaultQuarantine. It has to be
	// longer than the longest upload, and than any process that writes to the
	// buckets goes on without refreshing its ring. [NoQuarantine] is for where
	// nobody else writes.
	Quarantine time.Duration

	// Workers is how many objects are looked at at once; 0 means 8.
	Workers int

	// Limit, if set, sets the pace of the inventories, in objects.
	Limit Limiter
}

// Retire disables or destroys a version of a ring's master key if no object needs
// it. buckets are all that the ring seals for: what is not in them, such as older
// versions in the store, backups, what a store does not list (see
// [Inventory]), and envelopes that are kept elsewhere, Retire does not see,
// and it is unreadable afterwards.
//
// It refuses the primary ([keyring.ErrPrimary]): rotate, and rewrap, first. Then
// it takes an inventory of every bucket, and fails with an [*InUseError] that names
// what is still under the version, or does not tell. If nothing is, the version is
// disabled, and a second inventory taken: an object that was published between, by
// a process that had begun it while the version was the primary, is found, and
// the version enabled again. So after a success every object that was there when
// the version was disabled opens without it.
//
// What no inventory can see is an upload that is still under way, or a process
// that does not know of the rotation yet. Its object cannot be read while the
// version is disabled, and can when it is enabled again: nothing is lost. That is
// why Destroy waits. Retire with Destroy disables, returns [ErrQuarantine], and
// destroys when it is called again after the quarantine, if one more inventory still
// finds nothing and nobody has enabled the version meanwhile.
//
// The version as it is afterwards is returned, also with an error if it is known.
func Retire(ctx context.Context, ring *keyring.Ring, id string, opts *RetireOptions, buckets ...*blob.Bucket) (keyring.Info, error) {
	o := valueOr(opts)
	if o.Quarantine == 0 {
		o.Quarantine = DefaultQuarantine
	}
	if err := ring.Refresh(ctx); err != nil {
		return keyring.Info{}, fmt.Errorf("blob: retiring %s: %w", id, err)
	}
	info, err := versionOf(ring, id)
	if err != nil {
		return info, fmt.Errorf("blob: retiring %s: %w", id, err)
	}
	var looked time.Time // when the last inventory began
	unused := func() error {
		looked = time.Now()
		return Unused(ctx, KeyRef{sse.ModeManaged, id}, &InventoryOptions{Workers: o.Workers, Limit: o.Limit}, buckets...)
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
	// An inventory takes its time, in which somebody may have enabled the version.
	if err := ring.Refresh(ctx); err != nil {
		return info, fmt.Errorf("blob: retiring %s: %w", id, err)
	}
	now, err := versionOf(ring, id)
	if err != nil {
		return now, fmt.Errorf("blob: retiring %s: %w", id, err)
	}
	if now.State != info.State || !now.Changed.Equal(info.Changed) {
		return now, fmt.Errorf("%w: %s was enabled meanwhile", ErrQuarantine, id)
	}
	destroyed, err := ring.SetState(ctx, id, keyring.Destroyed)
	if err != nil {
		return info, fmt.Errorf("blob: retiring %s: %w", id, err)
	}
	return destroyed, nil
}

// versionOf returns a version that may be retired.
func versionOf(ring *keyring.Ring, id string) (keyring.Info, error) {
	keys := ring.Keys()
	i := slices.IndexFunc(keys, func(k keyring.Info) bool { return k.ID == id })
	switch {
	case i < 0:
		return keyring.Info{}, keyring.ErrUnknownKey
	case keys[i].Primary:
		return keys[i], keyring.ErrPrimary
	case keys[i].State == keyring.Destroyed:
		return keys[i], keyring.ErrDestroyed
	}
	return keys[i], nil
}
