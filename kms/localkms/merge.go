package localkms

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/blobseal/blobseal/kms"
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
				m.keys[id] = mergeKey(c, other, id)
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
func mergeKey(a, b *contents, id keyID) *key {
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
	k.disabled = mergeActs(a, b, x.disabled, y.disabled, mark.compare)
	k.deletions = mergeActs(a, b, x.deletions, y.deletions, compareMarks)
	k.policies = mergeActs(a, b, x.policies, y.policies, compareMarks)
	k.grants = mergeActs(a, b, x.grants, y.grants, compareGrants)
	k.versions, k.rivals = nil, nil
	for _, v := range union(x.allVersions(), y.allVersions(), material.compare) {
		if int(v.number) > len(k.versions) {
			k.versions = append(k.versions, v)
		} else {
			k.rivals = append(k.rivals, v)
		}
	}
	return k.finish()
}

// mergeAlias returns the aliases of one name of a, of b or of both.
func (m *contents) mergeAlias(a, b *contents, name aliasName) []alias {
	aliases := mergeActs(a, b, a.aliases[name], b.aliases[name], alias.compare)
	return slices.DeleteFunc(aliases, func(one alias) bool { return m.keys[one.key] == nil })
}

// mergeActs returns the acts x of a and y of b that neither of them took back, in order.
func mergeActs[T act](a, b *contents, x, y []T, compare func(T, T) int) []T {
	return slices.DeleteFunc(union(x, y, compare), func(one T) bool {
		return tookBack(&a.history, x, one) || tookBack(&b.history, y, one)
	})
}

// union returns what a and b have, in order, each once.
func union[T any](a, b []T, compare func(T, T) int) []T {
	all := slices.Concat(a, b)
	slices.SortFunc(all, compare)
	return slices.CompactFunc(all, func(x, y T) bool { return compare(x, y) == 0 })
}

func compareGrants(a, b *grant) int {
	return cmp.Or(cmp.Compare(a.created, b.created), cmp.Compare(string(a.id[:]), string(b.id[:])))
}

// compareSettings orders description, tags and rotation of one key: the later
// settings count, and any of two at once.
func compareSettings(a, b *key) int {
	return cmp.Or(cmp.Compare(a.settled, b.settled), strings.Compare(a.description, b.description),
		bytes.Compare(kms.Context(a.tags).AssociatedData(), kms.Context(b.tags).AssociatedData()),
		cmp.Compare(a.rotation.days, b.rotation.days), cmp.Compare(a.rotation.next, b.rotation.next))
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
		if _, found := next.removed[one]; !found && when > next.watermark {
			return errors.New("it does not know what was removed")
		}
	}
	if next.watermark < c.watermark {
		return errors.New("it does not know what was removed long ago")
	}
	for id, k := range c.keys {
		if next.keys[id] == nil && !next.deleted[id] {
			return fmt.Errorf("it lacks %s", k.arn)
		}
	}
	for id, n := range next.keys {
		k := c.keys[id]
		switch {
		case k == n:
			continue
		case k == nil:
			k = &key{}
		}
		if err := c.includesKey(k, next, n); err != nil {
			return fmt.Errorf("%s: %w", n.arn, err)
		}
	}
	for name, aliases := range c.aliases {
		aliases = slices.DeleteFunc(slices.Clone(aliases), func(a alias) bool { return next.keys[a.key] == nil })
		if err := includesActs(name.arn(), &c.history, aliases, &next.history, next.aliases[name]); err != nil {
			return err
		}
	}
	for name, aliases := range next.aliases {
		if c.aliases[name] == nil {
			if err := includesActs(name.arn(), &c.history, nil, &next.history, aliases); err != nil {
				return err
			}
		}
	}
	return nil
}

// includesKey returns nil if n, a key of next, has everything that k has, the same key
// of c, and nothing that c took back.
func (c *contents) includesKey(k *key, next *contents, n *key) error {
	for _, v := range k.allVersions() {
		if !n.hasVersion(v) {
			return fmt.Errorf("it lacks version %s", v.name())
		}
	}
	if compareSettings(k, n) > 0 {
		return errors.New("it has older settings")
	}
	return cmp.Or(
		includesActs("a disabling", &c.history, k.disabled, &next.history, n.disabled),
		includesActs("a deletion", &c.history, k.deletions, &next.history, n.deletions),
		includesActs("a policy", &c.history, k.policies, &next.history, n.policies),
		includesActs("a grant", &c.history, k.grants, &next.history, n.grants),
	)
}

// includesActs returns nil if next has all acts that c has, unless it took them back,
// and none that c took back.
func includesActs[T act](what string, c *history, acts []T, next *history, nextActs []T) error {
	for _, one := range acts {
		if !tookBack(next, nextActs, one) && !holds(nextActs, one) {
			return fmt.Errorf("it lacks %s", what)
		}
	}
	for _, one := range nextActs {
		if tookBack(c, acts, one) {
			return fmt.Errorf("it holds %s that was taken back", what)
		}
	}
	return nil
}
