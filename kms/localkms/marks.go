package localkms

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"maps"
	"math"
	"slices"
	"time"
)

// A mark names one act of an administrator: disabling a key, scheduling its
// deletion, putting a policy, creating a grant or an alias. Taking the act back
// removes the marks that this process knows, and no others. So when two documents of one
// service are merged, an act that only one of them knows is not lost, and one that either
// of them took back does not return. See [contents.merge].
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

// deletion is a deletion that was scheduled.
type deletion struct {
	mark     mark
	deadline int64
}

// keyPolicy is a policy that was put.
type keyPolicy struct {
	mark   mark
	policy *policy
}

// act is what an administrator did, such as to put a policy.
type act interface {
	// marked returns the mark of the act, and its time, or never if the watermark says
	// nothing of it.
	marked() (m mark, at int64)
}

const never = math.MaxInt64

func (m mark) marked() (mark, int64)      { return m, never }
func (d deletion) marked() (mark, int64)  { return d.mark, never }
func (p keyPolicy) marked() (mark, int64) { return p.mark, never }
func (a alias) marked() (mark, int64)     { return a.mark, a.updated }
func (g *grant) marked() (mark, int64)    { return mark(g.id[:8]), g.created }

func compareMarks[T act](a, b T) int {
	x, _ := a.marked()
	y, _ := b.marked()
	return x.compare(y)
}

// holds reports whether acts has one with the mark of a.
func holds[T act](acts []T, a T) bool {
	return slices.ContainsFunc(acts, func(b T) bool { return compareMarks(a, b) == 0 })
}

// How long a service remembers acts that were taken back, to recognize them in an older
// document, and how many at most.
const (
	removedFor = 90 * 24 * time.Hour
	removedMax = 4096
)

// history is what contents remember of the past.
type history struct {
	removed map[mark]int64 // marks that were removed, and when
	deleted map[keyID]bool // keys that were deleted
	// watermark is the latest time of a removed mark that was forgotten. An older
	// grant or alias that is not here counts as removed.
	watermark int64
}

// tookBack reports whether an act was taken back in a document with this history, which
// holds acts.
func tookBack[T act](h *history, acts []T, a T) bool {
	m, at := a.marked()
	_, removed := h.removed[m]
	return removed || at <= h.watermark && !holds(acts, a)
}

// takeBack remembers that acts were taken back.
func takeBack[T act](d *draft, acts ...T) {
	d.cloneMaps()
	for _, one := range acts {
		m, _ := one.marked()
		d.removed[m] = d.now
	}
}

// prune forgets marks that were removed long ago, and the oldest if there are too many.
// The watermark then counts grants and aliases that a failover lost as removed, too, so a
// clock that is ahead must not raise it.
func (d *draft) prune() {
	oldest := d.past - removedFor.Milliseconds()
	if len(d.removed) > removedMax {
		times := slices.Sorted(maps.Values(d.removed))
		oldest = max(oldest, times[len(times)-removedMax-1]+1)
	}
	for m, when := range d.removed {
		if when < oldest {
			d.cloneMaps()
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

// setPolicy replaces the policies that the draft's key has by p, or by none if p is nil.
func (d *draft) setPolicy(k *key, p *policy) *key {
	takeBack(d, k.policies...)
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
			b.WriteString("\n// Also in force, since two processes changed the policy independently:\n")
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
