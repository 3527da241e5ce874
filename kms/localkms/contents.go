package localkms

import (
	"encoding/binary"
	"errors"
	"maps"
	"slices"
)

// The contents of a document, in one encoding: what parses marshals back to the
// same bytes. Times are Unix milliseconds as uint64; text has its length before
// it, as uint8 (text8) or uint16 (text16).
//
//	policies  uint32 count, then each once, in the order in which keys first name them:
//	  text        text16
//	keys      uint32 count, then each, in ascending order of ids:
//	  id          [16]byte
//	  account     text8
//	  region      text8
//	  description text16
//	  created     uint64
//	  state       uint8     1 enabled, 2 disabled, 3 pending deletion
//	  default     uint8     1 if the service made it as a default key, else 0
//	  deadline    uint64    of its deletion; 0 unless it is pending
//	  policy      uint32    0 none, or the number of its first policy from 1
//	  days        uint16    rotation period; 0 none
//	  next        uint64    next rotation; 0 if there is none
//	  tags        uint8 count, then each, in ascending order: name text8, value text16
//	  versions    uint16 count, at least 1, then each, the first being number 1:
//	    created     uint64
//	    origin      uint8   1 created with the key, 2 rotated by schedule, 3 on demand
//	    material    [32]byte
//	  grants      uint16 count, then each, oldest first:
//	    id          [16]byte
//	    created     uint64
//	    name        text8
//	    grantee     text16
//	    retiring    text16
//	    operations  uint16  bit n is grantable[n]
//	    constraint  uint8   0 none, 1 context equals, 2 context subset
//	    context     uint16 count, then each, in ascending order: name text16, value text16
//	aliases   uint32 count, then each, in ascending order of account, region, name:
//	  account     text8
//	  region      text8
//	  name        text16    with its prefix
//	  key         [16]byte
//	  created     uint64
//	  updated     uint64
//
// Documents of version 2 go on, so that two of them can be merged; see [mark]. A
// mark is 8 bytes, and lists of marks are in ascending order:
//
//	watermark uint64      latest time of a removed mark that was forgotten, or 0
//	removed   uint32 count, then each: mark, uint64 time of its removal
//	deleted   uint32 count, then the id of each key that was deleted, in ascending order
//	keys      for each key, as above:
//	  settled     uint64    when description, tags or rotation were last set
//	  disabled    uint16 count, then the mark of each act of disabling
//	  deletions   uint16 count, then each: mark, deadline uint64
//	  policies    uint16 count, then each: mark, number of the policy uint32
//	  rivals      uint16 count, then each, in ascending order of number, created, material:
//	    number      uint32
//	    created     uint64
//	    origin      uint8
//	    material    [32]byte
//	aliases   for each alias, as above:
//	  mark
//	  rivals      uint16 count, then each, the latest first: mark, key [16]byte,
//	              created uint64, updated uint64
//
// The state of a key follows from its marks: with a deletion it is pending, until
// the latest deadline, and else disabled if there is a mark of disabling. Policies
// are numbered first by the first policy of each key, then by the others.
//
// Key ids, alias names, and grant ids within a key, are there once.

// marshal returns the encoding of c.
func (c *contents) marshal() ([]byte, error) {
	keys := c.sortedKeys(nil)
	numbers, texts := numberPolicies(keys)
	size := 64 + len(c.removed)*16 + len(c.deleted)*16
	for _, text := range texts {
		size += 2 + len(text)
	}
	for _, k := range keys {
		size += 256 + len(k.description) + len(k.versions)*41 + len(k.grants)*256
	}
	w := &writer{b: make([]byte, 0, size+len(c.aliases)*128)}
	w.uint32(len(texts))
	for _, text := range texts {
		w.text16(text)
	}
	w.uint32(len(keys))
	for _, k := range keys {
		number := uint32(0)
		if len(k.policies) > 0 {
			number = numbers[k.policies[0].policy.text]
		}
		w.key(k, number)
	}
	w.uint32(len(c.aliases))
	names := c.sortedAliases()
	for _, name := range names {
		w.text8(name.account)
		w.text8(name.region)
		w.text16(name.name)
		w.alias(c.aliases[name][0])
	}
	w.history(&c.history)
	for _, k := range keys {
		w.marks(k, numbers)
	}
	for _, name := range names {
		first, rivals := c.aliases[name][0], c.aliases[name][1:]
		w.bytes(first.mark[:])
		w.uint16(len(rivals))
		for _, one := range rivals {
			w.bytes(one.mark[:])
			w.alias(one)
		}
	}
	if w.tooLong {
		return nil, errors.New("localkms: text too long for the document") // the door checks every length
	}
	return w.b, nil
}

// numberPolicies numbers the policies of keys, each text once.
func numberPolicies(keys []*key) (numbers map[string]uint32, texts []string) {
	numbers = make(map[string]uint32)
	add := func(one keyPolicy) {
		if numbers[one.policy.text] == 0 {
			texts = append(texts, one.policy.text)
			numbers[one.policy.text] = uint32(len(texts))
		}
	}
	for _, k := range keys {
		if len(k.policies) > 0 {
			add(k.policies[0])
		}
	}
	for _, k := range keys {
		for _, one := range k.policies {
			add(one)
		}
	}
	return numbers, texts
}

func (w *writer) history(h *history) {
	w.time(h.watermark)
	w.uint32(len(h.removed))
	for _, m := range slices.SortedFunc(maps.Keys(h.removed), mark.compare) {
		w.bytes(m[:])
		w.time(h.removed[m])
	}
	w.uint32(len(h.deleted))
	for _, id := range slices.SortedFunc(maps.Keys(h.deleted), keyID.compare) {
		w.bytes(id[:])
	}
}

func (w *writer) marks(k *key, numbers map[string]uint32) {
	w.time(k.settled)
	w.uint16(len(k.disabled))
	for _, m := range k.disabled {
		w.bytes(m[:])
	}
	w.uint16(len(k.deletions))
	for _, one := range k.deletions {
		w.bytes(one.mark[:])
		w.time(one.deadline)
	}
	w.uint16(len(k.policies))
	for _, one := range k.policies {
		w.bytes(one.mark[:])
		w.uint32(int(numbers[one.policy.text]))
	}
	w.uint16(len(k.rivals))
	for i := range k.rivals {
		w.uint32(int(k.rivals[i].number))
		w.material(&k.rivals[i])
	}
}

func (w *writer) material(v *material) {
	w.time(v.created)
	w.uint8(slices.Index(originCodes, v.origin))
	w.bytes(v.key.Bytes())
}

func (w *writer) alias(a alias) {
	w.bytes(a.key[:])
	w.time(a.created)
	w.time(a.updated)
}

func (w *writer) key(k *key, policy uint32) {
	w.bytes(k.id[:])
	w.text8(k.account)
	w.text8(k.region)
	w.text16(k.description)
	w.time(k.created)
	w.uint8(slices.Index(stateCodes, k.state))
	w.bool(k.isDefault)
	w.time(k.deadline)
	w.uint32(int(policy))
	w.uint16(int(k.rotation.days))
	w.time(k.rotation.next)
	w.uint8(len(k.tags))
	w.pairs(k.tags, w.text8)
	w.uint16(len(k.versions))
	for i := range k.versions {
		w.material(&k.versions[i])
	}
	w.uint16(len(k.grants))
	for _, g := range k.grants {
		w.bytes(g.id[:])
		w.time(g.created)
		w.text8(g.name)
		w.text16(g.grantee)
		w.text16(g.retiring)
		w.uint16(int(g.operations))
		w.uint8(int(g.constraint))
		w.uint16(len(g.context))
		w.pairs(g.context, w.text16)
	}
}

// pairs writes names and values in order of the names.
func (w *writer) pairs(pairs map[string]string, name func(string)) {
	for _, one := range slices.Sorted(maps.Keys(pairs)) {
		name(one)
		w.text16(pairs[one])
	}
}

// writer appends values to b.
type writer struct {
	b       []byte
	tooLong bool
}

func (w *writer) bytes(b []byte) { w.b = append(w.b, b...) }
func (w *writer) uint8(n int)    { w.tooLong = w.tooLong || n > 1<<8-1; w.b = append(w.b, uint8(n)) }
func (w *writer) uint16(n int) {
	w.tooLong = w.tooLong || n > 1<<16-1
	w.b = binary.BigEndian.AppendUint16(w.b, uint16(n))
}
func (w *writer) uint32(n int)   { w.b = binary.BigEndian.AppendUint32(w.b, uint32(n)) }
func (w *writer) time(ms int64)  { w.b = binary.BigEndian.AppendUint64(w.b, uint64(ms)) }
func (w *writer) text8(s string) { w.uint8(len(s)); w.b = append(w.b, s...) }
func (w *writer) text16(s string) {
	w.uint16(len(s))
	w.b = append(w.b, s...)
}
func (w *writer) bool(v bool) {
	n := 0
	if v {
		n = 1
	}
	w.uint8(n)
}
