package keyring

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/prf"
	tinkpb "github.com/tink-crypto/tink-go/v2/proto/tink_go_proto"

	"github.com/blobseal/blobseal/internal/document"
)

// masterKey is a version's key in Tink's keyset.
type masterKey = tinkpb.Keyset_Key

// draft is a document open for an edit, with its master keys.
type draft struct {
	metadata
	keys  map[uint32]*masterKey // of all versions that are not destroyed; status and order come from metadata
	added bool                  // this edit added a version
}

const (
	// tombstoneAge is how long a destroyed version stays listed. After that, a merge
	// knows by the watermark that it was destroyed.
	tombstoneAge = 365 * 24 * time.Hour

	// maxMarks is how many marks a version may have, in force or removed.
	maxMarks = 1000
)

// newDraft returns a new ring with one version.
func newDraft(period time.Duration, now time.Time) (*draft, error) {
	d := &draft{keys: make(map[uint32]*masterKey)}
	rand.Read(d.ring[:]) // never fails: it ends the program instead
	d.generation, d.period = 1, period
	if err := d.rotate(now); err != nil {
		return nil, err
	}
	return d, nil
}

// handle returns the keyset that the metadata describes.
func (d *draft) handle() (*keyset.Handle, error) {
	ks := &tinkpb.Keyset{PrimaryKeyId: d.primary().id}
	for _, v := range d.versions {
		if v.state == Destroyed {
			continue
		}
		key := d.keys[v.id]
		if key == nil {
			return nil, fmt.Errorf("version %08x has no key", v.id)
		}
		status := tinkpb.KeyStatusType_ENABLED
		if v.state == Disabled {
			status = tinkpb.KeyStatusType_DISABLED
		}
		ks.Key = append(ks.Key, &masterKey{KeyData: key.KeyData, Status: status, KeyId: v.id, OutputPrefixType: key.OutputPrefixType})
	}
	return handleOf(ks)
}

// handleOf returns the handle of a keyset.
func handleOf(ks *tinkpb.Keyset) (*keyset.Handle, error) {
	var buf bytes.Buffer
	if err := keyset.NewBinaryWriter(&buf).Write(ks); err != nil {
		return nil, err
	}
	defer clear(buf.Bytes())
	return insecurecleartextkeyset.Read(keyset.NewBinaryReader(&buf))
}

// rotate adds a version and makes it the primary. It drops old tombstones first.
func (d *draft) rotate(now time.Time) error {
	d.prune(now)
	if len(d.versions) >= maxVersions {
		return fmt.Errorf("%w: %d versions, none of them destroyed (destroy those that no object needs)", ErrFull, len(d.versions))
	}
	handle, err := keyset.NewHandle(prf.HKDFSHA256PRFKeyTemplate())
	if err != nil {
		return fmt.Errorf("keyring: new version: %w", err)
	}
	key := insecurecleartextkeyset.KeysetMaterial(handle).Key[0]
	for key.KeyId = randomID(); d.find(key.KeyId) != nil; { // a destroyed version keeps its id
		key.KeyId = randomID()
	}
	number := d.watermark + 1
	if len(d.versions) > 0 {
		number = max(number, d.primary().number+1)
	}
	t := millis(now)
	d.keys[key.KeyId] = key
	d.versions = append(d.versions, version{number: number, id: key.KeyId, state: Enabled, created: t, changed: t})
	d.added = true
	return nil
}

func randomID() uint32 {
	var b [4]byte
	rand.Read(b[:]) // never fails: it ends the program instead
	return binary.BigEndian.Uint32(b[:])
}

// prune removes versions that were destroyed longer than tombstoneAge ago. If the ring is
// still full, it removes the version that was destroyed first. The watermark then says that
// they were destroyed. It says the same of any lost version with a lower number, so a clock
// that is ahead must not raise it: ages count up to now or to the creation of the primary,
// whichever is earlier.
func (d *draft) prune(now time.Time) {
	if len(d.versions) == 0 {
		return
	}
	if created := time.UnixMilli(int64(d.primary().created)); created.Before(now) {
		now = created
	}
	cutoff := millis(now.Add(-tombstoneAge))
	oldest := uint64(maxMillis + 1)
	for _, v := range d.versions {
		if v.state == Destroyed {
			oldest = min(oldest, v.changed)
		}
	}
	if len(d.versions) >= maxVersions {
		cutoff = max(cutoff, oldest)
	}
	d.versions = slices.DeleteFunc(slices.Clone(d.versions), func(v version) bool {
		if v.state != Destroyed || v.changed > cutoff {
			return false
		}
		d.watermark = max(d.watermark, v.number)
		return true
	})
}

// dateOfChange returns the date of a change made now, which is never before another
// version was created or changed: a quarantine that counts from a date by a slow clock would
// end too early for every other process. If the time is the store's, times far ahead of it
// are wrong and do not count.
func (d *draft) dateOfChange(now time.Time, ofStore bool) uint64 {
	date, limit := millis(now), uint64(maxMillis)
	if ofStore {
		limit = millis(now.Add(document.ClockTolerance))
	}
	for _, v := range d.versions {
		for _, t := range []uint64{v.created, v.changed} {
			if t <= limit {
				date = max(date, t)
			}
		}
	}
	return date
}

// setState changes the state of a version at date, and reports whether the document changed.
// Disabling a disabled version adds a mark. If another process enabled the version in a
// document that the store lost, it did not know of this call, and must not undo it.
func (d *draft) setState(id uint32, state State, date uint64) (bool, error) {
	v := d.find(id)
	if v == nil {
		return false, &VersionError{keyID(d.ring, id), ErrUnknownKey}
	}
	switch {
	case v.state == Disabled && state == Disabled && len(v.enabled)+len(v.disabled) < maxMarks:
		v.disabled = unionMarks(v.disabled, []mark{newMark()})
		return true, nil
	case v.state == state:
		return false, nil
	case v.state == Destroyed:
		return false, &VersionError{keyID(d.ring, id), ErrDestroyed}
	case v == d.primary():
		return false, &VersionError{keyID(d.ring, id), ErrPrimary}
	}
	switch state {
	case Enabled:
		if len(v.enabled)+len(v.disabled) > maxMarks {
			return false, &VersionError{keyID(d.ring, id), fmt.Errorf("%w: enabled %d times", ErrFull, len(v.enabled))}
		}
		v.enabled, v.disabled = unionMarks(v.enabled, v.disabled), nil
	case Disabled:
		v.disabled = []mark{newMark()}
	case Destroyed:
		d.destroy(v)
	}
	v.state, v.changed = state, date
	return true, nil
}

func newMark() (m mark) {
	rand.Read(m[:]) // never fails: it ends the program instead
	return m
}

// destroy removes a version's key and marks.
func (d *draft) destroy(v *version) {
	delete(d.keys, v.id)
	v.state, v.disabled, v.enabled = Destroyed, nil, nil
}
