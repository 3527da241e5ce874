package localkms

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"maps"
	"slices"
	"time"
)

// A mark names one act of an administrator: disabling a key, scheduling its
// deletion, putting a policy, creating a grant or an alias. Taking the act back
// removes its mark, and those alone that were there to see. So when two documents
// of one service are merged, an act that only one of them knows is not lost, and
// one that either of them took back does not return. See [contents.merge].
type mark [8]byte

func newMark() (m mark) {
	rand.Read(m[:]) // never fails: it ends the program instead
	return m
}

// derivedMark returns the mark of an act in a document of version 1, which has
// none: every process derives the same.
func derivedMark(parts ...[]byte) (m mark) {
	h := sha256.New()
	for _, part := range parts {
		h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(part))))
		h.Write(part)
	}
	copy(m[:], h.Sum(nil))
	return m
}

func (m mark) compare(other mark) int { return bytes.Compare(m[:], other[:]) }

// mark returns the grant's mark, which is the beginning of its id.
func (g *grant) mark() mark { return mark(g.id[:8]) }

// deletion is a deletion that was scheduled.
type deletion struct {
	mark     mark
	deadline int64
}

func (d deletion) compare(other deletion) int { return d.mark.compare(other.mark) }

// keyPolicy is a policy that was put.
type keyPolicy struct {
	mark   mark
	policy *policy
}

func (p keyPolicy) compare(other keyPolicy) int { return p.mark.compare(other.mark) }

// What a service remembers of acts that were taken back, to recognise them in an
// older document: for this long, and so many.
const (
	removedFor = 90 * 24 * time.Hour
	removedMax = 4096
)

// history is what contents remember of the past.
type history struct {
	removed map[mark]int64 // marks that were removed, and when
	deleted map[keyID]bool // keys that were deleted
	// watermark is the latest time of a removed mark that was forgotten. A grant or
	// an alias of before that is not here was removed, for all that is known.
	watermark int64
}

// took reports whether the act of a mark was taken back.
func (h *history) took(m mark) bool {
	_, removed := h.removed[m]
	return removed
}

// forget remembers that marks were removed.
func (d *draft) forget(marks ...mark) {
	d.own()
	for _, m := range marks {
		d.removed[m] = d.now
	}
}

// prune lets go of marks that were removed long ago, and of the oldest if there are
// too many. The watermark then says of grants and aliases that a failover lost that they
// were removed, too, so a clock that is ahead must not raise it.
func (d *draft) prune() {
	oldest := d.past - removedFor.Milliseconds()
	if len(d.removed) > removedMax {
		times := slices.Sorted(maps.Values(d.removed))
		oldest = max(oldest, times[len(times)-removedMax-1]+1)
	}
	for m, when := range d.removed {
		if when < oldest {
			d.own()
			delete(d.removed, m)
			d.watermark = max(d.watermark, when)
		}
	}
}

// maxDisabled is how many marks of disabling a key has at most.
const maxDisabled = 1000

// disable adds a mark of disabling.
func (k *key) disable() {
	k.disabled = append(slices.Clip(k.disabled), newMark())
	slices.SortFunc(k.disabled, mark.compare)
}

// marksOf returns the marks of deletions.
func marksOf(deletions []deletion) (marks []mark) {
	for _, one := range deletions {
		marks = append(marks, one.mark)
	}
	return marks
}

// setPolicy replaces the policies that the draft's key has by p, or by none if p is nil.
func (d *draft) setPolicy(k *key, p *policy) *key {
	for _, old := range k.policies {
		d.forget(old.mark)
	}
	return d.edit(k, func(k *key) {
		k.policies = nil
		if p != nil {
			k.policies = []keyPolicy{{newMark(), p}}
		}
	})
}

// policyText returns the key's policies, one after the other, or "".
func (k *key) policyText() string {
	var b bytes.Buffer
	for i, one := range k.policies {
		if i > 0 {
			b.WriteString("\n// Also in force, since two processes changed the policy apart from each other:\n")
		}
		b.WriteString(one.policy.text)
	}
	return b.String()
}

// decide asks the key's policies. If there are several, all have to permit.
func (k *key) decide(r *request) verdict {
	result := silent
	for i, one := range k.policies {
		switch v := one.policy.decide(r); {
		case v == forbidden:
			return forbidden
		case i == 0:
			result = v
		case v == silent:
			result = silent
		}
	}
	return result
}
