package localkms

import (
	"encoding/binary"
	"errors"
	"slices"

	"github.com/blobseal/blobseal/internal/secret"
)

// parse is the inverse of marshal, for the contents of a document of that version.
// Nothing in c is data's memory. Policies are those of known, a snapshot or nil, where
// it has them.
func (c *contents) parse(data []byte, version uint8, known *snapshot) error {
	*c = newContents()
	r := &reader{s: data}
	r.readPolicies(known)
	keys := r.keys(c)
	names := r.aliases(c)
	if version == 1 {
		c.deriveMarks(keys)
	} else {
		r.history(&c.history)
		for _, k := range keys {
			r.marks(k)
		}
		for _, name := range names {
			r.aliasMarks(c, name)
		}
	}
	if r.named != len(r.policies) {
		r.fail("a policy without a key")
	}
	if len(r.s) != 0 {
		r.fail("bytes behind the contents")
	}
	if r.err != nil {
		return r.err
	}
	for _, k := range keys {
		state, deadline := k.state, k.deadline
		k.finish()
		if k.state != state || k.deadline != deadline {
			return errors.New("contents: a state that does not follow from the marks")
		}
	}
	return nil
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

// readPolicies reads the table of policies, which are compiled when first used.
func (r *reader) readPolicies(known *snapshot) {
	shared := make(map[string]*policy)
	if known != nil {
		for _, k := range known.keys {
			for _, one := range k.policies {
				shared[one.policy.text] = one.policy
			}
		}
	}
	count := r.fits(r.uint32(), minPolicySize)
	r.policies = make([]*policy, count)
	seen := make(map[string]bool, count)
	for i := range r.policies {
		text := r.text16()
		if seen[text] {
			r.fail("a policy is there twice")
		}
		seen[text] = true
		if r.policies[i] = shared[text]; r.policies[i] == nil {
			r.policies[i] = &policy{text: text}
		}
	}
}

// policy reads the number of a policy, and returns nil if it is zero. Policies are
// numbered in the order in which they are first named.
func (r *reader) policy() *policy {
	number := int64(r.uint32())
	switch {
	case number == 0:
		return nil
	case number > int64(len(r.policies)) || number > int64(r.named)+1:
		r.fail("a policy out of order")
		return nil
	}
	r.named = max(r.named, int(number))
	return r.policies[number-1]
}

// keys reads the keys, in the order of their ids.
func (r *reader) keys(c *contents) []*key {
	count := r.fits(r.uint32(), minKeySize)
	c.keys = make(map[keyID]*key, count)
	keys := make([]*key, 0, count)
	for range count {
		k := r.key()
		if r.err != nil {
			return nil
		}
		keys = append(keys, k)
		c.keys[k.id] = k
	}
	ascending(r, "keys", keys, func(a, b *key) int { return a.id.compare(b.id) })
	return keys
}

func (r *reader) key() *key {
	k := new(key)
	r.bytes(k.id[:])
	k.account, k.region = r.text8(), r.text8()
	k.description = r.text16()
	k.created = r.time()
	k.state = readCode(r, stateCodes)
	isDefault := r.uint8()
	k.isDefault = isDefault == 1
	k.deadline = r.time()
	if p := r.policy(); p != nil {
		k.policies = []keyPolicy{{policy: p}}
	}
	k.rotation.days = r.uint16()
	k.rotation.next = r.time()
	k.tags = r.pairs(uint32(r.uint8()), minTagSize, r.text8)
	count := r.fits(uint32(r.uint16()), minVersionSize)
	k.versions = make([]material, count)
	for i := range k.versions {
		k.versions[i] = r.material(uint32(i + 1))
	}
	r.grants(k)
	switch {
	case k.scope.check() != nil:
		r.fail("a key of no account or region")
	case (k.state == PendingDeletion) != (k.deadline != 0):
		r.fail("a deadline without a deletion, or the other way about")
	case isDefault > 1:
		r.fail("a key that is neither a default key nor another")
	case k.rotation.days != 0 && checkRotation(int(k.rotation.days)) != nil || (k.rotation.days == 0) != (k.rotation.next == 0):
		r.fail("a rotation of no period")
	case count == 0:
		r.fail("a key without material")
	}
	return k
}

// material reads a version of a key's material.
func (r *reader) material(number uint32) material {
	v := material{number: number, created: r.time(), origin: readCode(r, originCodes)}
	var raw [secret.KeySize]byte
	defer clear(raw[:])
	r.bytes(raw[:])
	if (v.origin == Created) != (number == 1) {
		r.fail("a version of no origin")
	}
	v.key, _ = secret.New(raw[:]) // the length is right
	return v
}

func (r *reader) grants(k *key) {
	count := r.fits(uint32(r.uint16()), minGrantSize)
	ids := make(map[[16]byte]bool, count)
	k.grants = slices.Grow(k.grants, count)
	for range count {
		g := new(grant)
		r.bytes(g.id[:])
		g.created = r.time()
		g.name, g.grantee, g.retiring = r.text8(), r.text16(), r.text16()
		g.operations = operationSet(r.uint16())
		g.constraint = constraint(r.uint8())
		g.context = r.pairs(uint32(r.uint16()), minPairSize, r.text16)
		if g.prepare() != nil || ids[g.id] {
			r.fail("a grant that cannot be")
			return
		}
		ids[g.id] = true
		k.grants = append(k.grants, g)
	}
}

// aliases reads the aliases, and returns their names in order.
func (r *reader) aliases(c *contents) []aliasName {
	count := r.fits(r.uint32(), minAliasSize)
	c.aliases = make(map[aliasName][]alias, count)
	names := make([]aliasName, 0, count)
	for range count {
		name := aliasName{scope: scope{account: r.text8(), region: r.text8()}, name: r.text16()}
		if name.check() != nil || checkAlias(name.name) != nil {
			r.fail("an alias has no name")
		}
		c.aliases[name] = []alias{r.alias(c, name)}
		if r.err != nil {
			return nil
		}
		names = append(names, name)
	}
	ascending(r, "aliases", names, aliasName.compare)
	return names
}

// alias reads what an alias of that name stands for.
func (r *reader) alias(c *contents, name aliasName) (a alias) {
	r.bytes(a.key[:])
	a.created, a.updated = r.time(), r.time()
	if k := c.keys[a.key]; k == nil || k.scope != name.scope {
		r.fail("an alias without a key of its account and region")
	}
	return a
}

func (r *reader) history(h *history) {
	h.watermark = r.time()
	count := r.fits(r.uint32(), markSize+8)
	removed := make([]mark, count)
	for i := range removed {
		removed[i] = r.mark()
		h.removed[removed[i]] = r.time()
	}
	ascending(r, "removed marks", removed, mark.compare)
	deleted := make([]keyID, r.fits(r.uint32(), len(keyID{})))
	for i := range deleted {
		r.bytes(deleted[i][:])
		h.deleted[deleted[i]] = true
	}
	ascending(r, "deleted keys", deleted, keyID.compare)
}

// marks reads the marks of a key and its rivals.
func (r *reader) marks(k *key) {
	k.settled = r.time()
	for range r.fits(uint32(r.uint16()), markSize) {
		k.disabled = append(k.disabled, r.mark())
	}
	for range r.fits(uint32(r.uint16()), markSize+8) {
		one := deletion{r.mark(), r.time()}
		if one.deadline == 0 {
			r.fail("a deletion without a deadline")
		}
		k.deletions = append(k.deletions, one)
	}
	var policies []keyPolicy
	for range r.fits(uint32(r.uint16()), markSize+4) {
		one := keyPolicy{r.mark(), r.policy()}
		if one.policy == nil {
			r.fail("a policy of no number")
		}
		policies = append(policies, one)
	}
	samePolicy := func(a, b keyPolicy) bool { return a.policy == b.policy }
	if !slices.EqualFunc(k.policies, policies[:min(1, len(policies))], samePolicy) {
		r.fail("a first policy that is not the first")
	}
	k.policies = policies
	for range r.fits(uint32(r.uint16()), 4+minVersionSize) {
		v := r.material(r.uint32())
		if v.number < 2 || int64(v.number) > int64(len(k.versions)) {
			r.fail("a rival of no version")
		}
		k.rivals = append(k.rivals, v)
	}
	ascending(r, "marks of disabling", k.disabled, mark.compare)
	ascending(r, "marks of deletions", k.deletions, deletion.compare)
	ascending(r, "marks of policies", k.policies, keyPolicy.compare)
	ascending(r, "rivals", k.rivals, material.compare)
}

// aliasMarks reads the mark and the rivals of an alias.
func (r *reader) aliasMarks(c *contents, name aliasName) {
	all := c.aliases[name]
	all[0].mark = r.mark()
	count := r.fits(uint32(r.uint16()), markSize+16+8+8)
	if count == 0 {
		return
	}
	for range count {
		m := r.mark()
		a := r.alias(c, name)
		a.mark = m
		all = append(all, a)
	}
	ascending(r, "aliases of one name", all, alias.compare)
	c.aliases[name] = all
}

// deriveMarks gives keys and aliases of a document of version 1 the marks that
// their states would have left.
func (c *contents) deriveMarks(keys []*key) {
	for _, k := range keys {
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
	for name, all := range c.aliases {
		a := &all[0]
		at := binary.BigEndian.AppendUint64(nil, uint64(a.updated))
		a.mark = derivedMark([]byte("alias"), []byte(name.region+":"+name.account), []byte(name.name), a.key[:], at)
	}
}
