package localkms

import (
	"encoding/binary"
	"slices"

	"github.com/blobseal/blobseal/internal/secret"
	"github.com/blobseal/blobseal/kms"
)

// parse is the inverse of marshal. Nothing in c is data's memory. Policies are
// those of known, a snapshot or nil, where it has them.
func (c *contents) parse(data []byte, known *snapshot) error {
	return c.parseVersion(data, documentVersion, known)
}

// parseVersion is parse for the contents of a document of that version.
func (c *contents) parseVersion(data []byte, version uint8, known *snapshot) error {
	r := &reader{s: data}
	table := &policyTable{policies: r.policies(known), next: 1}
	keys := r.keys(c, table)
	names := r.aliases(c)
	if r.err != nil {
		return r.err
	}
	if version == 1 {
		c.deriveMarks(keys)
	} else {
		r.history(&c.history)
		for _, k := range keys {
			r.marks(k, table)
		}
		for _, name := range names {
			c.aliases[name] = r.aliasMarks(c, name)
		}
	}
	if int(table.next) != len(table.policies)+1 {
		r.fail("a policy without a key")
	}
	for _, k := range keys {
		k.finish()
	}
	if r.err == nil && len(r.s) != 0 {
		r.fail("bytes behind the contents")
	}
	return r.err
}

// keys reads the keys, in the order of their ids.
func (r *reader) keys(c *contents, table *policyTable) []*key {
	count := r.count(minKeySize)
	c.keys = make(map[keyID]*key, count)
	keys := make([]*key, 0, count)
	for range count {
		k := r.key(table)
		if r.err == nil && len(keys) > 0 && keys[len(keys)-1].id.compare(k.id) >= 0 {
			r.fail("keys are not in order")
		}
		if r.err != nil {
			return nil
		}
		keys = append(keys, k)
		c.keys[k.id] = k
	}
	return keys
}

// aliases reads the aliases, and returns their names in order.
func (r *reader) aliases(c *contents) []aliasName {
	count := r.count(minAliasSize)
	c.aliases = make(map[aliasName]alias, count)
	names := make([]aliasName, 0, count)
	for i := range count {
		name := aliasName{scope: scope{account: r.text8(), region: r.text8()}, name: r.text16()}
		var a alias
		r.bytes(a.key[:])
		a.created, a.updated = r.time(), r.time()
		k := c.keys[a.key]
		switch {
		case name.check() != nil || checkAlias(name.name) != nil:
			r.fail("an alias has no name")
		case i > 0 && names[i-1].compare(name) >= 0:
			r.fail("aliases are not in order")
		case k == nil || k.scope != name.scope:
			r.fail("an alias without a key of its account and region")
		}
		if r.err != nil {
			return nil
		}
		names = append(names, name)
		c.aliases[name] = a
	}
	return names
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
			for _, one := range k.policies {
				shared[one.policy.text] = one.policy
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

// policyTable are the policies of a document, which are numbered in the order in
// which they are named.
type policyTable struct {
	policies []*policy
	next     uint32 // the number of the next policy to be named first
}

// find returns the policy with a number, or nil.
func (t *policyTable) find(number uint32) *policy {
	if number == 0 || number > uint32(len(t.policies)) || number > t.next {
		return nil
	}
	if number == t.next {
		t.next++
	}
	return t.policies[number-1]
}

func (r *reader) key(table *policyTable) *key {
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
	case number != 0:
		p := table.find(number)
		if p == nil {
			r.fail("a policy out of order")
		}
		k.policies = []keyPolicy{{policy: p}}
	}
	r.tags(k)
	r.versions(k)
	r.grants(k)
	return k
}

func (r *reader) history(h *history) {
	h.watermark = r.time()
	count := r.count(len(mark{}) + 8)
	h.removed = make(map[mark]int64, count)
	var last mark
	for i := range count {
		m := r.mark()
		if i > 0 && last.compare(m) >= 0 {
			r.fail("removed marks are not in order")
			return
		}
		h.removed[m], last = r.time(), m
	}
	count = r.count(len(keyID{}))
	h.deleted = make(map[keyID]struct{}, count)
	var before keyID
	for i := range count {
		var id keyID
		r.bytes(id[:])
		if i > 0 && before.compare(id) >= 0 {
			r.fail("deleted keys are not in order")
			return
		}
		h.deleted[id], before = struct{}{}, id
	}
}

// marks reads the marks of a key, from which its state has to follow.
func (r *reader) marks(k *key, table *policyTable) {
	k.settled = r.time()
	for range r.count16(8) {
		k.disabled = append(k.disabled, r.mark())
	}
	for range r.count16(16) {
		k.deletions = append(k.deletions, deletion{r.mark(), r.time()})
	}
	first := k.policies
	k.policies = nil
	for range r.count16(12) {
		k.policies = append(k.policies, keyPolicy{r.mark(), table.find(r.uint32())})
	}
	r.rivals(k)
	if r.err != nil {
		return
	}
	state, deadline := k.state, k.deadline
	k.finish()
	if state != k.state || deadline != k.deadline || len(first) != min(1, len(k.policies)) || len(first) == 1 && first[0].policy != k.policies[0].policy {
		r.fail("a state that does not follow from the marks")
	}
	ascending := slices.IsSortedFunc(k.disabled, mark.compare) &&
		slices.IsSortedFunc(k.deletions, func(a, b deletion) int { return a.mark.compare(b.mark) }) &&
		slices.IsSortedFunc(k.policies, func(a, b keyPolicy) int { return a.mark.compare(b.mark) })
	if !ascending || slices.ContainsFunc(k.policies, func(one keyPolicy) bool { return one.policy == nil }) {
		r.fail("marks are not in order")
	}
	if slices.ContainsFunc(k.deletions, func(one deletion) bool { return one.deadline == 0 }) {
		r.fail("a deletion without a deadline")
	}
}

// aliasMarks reads the mark and the rivals of an alias.
func (r *reader) aliasMarks(c *contents, name aliasName) alias {
	a := c.aliases[name]
	a.mark = r.mark()
	for range r.count16(8 + 16 + 8 + 8) {
		one := alias{mark: r.mark()}
		r.bytes(one.key[:])
		one.created, one.updated = r.time(), r.time()
		if k := c.keys[one.key]; k == nil || k.scope != name.scope {
			r.fail("an alias without a key of its account and region")
		}
		a.rivals = append(a.rivals, one)
	}
	if !slices.IsSortedFunc(a.all(), func(a, b alias) int { return b.compare(a) }) {
		r.fail("aliases of one name are not in order")
	}
	return a
}

func (r *reader) rivals(k *key) {
	var raw [secret.KeySize]byte
	defer clear(raw[:])
	for range r.count16(4 + minVersionSize) {
		v := material{number: r.uint32(), created: r.time(), origin: Origin(r.uint8())}
		r.bytes(raw[:])
		if r.err != nil || v.number < 2 || v.number > uint32(len(k.versions)) || !v.origin.valid() || v.origin == Created {
			r.fail("a version of no number")
			return
		}
		v.key, _ = secret.New(raw[:]) // the length is right
		k.rivals = append(k.rivals, v)
	}
	if !slices.IsSortedFunc(k.rivals, material.compare) {
		r.fail("versions are not in order")
	}
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
	for name, a := range c.aliases {
		at := binary.BigEndian.AppendUint64(nil, uint64(a.updated))
		a.mark = derivedMark([]byte("alias"), []byte(name.String()), []byte(name.name), a.key[:], at)
		c.aliases[name] = a
	}
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
	if count == 0 {
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
	if count == 0 || !r.fits(count, minGrantSize) {
		return
	}
	k.grants = make([]*grant, count)
	ids := make(map[[16]byte]bool)
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
		if err := g.prepare(); err != nil || ids[g.id] {
			r.fail("a grant that cannot be")
			return
		}
		ids[g.id] = true
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
