package localkms

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"maps"
	"math"
	"slices"
	"time"

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
	rivals      []material  // versions that were made apart from one of the same number
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

// gone reports whether the key's deadline has passed.
func (k *key) gone(now int64) bool { return k.state == PendingDeletion && now >= k.deadline }

// due is when something happens to the key by itself: it is deleted or rotated.
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

// aliasName is an alias's full name.
type aliasName struct {
	scope
	name string // with its prefix
}

func (a aliasName) arn() string { return a.scope.arn("", a.name) }

func (a aliasName) compare(b aliasName) int {
	return cmp.Or(cmp.Compare(a.account, b.account), cmp.Compare(a.region, b.region), cmp.Compare(a.name, b.name))
}

// alias is what an alias's name stands for. It is immutable.
type alias struct {
	mark             mark
	key              keyID
	created, updated int64
}

// compare orders aliases of one name: the latest first.
func (a alias) compare(b alias) int {
	return cmp.Or(cmp.Compare(b.updated, a.updated), b.mark.compare(a.mark))
}

// contents are what the service keeps. The maps are not changed once a snapshot
// holds them.
type contents struct {
	keys    map[keyID]*key
	aliases map[aliasName][]alias // the latest is in force; others were set apart from it
	history
}

func newContents() contents {
	return contents{
		keys: make(map[keyID]*key), aliases: make(map[aliasName][]alias),
		history: history{removed: make(map[mark]int64), deleted: make(map[keyID]bool)},
	}
}

// sortedKeys returns the keys of a scope in ascending order of their ids, or all
// keys if s is nil.
func (c *contents) sortedKeys(s *scope) []*key {
	keys := make([]*key, 0, len(c.keys))
	for _, k := range c.keys {
		if s == nil || k.scope == *s {
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, func(a, b *key) int { return a.id.Compare(b.id) })
	return keys
}

// newest returns the latest time, up to limit, at which something was made or changed.
func (c *contents) newest(limit int64) (latest int64) {
	note := func(at int64) {
		if at <= limit {
			latest = max(latest, at)
		}
	}
	for _, k := range c.keys {
		note(k.settled)
		note(k.current().created)
		for _, g := range k.grants {
			note(g.created)
		}
	}
	for _, all := range c.aliases {
		note(all[0].updated)
	}
	for _, when := range c.removed {
		note(when)
	}
	return latest
}

// sortedAliases returns the names of all aliases in order.
func (c *contents) sortedAliases() []aliasName {
	return slices.SortedFunc(maps.Keys(c.aliases), aliasName.compare)
}

// state is an opened document.
type state struct {
	header
	contents
	dek  secret.Key // opens the document; sealed by the root in the header
	size int        // of the document, in bytes
}

// snapshot is what a service knows of one document: immutable, replaced as a whole.
type snapshot struct {
	state
	due  int64 // when the first key is due
	last int64 // when the last period of a schedule began
}

// Identity implements [document.State].
func (s *snapshot) Identity() string { return hex.EncodeToString(s.service[:]) }

// Generation implements [document.State].
func (s *snapshot) Generation() uint64 { return s.generation }

// finish derives the fields that follow from the contents.
func (s *snapshot) finish() *snapshot {
	s.due = math.MaxInt64
	for _, k := range s.keys {
		s.due, s.last = min(s.due, k.due()), max(s.last, k.periodBegan())
	}
	return s
}

// draft is the next document in the making. It shares with the snapshot that it
// was made from what it did not change.
type draft struct {
	state // with the size of the one that the draft was made from

	now       int64
	ofStore   bool   // now is by the store's clock
	past      int64  // a time that has passed even if now is by a clock that is ahead
	changed   bool   // so the maps are the draft's own
	touched   *key   // the key that was put last
	takesAway bool   // so it may use the reserve
	encoded   []byte // contents, once encode was called
}

// draftGrowth is how much a change adds to the contents, except for a merge: a policy,
// all tags, a grant and more. Encoding then leaves no copies of keys in outgrown buffers.
const draftGrowth = 128 << 10

// encode returns the encoded contents. The draft is not changed any more.
func (d *draft) encode() ([]byte, error) {
	if d.encoded != nil {
		return d.encoded, nil
	}
	var err error
	d.encoded, err = d.contents.marshal(d.size + draftGrowth)
	return d.encoded, err
}

// own makes the maps the draft's own before the first change.
func (d *draft) own() {
	if d.changed {
		return
	}
	d.changed = true
	d.keys, d.aliases = maps.Clone(d.keys), maps.Clone(d.aliases)
	d.removed, d.deleted = maps.Clone(d.removed), maps.Clone(d.deleted)
}

// put adds or replaces a key.
func (d *draft) put(k *key) {
	d.own()
	d.keys[k.id], d.touched = k.finish(), k
}

// add adds a new key, whose times are the draft's.
func (d *draft) add(k *key) {
	k.created, k.settled, k.versions[0].created = d.now, d.now, d.now
	if k.rotation.days != 0 {
		k.rotation.next = nextRotation(d.now, k.rotation.days)
	}
	d.put(k)
}

// edit replaces a key by a changed copy. The copy shares slices and maps with the
// original, so change replaces them instead of writing into them.
func (d *draft) edit(k *key, change func(*key)) *key {
	c := *k
	change(&c)
	d.put(&c)
	return &c
}

// settle is edit for description, tags and rotation. Of two documents that were
// changed apart from each other, the later setting counts.
func (d *draft) settle(k *key, change func(*key)) {
	d.edit(k, func(k *key) {
		change(k)
		k.settled = max(d.now, k.settled+1)
	})
}

func (d *draft) putAlias(name aliasName, a alias) {
	d.removeAlias(name)
	a.mark = newMark()
	d.aliases[name] = []alias{a}
}

func (d *draft) removeAlias(name aliasName) {
	takeBack(d, d.aliases[name]...)
	delete(d.aliases, name)
}

// remove deletes a key, its versions, grants and aliases.
func (d *draft) remove(k *key) {
	d.own()
	delete(d.keys, k.id)
	d.deleted[k.id] = true
	ofKey := func(a alias) bool { return a.key == k.id }
	for name, all := range d.aliases {
		if !slices.ContainsFunc(all, ofKey) {
			continue
		}
		rest := slices.DeleteFunc(slices.Clone(all), ofKey)
		if d.aliases[name] = rest; len(rest) == 0 {
			delete(d.aliases, name)
		}
	}
}

// rotate adds a version to a key. A rotation by schedule also sets the next date,
// in step with the first one.
func (d *draft) rotate(k *key, origin Origin) *key {
	return d.edit(k, func(c *key) {
		last := k.current()
		c.versions = append(slices.Clip(k.versions), material{
			number:  last.number + 1,
			created: max(d.now, last.created), // even if the clock went back
			origin:  origin,
			key:     secret.Random(),
		})
		if origin == ScheduledRotation {
			period := int64(k.rotation.days) * day
			c.rotation.next = min(c.rotation.next+(1+(d.now-k.rotation.next)/period)*period, maxMillis)
		}
	})
}

const day = int64(24 * time.Hour / time.Millisecond)

// maxMillis is the last that time.Time marshals to JSON, in the year 9999.
const maxMillis int64 = 253_402_300_799_999

// millis returns t for a document, within what that holds.
func millis(t time.Time) int64 { return min(max(t.UnixMilli(), 0), maxMillis) }

// date is the inverse of millis.
func date(ms int64) time.Time { return time.UnixMilli(ms).UTC() }
