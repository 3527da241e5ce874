package localkms

import (
	"encoding/binary"
	"errors"
	"slices"
	"strings"

	"github.com/blobseal/blobseal/internal/secret"
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
// Key ids, alias names, and grant ids within a key, are unique.

// marshal returns the encoding of all, which has about size bytes.
func (all *contents) marshal(size int) ([]byte, error) {
	c := &codec{out: make([]byte, 0, size)}
	keys := all.sortedKeys(nil)
	c.policies, c.numbers = numberPolicies(keys)
	c.contents(all, keys, documentVersion)
	return c.out, c.err
}

// parse is the inverse of marshal, for the contents of a document of that version.
// Nothing in all is data's memory. Policies are those of known, a snapshot or nil, where
// it has them.
func (all *contents) parse(data []byte, version uint8, known *snapshot) error {
	*all = newContents()
	c := &codec{reading: true, in: data, known: make(map[string]*policy)}
	if known != nil {
		for _, k := range known.keys {
			for _, one := range k.policies {
				c.known[one.policy.text] = one.policy
			}
		}
	}
	keys := c.contents(all, nil, version)
	c.check(len(c.in) == 0, "trailing bytes")
	if c.err != nil {
		return c.err
	}
	if policies, _ := numberPolicies(keys); !slices.Equal(policies, c.policies) {
		return errors.New("contents: policies are not in order, or unused")
	}
	for _, k := range keys {
		state, deadline := k.state, k.deadline
		k.finish()
		if k.state != state || k.deadline != deadline {
			return errors.New("contents: state does not follow from the marks")
		}
	}
	return nil
}

// numberPolicies returns the policies of keys, each text once, and their numbers, from 1.
func numberPolicies(keys []*key) (policies []*policy, numbers map[string]uint32) {
	numbers = make(map[string]uint32)
	add := func(one keyPolicy) {
		if numbers[one.policy.text] == 0 {
			policies = append(policies, one.policy)
			numbers[one.policy.text] = uint32(len(policies))
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
	return policies, numbers
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
	markSize       = len(mark{})
)

// contents reads or writes all, whose keys are returned or given in order.
func (c *codec) contents(all *contents, keys []*key, version uint8) []*key {
	list(c, 4, minPolicySize, &c.policies, nil, c.policyText)
	list(c, 4, minKeySize, &keys, func(a, b *key) int { return a.id.Compare(b.id) }, c.key)
	if c.reading {
		all.keys = make(map[keyID]*key, len(keys))
		for _, k := range keys {
			all.keys[k.id] = k
		}
	}
	names := all.sortedAliases()
	list(c, 4, minAliasSize, &names, namedAliases.compare, func(n *namedAliases) { c.firstAlias(all, n) })
	if version > 1 {
		c.history(&all.history)
		for _, k := range keys {
			c.marks(k)
		}
		for i := range names {
			c.aliasMarks(all, &names[i])
		}
	}
	if c.reading {
		all.aliases = make(map[aliasName][]alias, len(names))
		for _, n := range names {
			all.aliases[n.aliasName] = n.aliases
		}
	}
	if version == 1 {
		all.deriveMarks()
	}
	return keys
}

func (c *codec) policyText(p **policy) {
	if !c.reading {
		c.text16(&(*p).text)
		return
	}
	var text string
	c.text16(&text)
	if *p = c.known[text]; *p == nil {
		*p = &policy{text: text} // compiled when it is first used
	}
}

// policy reads or writes the number of a policy, which is zero if there is none.
func (c *codec) policy(p **policy) {
	var number uint32
	if !c.reading && *p != nil {
		number = c.numbers[(*p).text]
	}
	c.uint32(&number)
	if !c.reading || number == 0 {
		return
	}
	if int64(number) > int64(len(c.policies)) {
		c.fail("unknown policy")
		return
	}
	*p = c.policies[number-1]
}

func (c *codec) key(p **key) {
	if c.reading {
		*p = new(key)
	}
	k := *p
	var first *policy
	if len(k.policies) > 0 {
		first = k.policies[0].policy
	}
	c.bytes(k.id[:])
	c.text8(&k.account)
	c.text8(&k.region)
	c.text16(&k.description)
	c.time(&k.created)
	code(c, stateCodes, &k.state)
	c.bool(&k.isDefault)
	c.time(&k.deadline)
	c.policy(&first)
	c.uint16(&k.rotation.days)
	c.time(&k.rotation.next)
	table(c, 1, minTagSize, &k.tags, strings.Compare, func(name *string, value string) string {
		c.text8(name)
		c.text16(&value)
		return value
	})
	list(c, 2, minVersionSize, &k.versions, nil, c.material)
	list(c, 2, minGrantSize, &k.grants, nil, c.grant)
	if !c.reading {
		return
	}
	if first != nil {
		k.policies = []keyPolicy{{policy: first}}
	}
	for i := range k.versions {
		k.versions[i].number = uint32(i + 1)
	}
	if err := k.check(); err != nil {
		c.fail(err.Error())
	}
}

// check refuses a key that this service never stores.
func (k *key) check() error {
	grants := make(map[[16]byte]bool, len(k.grants))
	for _, g := range k.grants {
		grants[g.id] = true
		if g.prepare() != nil {
			return errors.New("malformed grant")
		}
	}
	created := func(v material) bool { return v.origin == Created }
	switch {
	case k.scope.check() != nil:
		return errors.New("malformed account or region")
	case (k.state == PendingDeletion) != (k.deadline != 0):
		return errors.New("deadline and state disagree")
	case k.rotation.days != 0 && checkRotation(int(k.rotation.days)) != nil || (k.rotation.days == 0) != (k.rotation.next == 0):
		return errors.New("malformed rotation")
	case len(k.versions) == 0:
		return errors.New("key without material")
	case !created(k.versions[0]) || slices.ContainsFunc(k.versions[1:], created):
		return errors.New("version of a wrong origin")
	case len(grants) < len(k.grants):
		return errors.New("duplicate grant")
	}
	return nil
}

// material reads or writes a version of a key's material, without its number.
func (c *codec) material(v *material) {
	c.time(&v.created)
	code(c, originCodes, &v.origin)
	if !c.reading {
		c.bytes(v.key.Bytes())
		return
	}
	v.key, _ = secret.New(c.next(secret.KeySize)) // the length is right
}

func (c *codec) grant(p **grant) {
	if c.reading {
		*p = new(grant)
	}
	g := *p
	c.bytes(g.id[:])
	c.time(&g.created)
	c.text8(&g.name)
	c.text16(&g.grantee)
	c.text16(&g.retiring)
	c.uint16((*uint16)(&g.operations))
	c.uint8((*uint8)(&g.constraint))
	table(c, 2, minPairSize, (*map[string]string)(&g.context), strings.Compare, func(name *string, value string) string {
		c.text16(name)
		c.text16(&value)
		return value
	})
}

// firstAlias reads or writes the name of an alias, and what it stands for.
func (c *codec) firstAlias(all *contents, n *namedAliases) {
	c.text8(&n.account)
	c.text8(&n.region)
	c.text16(&n.name)
	if c.reading {
		c.check(n.check() == nil && checkAlias(n.name) == nil, "malformed alias")
		n.aliases = make([]alias, 1)
	}
	c.alias(all, n.scope, &n.aliases[0])
}

// alias reads or writes what an alias of that scope stands for.
func (c *codec) alias(all *contents, s scope, a *alias) {
	c.bytes(a.key[:])
	c.time(&a.created)
	c.time(&a.updated)
	if c.reading {
		k := all.keys[a.key]
		c.check(k != nil && k.scope == s, "alias without a key of its account and region")
	}
}

// aliasMarks reads or writes the mark and the rivals of an alias.
func (c *codec) aliasMarks(all *contents, n *namedAliases) {
	first, rivals := &n.aliases[0], n.aliases[1:]
	c.mark(&first.mark)
	list(c, 2, markSize+16+8+8, &rivals, alias.compare, func(a *alias) {
		c.mark(&a.mark)
		c.alias(all, n.scope, a)
	})
	if c.reading && len(rivals) > 0 {
		c.check(first.compare(rivals[0]) < 0, "list is not in order")
		n.aliases = append(n.aliases, rivals...)
	}
}

func (c *codec) history(h *history) {
	c.time(&h.watermark)
	table(c, 4, markSize+8, &h.removed, mark.compare, func(m *mark, when int64) int64 {
		c.mark(m)
		c.time(&when)
		return when
	})
	table(c, 4, len(keyID{}), &h.deleted, keyID.Compare, func(id *keyID, _ bool) bool {
		c.bytes(id[:])
		return true
	})
}

// marks reads or writes the marks of a key, and its rivals.
func (c *codec) marks(k *key) {
	c.time(&k.settled)
	list(c, 2, markSize, &k.disabled, mark.compare, c.mark)
	list(c, 2, markSize+8, &k.deletions, compareMarks, func(d *deletion) {
		c.mark(&d.mark)
		c.time(&d.deadline)
		c.check(d.deadline != 0, "deletion without a deadline")
	})
	policies := k.policies
	list(c, 2, markSize+4, &policies, compareMarks, func(p *keyPolicy) {
		c.mark(&p.mark)
		c.policy(&p.policy)
		c.check(p.policy != nil, "mark without a policy")
	})
	list(c, 2, 4+minVersionSize, &k.rivals, material.compare, func(v *material) {
		c.uint32(&v.number)
		c.material(v)
		c.check(v.number >= 2 && int64(v.number) <= int64(len(k.versions)) && v.origin != Created, "rival of an unknown version")
	})
	if c.reading {
		same := func(a, b keyPolicy) bool { return a.policy == b.policy }
		c.check(slices.EqualFunc(k.policies, policies[:min(1, len(policies))], same), "first policies disagree")
		k.policies = policies
	}
}

func (c *codec) mark(m *mark) { c.bytes(m[:]) }

// deriveMarks gives keys and aliases of a document of version 1 the marks that
// their states would have left.
func (all *contents) deriveMarks() {
	for _, k := range all.keys {
		switch k.state {
		case Disabled:
			k.disabled = []mark{derivedMark([]byte("disabled"), k.id[:])}
		case PendingDeletion:
			at := binary.BigEndian.AppendUint64(nil, uint64(k.deadline))
			k.deletions = []deletion{{derivedMark([]byte("deletion"), k.id[:], at), k.deadline}}
		}
		for i := range k.policies {
			k.policies[i].mark = derivedMark([]byte("policy"), k.id[:], []byte(k.policies[i].policy.text))
		}
	}
	for name, aliases := range all.aliases {
		a := &aliases[0]
		at := binary.BigEndian.AppendUint64(nil, uint64(a.updated))
		a.mark = derivedMark([]byte("alias"), []byte(name.region+":"+name.account), []byte(name.name), a.key[:], at)
	}
}
