package localkms

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// merge returns what two documents of one service have together. Nothing that one
// of them took away comes back:
//
//   - A key that one of them deleted is deleted.
//   - A key is disabled, or pending deletion, while a mark of that is in force.
//   - If both changed a key's policy, both policies are in force: all have to permit.
//   - A grant or an alias that one of them removed is removed. If both set one alias,
//     the later setting counts, as it does for description, tags and rotation.
//   - Versions of a key are all kept. Of several with one number, the first encrypts,
//     and all decrypt.
//
// merge is commutative, associative and idempotent, and changes neither argument.
func (c *contents) merge(other *contents) contents {
	m := contents{keys: make(map[keyID]*key), aliases: make(map[aliasName][]alias), history: history{
		removed: maps.Clone(c.removed), deleted: maps.Clone(c.deleted), watermark: max(c.watermark, other.watermark),
	}}
	for one, when := range other.removed {
		m.removed[one] = max(m.removed[one], when)
	}
	maps.Copy(m.deleted, other.deleted)
	for _, of := range []*contents{c, other} {
		for id := range of.keys {
			if !m.deleted[id] && m.keys[id] == nil {
				m.keys[id] = m.mergeKey(c, other, id)
			}
		}
	}
	for _, of := range []*contents{c, other} {
		for name := range of.aliases {
			if all := m.mergeAlias(c, other, name); len(all) > 0 {
				m.aliases[name] = all
			}
		}
	}
	return m
}

// mergeKey returns a key of a, of b or of both.
func (m *contents) mergeKey(a, b *contents, id keyID) *key {
	x, y := a.keys[id], b.keys[id]
	if x == nil {
		x, y, a, b = y, x, b, a
	}
	k := *x
	if y == nil {
		y = &key{}
	} else if compareSettings(y, x) > 0 {
		k.settled, k.description, k.tags, k.rotation = y.settled, y.description, y.tags, y.rotation
	}
	k.disabled = union(x.disabled, y.disabled, mark.compare, m.took)
	k.deletions = union(x.deletions, y.deletions, deletion.compare, func(one deletion) bool { return m.took(one.mark) })
	k.policies = union(x.policies, y.policies, keyPolicy.compare, func(one keyPolicy) bool { return m.took(one.mark) })
	k.grants = union(x.grants, y.grants, compareGrants, func(g *grant) bool {
		return m.took(g.mark()) || !known(x.grants, g, a.watermark) || !known(y.grants, g, b.watermark)
	})
	all := union(x.allVersions(), y.allVersions(), material.compare, func(material) bool { return false })
	k.versions, k.rivals = nil, nil
	for _, v := range all {
		if int(v.number) > len(k.versions) {
			k.versions = append(k.versions, v)
		} else {
			k.rivals = append(k.rivals, v)
		}
	}
	return k.finish()
}

// known reports whether grants has g, or says nothing about it.
func known(grants []*grant, g *grant, watermark int64) bool {
	return g.created > watermark || slices.ContainsFunc(grants, func(one *grant) bool { return one.id == g.id })
}

// mergeAlias returns the aliases of one name of a, of b or of both.
func (m *contents) mergeAlias(a, b *contents, name aliasName) []alias {
	x, y := a.aliases[name], b.aliases[name]
	return union(x, y, alias.compare, func(one alias) bool {
		return m.took(one.mark) || m.keys[one.key] == nil ||
			one.updated <= a.watermark && !hasAlias(x, one) || one.updated <= b.watermark && !hasAlias(y, one)
	})
}

func hasAlias(all []alias, a alias) bool {
	return slices.ContainsFunc(all, func(one alias) bool { return one.mark == a.mark })
}

// union returns what a and b have and drop does not refuse, in order, each once.
func union[T any](a, b []T, compare func(T, T) int, drop func(T) bool) []T {
	all := slices.Concat(a, b)
	slices.SortFunc(all, compare)
	all = slices.CompactFunc(all, func(x, y T) bool { return compare(x, y) == 0 })
	all = slices.DeleteFunc(all, drop)
	if len(all) == 0 {
		return nil
	}
	return all
}

func compareGrants(a, b *grant) int {
	return cmp.Or(cmp.Compare(a.created, b.created), cmp.Compare(string(a.id[:]), string(b.id[:])))
}

// compareSettings orders description, tags and rotation of one key: the later
// settings count, and any of two at once.
func compareSettings(a, b *key) int {
	return cmp.Or(cmp.Compare(a.settled, b.settled), strings.Compare(a.description, b.description),
		cmp.Compare(tagText(a.tags), tagText(b.tags)),
		cmp.Compare(a.rotation.days, b.rotation.days), cmp.Compare(a.rotation.next, b.rotation.next))
}

func tagText(tags map[string]string) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(tags)) {
		fmt.Fprintf(&b, "%q=%q,", name, tags[name])
	}
	return b.String()
}

// includes returns nil if next holds everything that c holds, so that a merge of
// both is next, and otherwise the first thing that next lacks.
func (c *contents) includes(next *contents) error {
	for id := range c.deleted {
		if k := next.keys[id]; k != nil {
			return fmt.Errorf("it holds %s, which was deleted", k.arn)
		}
		if !next.deleted[id] {
			return fmt.Errorf("it does not know that key %s was deleted", id)
		}
	}
	for one, when := range c.removed {
		if !next.took(one) && when > next.watermark {
			return errors.New("it does not know what was removed")
		}
	}
	if next.watermark < c.watermark {
		return errors.New("it does not know what was removed long ago")
	}
	for id, k := range c.keys {
		n := next.keys[id]
		switch {
		case n == k || next.deleted[id]:
			continue
		case n == nil:
			return fmt.Errorf("it lacks %s", k.arn)
		}
		if err := c.keyIncludedIn(k, n, next); err != nil {
			return fmt.Errorf("%s: %w", k.arn, err)
		}
	}
	for id, n := range next.keys {
		if err := c.tookBack(c.keys[id], n); err != nil {
			return fmt.Errorf("%s: %w", n.arn, err)
		}
	}
	for name, all := range c.aliases {
		for _, a := range all {
			if !next.took(a.mark) && next.keys[a.key] != nil && a.updated > next.watermark && !hasAlias(next.aliases[name], a) {
				return fmt.Errorf("it lacks %s", name.arn())
			}
		}
	}
	for name, all := range next.aliases {
		for _, a := range all {
			if c.took(a.mark) || a.updated <= c.watermark && !hasAlias(c.aliases[name], a) {
				return fmt.Errorf("it holds %s, which was removed", name.arn())
			}
		}
	}
	return nil
}

// keyIncludedIn returns nil if n has everything that k has, which is the same key of c.
func (c *contents) keyIncludedIn(k, n *key, next *contents) error {
	for _, v := range k.allVersions() {
		if !n.hasVersion(v) {
			return fmt.Errorf("it lacks version %s", v.name())
		}
	}
	for _, one := range k.disabled {
		if !next.took(one) && !slices.Contains(n.disabled, one) {
			return errors.New("in it the key was not disabled")
		}
	}
	for _, one := range k.deletions {
		if !next.took(one.mark) && !slices.Contains(n.deletions, one) {
			return errors.New("in it no deletion was scheduled")
		}
	}
	for _, one := range k.policies {
		if !next.took(one.mark) && !slices.ContainsFunc(n.policies, func(p keyPolicy) bool { return p.mark == one.mark }) {
			return errors.New("it lacks a policy")
		}
	}
	for _, g := range k.grants {
		held := slices.ContainsFunc(n.grants, func(one *grant) bool { return one.id == g.id })
		if !held && !next.took(g.mark()) && g.created > next.watermark {
			return errors.New("it lacks a grant")
		}
	}
	if compareSettings(k, n) > 0 {
		return errors.New("it has older settings")
	}
	return nil
}

// tookBack returns an error if n, a key of another document, has something that c
// removed. k is the same key of c, or nil.
func (c *contents) tookBack(k, n *key) error {
	if slices.ContainsFunc(n.disabled, c.took) || slices.ContainsFunc(marksOf(n.deletions), c.took) {
		return errors.New("in it the key was not enabled")
	}
	if slices.ContainsFunc(n.policies, func(one keyPolicy) bool { return c.took(one.mark) }) {
		return errors.New("it holds a policy that was replaced")
	}
	var grants []*grant
	if k != nil {
		grants = k.grants
	}
	if slices.ContainsFunc(n.grants, func(g *grant) bool { return c.took(g.mark()) || !known(grants, g, c.watermark) }) {
		return errors.New("it holds a grant that was removed")
	}
	return nil
}
