package localkms

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/blobseal/blobseal/kms"
)

// Bounds of grants.
const (
	maxGrants       = 1000 // of one key
	maxGrantName    = 255  // bytes; letters, digits and . _ - / :
	maxPrincipal    = 2048 // bytes of a principal's ID
	maxGrantContext = 4096 // bytes of a constraint, counted as maxContext is
)

// constraint is how a grant's context is compared. The numbers are those of the
// document.
type constraint uint8

const (
	unconstrained constraint = 0
	contextEquals constraint = 1
	contextSubset constraint = 2
)

// grant is a permission beside the policies. It is immutable.
type grant struct {
	id         [16]byte
	created    int64
	name       string // may be empty
	grantee    string // a principal's ID
	retiring   string // a principal's ID; may be empty
	operations operationSet
	constraint constraint
	context    kms.Context

	pairs []pair // of context, with folded names
}

// pair is one of an encryption context, with its name folded.
type pair struct{ name, value string }

// prepare checks a grant as CreateGrant does, and folds the names of its
// constraint once, so that matching does not.
func (g *grant) prepare() error {
	if g.name != "" && !validName(g.name, maxGrantName, "._-/:") {
		return invalid("grant name %q: want at most %d of A-Z a-z 0-9 . _ - / :", shorten(g.name), maxGrantName)
	}
	if g.grantee == "" {
		return invalid("grant to nobody")
	}
	for _, p := range []string{g.grantee, g.retiring} {
		if len(p) > maxPrincipal || !utf8.ValidString(p) {
			return invalid("principal of %d bytes, want UTF-8 of at most %d", len(p), maxPrincipal)
		}
	}
	if g.operations == 0 || g.operations >= 1<<len(grantable) {
		return invalid("no operations to grant")
	}
	if g.constraint > contextSubset || (g.constraint == unconstrained) != (len(g.context) == 0) {
		return invalid("constraint without a context")
	}
	if size := contextSize(g.context); size > maxGrantContext {
		return invalid("constraint of %d bytes, at most %d", size, maxGrantContext)
	}
	folded := make(map[string]bool, len(g.context))
	g.pairs = make([]pair, 0, len(g.context))
	for name, value := range g.context {
		f := fold(name)
		if folded[f] {
			return invalid("constraint has %q twice, but for case", shorten(name))
		}
		folded[f] = true
		g.pairs = append(g.pairs, pair{f, value})
	}
	return nil
}

// fold maps names that differ only in case to one. Names that are not UTF-8 stay as
// they are: folding would make one name of all that differ in invalid bytes.
func fold(name string) string {
	if !utf8.ValidString(name) {
		return name
	}
	return strings.ToLower(strings.ToUpper(name))
}

// matches reports whether the constraint holds for an encryption context of size pairs:
// names without regard to case, values with it.
func (g *grant) matches(folded map[pair]bool, size int) bool {
	if g.constraint == contextEquals && len(g.pairs) != size {
		return false
	}
	for _, p := range g.pairs {
		if !folded[p] {
			return false
		}
	}
	return true
}

// hasGrant reports whether a grant lets p do op.
func (k *key) hasGrant(p kms.Principal, op kms.Operation, ec kms.Context) bool {
	grants := k.grantsTo[p.ID]
	if len(grants) == 0 {
		return false
	}
	folded := make(map[pair]bool, len(ec))
	for name, value := range ec {
		folded[pair{fold(name), value}] = true
	}
	for _, g := range grants {
		if g.operations.has(op) && (!takesContext(op) || g.matches(folded, len(ec))) {
			return true
		}
	}
	return false
}

// Grant describes a grant.
type Grant struct {
	ID                string          `json:"id"`
	Name              string          `json:"name,omitempty"`
	KeyID             string          `json:"keyId"` // ARN
	Created           time.Time       `json:"created"`
	Grantee           string          `json:"grantee"`
	RetiringPrincipal string          `json:"retiringPrincipal,omitempty"`
	Operations        []kms.Operation `json:"operations"`
	ContextEquals     kms.Context     `json:"contextEquals,omitempty"`
	ContextSubset     kms.Context     `json:"contextSubset,omitempty"`
}

func (g *grant) info(k *key) *Grant {
	i := &Grant{
		ID: hex.EncodeToString(g.id[:]), Name: g.name, KeyID: k.arn, Created: date(g.created),
		Grantee: g.grantee, RetiringPrincipal: g.retiring, Operations: g.operations.list(),
	}
	switch g.constraint {
	case contextEquals:
		i.ContextEquals = maps.Clone(g.context)
	case contextSubset:
		i.ContextSubset = maps.Clone(g.context)
	}
	return i
}

// equal reports whether two grants give the same.
func (g *grant) equal(other *grant) bool {
	return g.name == other.name && g.grantee == other.grantee && g.retiring == other.retiring &&
		g.operations == other.operations && g.constraint == other.constraint && maps.Equal(g.context, other.context)
}

// CreateGrantInput is what [Client.CreateGrant] takes.
type CreateGrantInput struct {
	// Grantee is the ID of the principal that may use the key.
	Grantee string

	// Operations are what the grantee may do, at least one: uses of the key,
	// [OpDescribeKey], and [OpRetireGrant].
	Operations []kms.Operation

	// ContextEquals limits uses to encryption contexts with exactly these pairs,
	// ContextSubset to contexts that include them. The case of names does not matter,
	// that of values does. Set one of them at most.
	ContextEquals, ContextSubset kms.Context

	// RetiringPrincipal is the ID of a principal that may retire the grant.
	RetiringPrincipal string

	// Name makes it safe to repeat the call: if the key has an equal grant of that
	// name, CreateGrant returns it. A different one is [ErrAlreadyExists].
	Name string
}

// CreateGrant permits a principal to use the key, without a change of the key's
// policy. What a policy forbids stays forbidden.
func (c *Client) CreateGrant(ctx context.Context, keyID string, in *CreateGrantInput) (*Grant, error) {
	if in == nil {
		in = new(CreateGrantInput)
	}
	var result *Grant
	err := c.change(ctx, opCreateGrant, keyID, func(d *draft, k *key) error {
		g := &grant{created: d.now, name: in.Name, grantee: in.Grantee, retiring: in.RetiringPrincipal}
		var err error
		if g.operations, err = newOperationSet(in.Operations); err != nil {
			return err
		}
		switch {
		case len(in.ContextEquals) > 0 && len(in.ContextSubset) > 0:
			return invalid("grant with two constraints")
		case len(in.ContextEquals) > 0:
			g.constraint, g.context = contextEquals, maps.Clone(in.ContextEquals)
		case len(in.ContextSubset) > 0:
			g.constraint, g.context = contextSubset, maps.Clone(in.ContextSubset)
		}
		if err := g.prepare(); err != nil {
			return err
		}
		for _, old := range k.grants {
			if g.name != "" && old.name == g.name {
				if !old.equal(g) {
					return fmt.Errorf("%w: grant %q gives something else", ErrAlreadyExists, g.name)
				}
				result = old.info(k)
				return nil
			}
		}
		if len(k.grants) >= maxGrants {
			return fmt.Errorf("%w: %s has %d grants", ErrLimit, k.arn, len(k.grants))
		}
		rand.Read(g.id[:]) // never fails: it ends the program instead
		d.edit(k, func(k *key) { k.grants = append(slices.Clip(k.grants), g) })
		result = g.info(k)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return result, nil
}

// ListGrants returns the grants of one key, oldest first. The list needs no pages:
// [Client.CreateGrant] stops at 1000.
func (c *Client) ListGrants(ctx context.Context, keyID string) ([]*Grant, error) {
	return view(ctx, c, opListGrants, keyID, func(k *key) (grants []*Grant) {
		for _, g := range k.grants {
			grants = append(grants, g.info(k))
		}
		return grants
	})
}

// RevokeGrant removes a grant. It is for administrators of the key.
func (c *Client) RevokeGrant(ctx context.Context, keyID, grantID string) error {
	return c.change(kms.WithResource(ctx, shorten(grantID)), OpRevokeGrant, keyID, func(d *draft, k *key) error {
		return d.removeGrant(k, grantID)
	})
}

// RetireGrant removes a grant. It is for the grant's retiring principal, and for
// its grantee if the grant permits [OpRetireGrant]. Neither needs another
// permission, but a policy can forbid it. Everyone else gets [kms.ErrDenied], even
// if there is no such grant.
func (c *Client) RetireGrant(ctx context.Context, keyID, grantID string) error {
	p := kms.PrincipalFrom(ctx)
	allow := func(k *key) error {
		_, g := k.findGrant(grantID)
		named := g != nil && p.ID != "" && (p.ID == g.retiring || p.ID == g.grantee && g.operations.has(OpRetireGrant))
		switch {
		case named && !c.forbids(ctx, OpRetireGrant, k):
			return nil
		case k.account != c.account:
			return deniedElsewhere(ctx)
		default:
			return fmt.Errorf("%w: %q may not retire that grant", kms.ErrDenied, shorten(p.ID))
		}
	}
	return c.changeIf(kms.WithResource(ctx, shorten(grantID)), OpRetireGrant, keyID, allow, func(d *draft, k *key) error {
		return d.removeGrant(k, grantID)
	})
}

func (k *key) findGrant(id string) (int, *grant) {
	for i, g := range k.grants {
		if hex.EncodeToString(g.id[:]) == id {
			return i, g
		}
	}
	return -1, nil
}

func (d *draft) removeGrant(k *key, id string) error {
	i, g := k.findGrant(id)
	if g == nil {
		return fmt.Errorf("%w: grant %q of %s", kms.ErrNotFound, shorten(id), k.arn)
	}
	takeBack(d, g)
	d.edit(k, func(k *key) { k.grants = slices.Concat(k.grants[:i], k.grants[i+1:]) })
	return nil
}
