package localkms

import (
	"maps"
	"slices"

	"github.com/blobseal/blobseal/internal/secret"
)

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

// A change adds at most this to the contents, except for a merge: a policy, all tags, a
// grant and more, and for each key a version, as when all keys rotate at once, and what
// version 1 of the format lacks. Encoding then leaves no copies of keys in outgrown buffers.
const (
	draftGrowth = 128 << 10
	keyGrowth   = minVersionSize + 32
)

// encode returns the encoded contents. The draft is not changed any more.
func (d *draft) encode() ([]byte, error) {
	if d.encoded != nil {
		return d.encoded, nil
	}
	var err error
	d.encoded, err = d.contents.marshal(d.size + draftGrowth + len(d.keys)*keyGrowth)
	return d.encoded, err
}

// cloneMaps makes the maps the draft's own before the first change.
func (d *draft) cloneMaps() {
	if d.changed {
		return
	}
	d.changed = true
	d.keys, d.aliases = maps.Clone(d.keys), maps.Clone(d.aliases)
	d.removed, d.deleted = maps.Clone(d.removed), maps.Clone(d.deleted)
}

// put adds or replaces a key.
func (d *draft) put(k *key) {
	d.cloneMaps()
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

// editSettings is edit for description, tags and rotation. If two documents were changed
// independently, the later setting counts.
func (d *draft) editSettings(k *key, change func(*key)) {
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
	d.cloneMaps()
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
