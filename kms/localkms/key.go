package localkms

import (
	"bytes"
	"cmp"
	"math"
	"slices"

	"github.com/blobseal/blobseal/internal/secret"
)

// key is one key. It is immutable: a change makes a copy, see [draft.edit].
type key struct {
	scope
	id          keyID
	description string
	tags        map[string]string
	created     int64      // Unix milliseconds, as all times here
	disabled    []mark     // in ascending order, as all marks
	deletions   []deletion // scheduled
	isDefault   bool       // made by the service, as a default key
	rotation    schedule
	settled     int64       // when description, tags or rotation were last set
	versions    []material  // at least one; version n at index n-1
	rivals      []material  // versions with the number of another, made in another process
	policies    []keyPolicy // several only after a merge
	grants      []*grant    // oldest first

	state    State // follows from the marks
	deadline int64 // when it is deleted; zero unless it is PendingDeletion
	arn      string
	grantsTo map[string][]*grant // by grantee
}

// schedule is a key's rotation by time.
type schedule struct {
	days uint16 // zero means that there is none
	next int64
}

// material is one version of a key's material.
type material struct {
	number  uint32
	created int64
	origin  Origin
	key     secret.Key
}

// compare orders versions by number. Of several with one number, the first is the
// key's own, and the others are rivals.
func (v material) compare(other material) int {
	return cmp.Or(cmp.Compare(v.number, other.number), cmp.Compare(v.created, other.created),
		bytes.Compare(v.key.Bytes(), other.key.Bytes()))
}

// allVersions returns the key's versions and their rivals.
func (k *key) allVersions() []material { return slices.Concat(k.versions, k.rivals) }

// hasVersion reports whether v is one of allVersions.
func (k *key) hasVersion(v material) bool {
	same := func(w material) bool { return w.compare(v) == 0 }
	return slices.ContainsFunc(k.versions, same) || slices.ContainsFunc(k.rivals, same)
}

// current is the version that encrypts.
func (k *key) current() *material { return &k.versions[len(k.versions)-1] }

// isPastDeadline reports whether the key's deadline has passed.
func (k *key) isPastDeadline(now int64) bool { return k.state == PendingDeletion && now >= k.deadline }

// due is when the service deletes or rotates the key.
func (k *key) due() int64 {
	switch {
	case k.state == PendingDeletion:
		return k.deadline
	case k.state == Enabled && k.rotation.days != 0:
		return k.rotation.next
	default:
		return math.MaxInt64
	}
}

// periodBegan is when the period of the key's schedule began, or zero without a schedule.
// Only a wrong clock puts it into the future.
func (k *key) periodBegan() int64 {
	if k.state != Enabled || k.rotation.days == 0 {
		return 0
	}
	return k.rotation.next - int64(k.rotation.days)*day
}

// rotatedLately reports whether the key was rotated by schedule less than half a period
// ago. If its date has come even so, two clocks disagree, and two processes would rotate
// the key in turn without end.
func (k *key) rotatedLately(now int64) bool {
	v, half := k.current(), int64(k.rotation.days)*day/2
	return v.origin == ScheduledRotation && v.created > now-half && v.created < now+half
}

// finish derives the fields that follow from the others.
func (k *key) finish() *key {
	k.state, k.deadline = Enabled, 0
	if len(k.disabled) > 0 {
		k.state = Disabled
	}
	for _, one := range k.deletions {
		k.state, k.deadline = PendingDeletion, max(k.deadline, one.deadline)
	}
	k.arn = k.scope.arn(keyPrefix, k.id.String())
	k.grantsTo = nil
	if len(k.grants) > 0 {
		k.grantsTo = make(map[string][]*grant)
	}
	for _, g := range k.grants {
		k.grantsTo[g.grantee] = append(k.grantsTo[g.grantee], g)
	}
	return k
}
