package localkms

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/crypto/cryptobyte"

	"github.com/blobseal/blobseal/internal/secret"
	"github.com/blobseal/blobseal/kms"
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
//	  policy      uint32    0 none, or the number of its policy from 1
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
// Key ids, alias names, and grant ids and names within a key, are there once.

// marshal returns the encoding of c.
func (c *contents) marshal() ([]byte, error) {
	keys := c.sortedKeys(nil)
	numbers := make(map[string]uint32) // of policies
	var texts []string
	size := 64
	for _, k := range keys {
		size += 256 + len(k.description) + len(k.versions)*41 + len(k.grants)*256
		if k.policy != nil && numbers[k.policy.text] == 0 {
			texts = append(texts, k.policy.text)
			numbers[k.policy.text] = uint32(len(texts))
			size += 2 + len(k.policy.text)
		}
	}
	w := &writer{b: make([]byte, 0, size+len(c.aliases)*128)}
	w.uint32(len(texts))
	for _, text := range texts {
		w.text16(text)
	}
	w.uint32(len(keys))
	for _, k := range keys {
		number := uint32(0)
		if k.policy != nil {
			number = numbers[k.policy.text]
		}
		w.key(k, number)
	}
	w.uint32(len(c.aliases))
	for _, name := range c.sortedAliases() {
		a := c.aliases[name]
		w.text8(name.account)
		w.text8(name.region)
		w.text16(name.name)
		w.bytes(a.key[:])
		w.time(a.created)
		w.time(a.updated)
	}
	if w.tooLong {
		return nil, errors.New("localkms: text too long for the document") // the door checks every length
	}
	return w.b, nil
}

func (w *writer) key(k *key, policy uint32) {
	w.bytes(k.id[:])
	w.text8(k.account)
	w.text8(k.region)
	w.text16(k.description)
	w.time(k.created)
	w.uint8(int(k.state))
	w.bool(k.isDefault)
	w.time(k.deadline)
	w.uint32(int(policy))
	w.uint16(int(k.rotation.days))
	w.time(k.rotation.next)
	w.uint8(len(k.tags))
	for _, name := range slices.Sorted(maps.Keys(k.tags)) {
		w.text8(name)
		w.text16(k.tags[name])
	}
	w.uint16(len(k.versions))
	for i := range k.versions {
		v := &k.versions[i]
		w.time(v.created)
		w.uint8(int(v.origin))
		w.bytes(v.key.Bytes())
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
		for _, name := range g.context.Keys() {
			w.text16(name)
			w.text16(g.context[name])
		}
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

// parse is the inverse of marshal. Nothing in c is data's memory. Policies are
// those of known, a snapshot or nil, where it has them.
func (c *contents) parse(data []byte, known *snapshot) error {
	r := &reader{s: data}
	policies := r.policies(known)
	count := r.count(minKeySize)
	c.keys = make(map[keyID]*key, count)
	var last *key
	next := uint32(1) // the policy that a key may name first
	for range count {
		k := r.key(policies, &next)
		if r.err != nil {
			return r.err
		}
		if last != nil && bytes.Compare(last.id[:], k.id[:]) >= 0 {
			return errors.New("keys are not in order")
		}
		last = k
		c.keys[k.id] = k
	}
	if int(next) != len(policies)+1 {
		r.fail("a policy without a key")
	}
	count = r.count(minAliasSize)
	c.aliases = make(map[aliasName]alias, count)
	var before aliasName
	for i := range count {
		name := aliasName{scope: scope{account: r.text8(), region: r.text8()}, name: r.text16()}
		var a alias
		r.bytes(a.key[:])
		a.created, a.updated = r.time(), r.time()
		if r.err != nil {
			return r.err
		}
		k := c.keys[a.key]
		switch {
		case name.check() != nil || checkAlias(name.name) != nil:
			return errors.New("an alias has no name")
		case i > 0 && before.compare(name) >= 0:
			return errors.New("aliases are not in order")
		case k == nil || k.scope != name.scope:
			return errors.New("an alias without a key of its account and region")
		}
		before = name
		c.aliases[name] = a
	}
	if r.err == nil && len(r.s) != 0 {
		r.fail("bytes behind the contents")
	}
	return r.err
}

// The least that a key, an alias and so on take: so that a count is checked
// before anything is allocated for it.
const (
	minKeySize     = 16 + 2 + 2 + 2 + 2 + 8 + 1 + 1 + 8 + 4 + 2 + 8 + 1 + 2 + 41 + 2
	minAliasSize   = 2 + 2 + 2 + 7 + 16 + 8 + 8
	minPolicySize  = 2
	minVersionSize = 41
	minGrantSize   = 16 + 8 + 1 + 2 + 2 + 2 + 1 + 2
	minPairSize    = 4
	minTagSize     = 3
)

// policies reads the table of policies, which are parsed when first used.
func (r *reader) policies(known *snapshot) []*policy {
	shared := make(map[string]*policy)
	if known != nil {
		for _, k := range known.keys {
			if k.policy != nil {
				shared[k.policy.text] = k.policy
			}
		}
	}
	policies := make([]*policy, r.count(minPolicySize))
	seen := make(map[string]bool, len(policies))
	for i := range policies {
		text := r.text16()
		if seen[text] {
			r.fail("a policy is there twice")
		}
		seen[text] = true
		if policies[i] = shared[text]; policies[i] == nil {
			policies[i] = &policy{text: text}
		}
	}
	return policies
}

func (r *reader) key(policies []*policy, next *uint32) *key {
	k := new(key)
	r.bytes(k.id[:])
	k.account, k.region = r.text8(), r.text8()
	k.description = r.text16()
	k.created = r.time()
	k.state = State(r.uint8())
	isDefault := r.uint8()
	k.isDefault = isDefault == 1
	k.deadline = r.time()
	number := r.uint32()
	k.rotation.days = r.uint16()
	k.rotation.next = r.time()
	if r.err != nil {
		return nil
	}
	switch {
	case k.scope.check() != nil:
		r.fail("a key of no account or region")
	case !k.state.valid() || isDefault > 1:
		r.fail("a key in no state")
	case (k.state == PendingDeletion) != (k.deadline != 0):
		r.fail("a deadline without a deletion, or the other way about")
	case k.rotation.days != 0 && checkRotation(int(k.rotation.days)) != nil || (k.rotation.days == 0) != (k.rotation.next == 0):
		r.fail("a rotation of no period")
	case number > uint32(len(policies)) || number > *next:
		r.fail("a policy out of order")
	case number != 0:
		k.policy = policies[number-1]
		if number == *next {
			*next++
		}
	}
	r.tags(k)
	r.versions(k)
	r.grants(k)
	if r.err != nil {
		return nil
	}
	return k.finish()
}

func (r *reader) tags(k *key) {
	count := int(r.uint8())
	if count == 0 || !r.fits(count, minTagSize) {
		return
	}
	k.tags = make(map[string]string, count)
	before := ""
	for i := range count {
		name, value := r.text8(), r.text16()
		if i > 0 && name <= before {
			r.fail("tags are not in order")
			return
		}
		k.tags[name], before = value, name
	}
}

func (r *reader) versions(k *key) {
	count := int(r.uint16())
	if count == 0 || count > MaxVersions {
		r.fail("a key without material")
	}
	if !r.fits(count, minVersionSize) {
		return
	}
	k.versions = make([]material, count)
	var raw [secret.KeySize]byte
	defer clear(raw[:])
	for i := range k.versions {
		v := &k.versions[i]
		v.number = uint32(i + 1)
		v.created = r.time()
		v.origin = Origin(r.uint8())
		r.bytes(raw[:])
		if !v.origin.valid() || (v.origin == Created) != (i == 0) {
			r.fail("a version of no origin")
		}
		if r.err != nil {
			return
		}
		v.key, _ = secret.New(raw[:]) // the length is right
	}
}

func (r *reader) grants(k *key) {
	count := int(r.uint16())
	if count > MaxGrants {
		r.fail("too many grants")
	}
	if count == 0 || !r.fits(count, minGrantSize) {
		return
	}
	k.grants = make([]*grant, count)
	ids, names := make(map[[16]byte]bool), make(map[string]bool)
	for i := range k.grants {
		g := new(grant)
		r.bytes(g.id[:])
		g.created = r.time()
		g.name, g.grantee, g.retiring = r.text8(), r.text16(), r.text16()
		g.operations = operationSet(r.uint16())
		g.constraint = constraint(r.uint8())
		r.pairs(g)
		if r.err != nil {
			return
		}
		if err := g.prepare(); err != nil || ids[g.id] || g.name != "" && names[g.name] {
			r.fail("a grant that cannot be")
			return
		}
		ids[g.id], names[g.name] = true, true
		k.grants[i] = g
	}
}

func (r *reader) pairs(g *grant) {
	count := int(r.uint16())
	if count == 0 || !r.fits(count, minPairSize) {
		return
	}
	g.context = make(kms.Context, count)
	before := ""
	for i := range count {
		name, value := r.text16(), r.text16()
		if i > 0 && name <= before {
			r.fail("a grant's context is not in order")
			return
		}
		g.context[name], before = value, name
	}
}

// reader reads values from s until the first error, and zeros from then on.
type reader struct {
	s   cryptobyte.String
	err error
}

func (r *reader) fail(reason string) {
	if r.err == nil {
		r.err, r.s = fmt.Errorf("contents: %s", reason), nil
	}
}

func (r *reader) bytes(b []byte) {
	if !r.s.CopyBytes(b) {
		r.fail("cut short")
	}
}

func (r *reader) uint8() (n uint8) {
	if !r.s.ReadUint8(&n) {
		r.fail("cut short")
	}
	return n
}

func (r *reader) uint16() (n uint16) {
	if !r.s.ReadUint16(&n) {
		r.fail("cut short")
	}
	return n
}

func (r *reader) uint32() (n uint32) {
	if !r.s.ReadUint32(&n) {
		r.fail("cut short")
	}
	return n
}

func (r *reader) time() int64 {
	var n uint64
	if !r.s.ReadUint64(&n) {
		r.fail("cut short")
	}
	if n > maxMillis {
		r.fail("a time beyond the year 9999")
		return 0
	}
	return int64(n)
}

func (r *reader) text8() string {
	var s cryptobyte.String
	if !r.s.ReadUint8LengthPrefixed(&s) {
		r.fail("cut short")
	}
	return string(s)
}

func (r *reader) text16() string {
	var s cryptobyte.String
	if !r.s.ReadUint16LengthPrefixed(&s) {
		r.fail("cut short")
	}
	return string(s)
}

// fits reports whether so many things of at least size bytes can follow.
func (r *reader) fits(count, size int) bool {
	if r.err == nil && count > len(r.s)/size {
		r.fail("cut short")
	}
	return r.err == nil
}

// count reads how many things of at least size bytes follow.
func (r *reader) count(size int) int {
	count := r.uint32()
	if r.err != nil || int64(count) > int64(len(r.s)/size) {
		r.fail("cut short")
		return 0
	}
	return int(count)
}
