package keyring

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
)

// merge adds to d everything that other, a document of the same ring, holds. A version that
// was disabled or destroyed in one of them never comes back:
//
//   - A version is destroyed if one document destroyed it. That includes versions that
//     are not listed and have a number up to the watermark.
//   - A version is disabled while a mark of disabling is in force. Enabling removes only
//     the marks that it saw. If two processes disabled a version apart from each other,
//     both have to enable it, or an administrator enables it after the merge.
//   - The last version is the primary. It is enabled in both documents, because no document
//     has a disabled primary.
//   - The period comes from the document whose period changed more often. If both changed
//     equally often, the shorter period counts.
//
// On content, which is everything but the generation, merge is commutative, associative
// and idempotent: a document gives each version a place in an order, from unknown over
// enabled and disabled to destroyed, and merge takes the least upper bound.
func (d *draft) merge(other *draft) error {
	if d.ring != other.ring {
		return fmt.Errorf("%w: %v, not %v", ErrOtherRing, other.ring, d.ring)
	}
	if other.changes > d.changes || other.changes == d.changes && other.period < d.period {
		d.changes, d.period = other.changes, other.period
	}
	var merged []version
	for _, v := range d.versions {
		w := other.lookup(v)
		switch {
		case w != nil:
			if err := d.mergeVersion(&v, w, other); err != nil {
				return fmt.Errorf("merge %s: %w", keyID(d.ring, v.id), err)
			}
		case v.number <= other.watermark: // destroyed in other, and no longer listed
			delete(d.keys, v.id)
			continue
		}
		merged = append(merged, v)
	}
	for _, w := range other.versions {
		if d.lookup(w) != nil || w.number <= d.watermark {
			continue
		}
		if w.state != Destroyed {
			d.keys[w.id] = other.keys[w.id]
		}
		merged = append(merged, w)
	}
	slices.SortFunc(merged, version.compare)
	d.versions = merged
	d.watermark = max(d.watermark, other.watermark)
	d.legacy = false
	return d.validate()
}

// mergeVersion merges w of other into v of d.
func (d *draft) mergeVersion(v, w *version, other *draft) error {
	if v.number != w.number || v.created != w.created {
		return errors.New("two versions have this id")
	}
	switch {
	case v.state == Destroyed && w.state == Destroyed:
		v.changed = max(v.changed, w.changed)
	case v.state == Destroyed:
	case w.state == Destroyed:
		d.destroy(v)
		v.changed = w.changed
	default:
		if !bytes.Equal(d.keys[v.id].KeyData.Value, other.keys[w.id].KeyData.Value) {
			return errors.New("two keys have this id")
		}
		v.enabled = unionMarks(v.enabled, w.enabled)
		v.disabled = slices.DeleteFunc(unionMarks(v.disabled, w.disabled), func(m mark) bool { return hasMark(v.enabled, m) })
		v.changed = max(v.changed, w.changed)
		v.state = Enabled
		if len(v.disabled) > 0 {
			v.state = Disabled
		}
	}
	return nil
}

// includedIn returns nil if next holds everything that m holds, and otherwise an error
// about the first thing that next lacks.
func (m *metadata) includedIn(next *metadata) error {
	if m.legacy && next.legacy {
		return m.includedInV1(next)
	}
	if next.watermark < m.watermark {
		return fmt.Errorf("it lists versions from number %d, not from %d", next.watermark+1, m.watermark+1)
	}
	if next.changes < m.changes || next.changes == m.changes && next.period > m.period {
		return fmt.Errorf("its period is %v, not %v", next.period, m.period)
	}
	for _, v := range m.versions {
		id := keyID(m.ring, v.id)
		w := next.lookup(v)
		switch {
		case w == nil && v.number <= next.watermark, w != nil && w.state == Destroyed:
		case w == nil:
			return fmt.Errorf("it lacks %s", id)
		case v.state == Destroyed:
			return fmt.Errorf("it still holds %s, which was destroyed", id)
		default:
			for _, mark := range v.enabled {
				if !hasMark(w.enabled, mark) {
					return fmt.Errorf("it lacks an enabling of %s", id)
				}
			}
			for _, mark := range v.disabled {
				if !hasMark(w.disabled, mark) && !hasMark(w.enabled, mark) {
					return fmt.Errorf("it lacks a disabling of %s", id)
				}
			}
		}
	}
	return nil
}

// includedInV1 is includedIn for two documents of version 1, which do not record whether
// a version was enabled again.
func (m *metadata) includedInV1(next *metadata) error {
	if m.generation == next.generation {
		return errors.New("two different documents have this generation")
	}
	for i, v := range m.versions {
		id := keyID(m.ring, v.id)
		if i >= len(next.versions) || next.versions[i].id != v.id {
			return fmt.Errorf("it lacks %s", id)
		}
		if v.state == Destroyed && next.versions[i].state != Destroyed {
			return fmt.Errorf("it still holds %s, which was destroyed", id)
		}
	}
	return nil
}

// unionMarks returns the marks of both, in new memory.
func unionMarks(a, b []mark) []mark {
	all := slices.Concat(a, b)
	slices.SortFunc(all, mark.compare)
	return slices.Compact(all)
}

func hasMark(marks []mark, m mark) bool {
	_, found := slices.BinarySearchFunc(marks, m, mark.compare)
	return found
}
