package localkms

import (
	"fmt"
	"strings"

	"github.com/blobseal/blobseal/internal/uuid"
	"github.com/blobseal/blobseal/kms"
)

// The account and region that [Service.Client] uses for empty arguments.
const (
	defaultAccount = "000000000000"
	defaultRegion  = "local"
)

const (
	arnPrefix   = "arn:blobseal:kms:"
	aliasPrefix = "alias/"
	keyPrefix   = "key/"

	maxScopeName = 64                                                 // bytes of an account or a region
	maxAliasName = 256                                                // bytes of an alias, with its prefix
	maxName      = len(arnPrefix) + 2*(maxScopeName+1) + maxAliasName // of whatever names a key
)

// keyID is a key's own id.
type keyID = uuid.UUID

// scope is the account and region that a key or an alias belongs to.
type scope struct{ account, region string }

// check refuses what has no place in an ARN.
func (s scope) check() error {
	for _, part := range []struct{ what, name string }{{"account", s.account}, {"region", s.region}} {
		if !validName(part.name, maxScopeName, "._-") {
			return invalid("%s %q: want 1 to %d of A-Z a-z 0-9 . _ -", part.what, shorten(part.name), maxScopeName)
		}
	}
	return nil
}

// arn returns the full name of a resource, whose name in s begins with prefix.
func (s scope) arn(prefix, name string) string {
	return arnPrefix + s.region + ":" + s.account + ":" + prefix + name
}

// validName reports whether name is 1 to limit letters, digits and extra characters.
func validName(name string, limit int, extra string) bool {
	if name == "" || len(name) > limit {
		return false
	}
	for i := range len(name) {
		c := name[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte(extra, c) >= 0) {
			return false
		}
	}
	return true
}

// checkAlias refuses what is not the name of an alias.
func checkAlias(name string) error {
	rest, found := strings.CutPrefix(name, aliasPrefix)
	if !found || !validName(rest, maxAliasName-len(aliasPrefix), "._-/") {
		return invalid("alias %q: want alias/ and 1 to %d of A-Z a-z 0-9 . _ - /", shorten(name), maxAliasName-len(aliasPrefix))
	}
	return nil
}

// target is what a caller named: a key by its id, or an alias.
type target struct {
	scope
	id    keyID  // if alias is ""
	alias string // with its prefix
}

// target reads a key id, a key ARN, an alias or an alias ARN. Ids and aliases are those
// of the client's account and region.
func (c *Client) target(name string) (target, error) {
	if name == "" {
		return target{}, invalid("no key is named")
	}
	t := target{scope: c.scope}
	notARN := func() error { return invalid("key %q: not an ARN of a key or an alias", shorten(name)) }
	resource, isARN := strings.CutPrefix(name, arnPrefix)
	if isARN {
		region, rest, _ := strings.Cut(resource, ":")
		account, rest, _ := strings.Cut(rest, ":")
		if t.scope, resource = (scope{account: account, region: region}), rest; t.check() != nil {
			return target{}, notARN()
		}
	}
	id, isKey := strings.CutPrefix(resource, keyPrefix)
	switch {
	case strings.HasPrefix(resource, aliasPrefix):
		t.alias = resource
		return t, checkAlias(resource)
	case isARN && !isKey:
		return target{}, notARN()
	case isARN == isKey:
		var ok bool
		if t.id, ok = uuid.Parse(id); ok {
			return t, nil
		}
	}
	return target{}, fmt.Errorf("%w: want a key id, key ARN, alias or alias ARN", kms.ErrNotFound) // no key has such a name
}

// SameKey implements [kms.KeyComparer]. A key's id and its ARN mean one key. The
// service resolves aliases when they are used.
func (c *Client) SameKey(name, id string) (same, known bool) {
	a, err := c.target(name)
	if err != nil {
		return false, true
	}
	if a.alias != "" {
		return false, false
	}
	b, err := c.target(id)
	return err == nil && a == b, true
}

// shorten bounds what an error repeats of a request.
func shorten(s string) string { return cut(s, 100) }

func cut(s string, limit int) string {
	if len(s) > limit {
		return strings.ToValidUTF8(s[:limit], "") + "..."
	}
	return s
}
