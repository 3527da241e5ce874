package localkms

import (
	"cmp"
	"encoding/hex"
	"slices"
	"time"

	"github.com/blobseal/blobseal/internal/secret"
)

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
	aliases map[aliasName][]alias // the latest is in force; others were set independently
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

// newestTime returns the latest time, up to limit, at which something was made or changed.
func (c *contents) newestTime(limit int64) (latest int64) {
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

// namedAliases are the aliases of one name.
type namedAliases struct {
	aliasName
	aliases []alias
}

func (n namedAliases) compare(other namedAliases) int { return n.aliasName.compare(other.aliasName) }

// sortedAliases returns all aliases in order of their names.
func (c *contents) sortedAliases() []namedAliases {
	all := make([]namedAliases, 0, len(c.aliases))
	for name, aliases := range c.aliases {
		all = append(all, namedAliases{name, aliases})
	}
	slices.SortFunc(all, namedAliases.compare)
	return all
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

const day = int64(24 * time.Hour / time.Millisecond)

// maxMillis is the last that time.Time marshals to JSON, in the year 9999.
const maxMillis int64 = 253_402_300_799_999

// millis returns t for a document, within what that holds.
func millis(t time.Time) int64 { return min(max(t.UnixMilli(), 0), maxMillis) }

// date is the inverse of millis.
func date(ms int64) time.Time { return time.UnixMilli(ms).UTC() }
