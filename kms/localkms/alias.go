package localkms

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/blobseal/blobseal/kms"
)

const (
	// reservedAliasPrefix begins the aliases that belong to the service.
	reservedAliasPrefix = "alias/blobseal/"

	// DefaultAlias names the default key of an account in a region. The first use
	// makes the key, once, even if many processes use the alias at the same time.
	DefaultAlias = "alias/blobseal/default"
)

// Alias describes an alias: another name of a key of its account and region.
type Alias struct {
	Name    string    `json:"name"` // with "alias/"
	ARN     string    `json:"arn"`  // "arn:blobseal:kms:REGION:ACCOUNT:alias/NAME"
	KeyID   string    `json:"keyId"`
	Created time.Time `json:"created"`
	Updated time.Time `json:"updated"` // when the alias was last pointed at a key
}

func (a alias) info(name aliasName) *Alias {
	return &Alias{
		Name: name.name, ARN: name.arn(), KeyID: a.key.String(),
		Created: date(a.created), Updated: date(a.updated),
	}
}

func reserved(what string) error { return fmt.Errorf("%w: %s", ErrReserved, what) }

// ownAlias returns the full name of an alias that callers of the client may change.
// name may be an ARN.
func (c *Client) ownAlias(name string) (aliasName, error) {
	t, err := c.target(name)
	switch {
	case errors.Is(err, kms.ErrNotFound), err == nil && t.alias == "":
		return aliasName{}, checkAlias(name)
	case err != nil:
		return aliasName{}, err
	case t.scope != c.scope:
		return aliasName{}, invalid("alias %q is not of account %s in region %s", shorten(name), c.account, c.region)
	case strings.HasPrefix(t.alias, reservedAliasPrefix):
		return aliasName{}, reserved("aliases that begin with " + reservedAliasPrefix)
	}
	return aliasName{scope: t.scope, name: t.alias}, nil
}

// changeAlias performs a change whose record names the alias as its resource.
func (c *Client) changeAlias(ctx context.Context, op kms.Operation, name, keyID string, edit func(*draft, aliasName, *key) error) error {
	full, err := c.ownAlias(name)
	if err != nil {
		return c.service.begin(kms.WithResource(ctx, cut(name, maxName)), op, keyID, nil).finish(err)
	}
	ctx = kms.WithResource(ctx, full.arn())
	return c.change(ctx, op, keyID, func(d *draft, k *key) error {
		if k.scope != full.scope {
			return invalid("%s is of another account or region than the alias", k.arn)
		}
		return edit(d, full, k)
	})
}

// CreateAlias gives the key another name, which begins with "alias/". A name in use
// is [ErrAlreadyExists], and one that begins with alias/blobseal/ is [ErrReserved].
// The key must be of the client's account and region, and not pending deletion.
func (c *Client) CreateAlias(ctx context.Context, name, keyID string) error {
	return c.changeAlias(ctx, opCreateAlias, name, keyID, func(d *draft, full aliasName, k *key) error {
		if c.service.findAlias(&d.contents, full) != nil {
			return fmt.Errorf("%w: %s", ErrAlreadyExists, full.name)
		}
		d.putAlias(full, alias{key: k.id, created: d.now, updated: d.now})
		return nil
	})
}

// UpdateAlias points an alias at another key. The principal needs permission for
// both keys.
func (c *Client) UpdateAlias(ctx context.Context, name, keyID string) error {
	return c.changeAlias(ctx, OpUpdateAlias, name, keyID, func(d *draft, full aliasName, k *key) error {
		former := c.service.findAlias(&d.contents, full)
		if former == nil {
			return fmt.Errorf("%w: alias %q", kms.ErrNotFound, shorten(name))
		}
		if err := c.authorize(ctx, OpUpdateAlias, former, nil); err != nil {
			return err
		}
		d.putAlias(full, alias{key: k.id, created: d.aliases[full][0].created, updated: d.now})
		return nil
	})
}

// DeleteAlias removes an alias; the key stays. The principal needs permission for
// the key.
func (c *Client) DeleteAlias(ctx context.Context, name string) error {
	return c.changeAlias(ctx, opDeleteAlias, name, name, func(d *draft, full aliasName, _ *key) error {
		d.removeAlias(full)
		return nil
	})
}

// ListAliases returns the aliases of the client's account and region, in order of
// their names, as [Client.ListKeys] does. With a keyID it returns those of that
// key alone.
func (c *Client) ListAliases(ctx context.Context, keyID string) iter.Seq2[*Alias, error] {
	return func(yield func(*Alias, error) bool) {
		o := c.service.begin(ctx, opListAliases, keyID, nil)
		aliases, err := c.listAliases(o)
		if err := o.finish(err); err != nil {
			yield(nil, err)
			return
		}
		for _, a := range aliases {
			if !yield(a, nil) {
				return
			}
		}
	}
}

func (c *Client) listAliases(o *call) ([]*Alias, error) {
	var only *key
	if o.requested != "" {
		k, err := c.lookup(o.ctx, o.requested)
		if err != nil {
			return nil, err
		}
		o.report.KeyID = k.arn
		only = k
	}
	snap, err := c.service.freshSnapshot(o.ctx)
	if err != nil {
		return nil, err
	}
	if err := c.authorizeAccount(o.ctx, o.op); err != nil {
		return nil, err
	}
	var aliases []*Alias
	for name, all := range snap.aliases {
		a := all[0]
		if k := snap.keys[a.key]; name.scope == c.scope && (only == nil || a.key == only.id) && !c.service.isGone(k) {
			aliases = append(aliases, a.info(name))
		}
	}
	slices.SortFunc(aliases, func(a, b *Alias) int { return cmp.Compare(a.Name, b.Name) })
	return aliases, nil
}

// createDefault makes the client's default key after a lookup of name failed with
// cause, if name is the default alias and the principal in ctx may do op with the
// key. Otherwise it returns cause.
func (c *Client) createDefault(ctx context.Context, op kms.Operation, name string, ec kms.Context, cause error) (*key, error) {
	if !errors.Is(cause, kms.ErrNotFound) {
		return nil, cause
	}
	if t, err := c.target(name); err != nil || t.alias != DefaultAlias || t.scope != c.scope {
		return nil, cause
	}
	made, err := c.newKey(&CreateKeyInput{Description: "default key", RotationDays: defaultRotationDays})
	if err != nil {
		return nil, err
	}
	made.isDefault = true
	o := c.service.begin(kms.WithReport(ctx, new(kms.Report)), opCreateKey, name, nil)
	full := aliasName{scope: c.scope, name: DefaultAlias}
	var k *key
	err = o.update(func(d *draft) error {
		if k = d.find(target{scope: c.scope, alias: DefaultAlias}); k != nil {
			o.unchanged = true // another process made it
			return nil
		}
		k = made
		d.add(k)
		d.putAlias(full, alias{key: k.id, created: d.now, updated: d.now})
		o.report.KeyID = k.arn
		return c.authorize(o.ctx, op, k, ec)
	})
	switch {
	case err == nil && o.unchanged && o.recorded != nil: // another process was first
		return k, o.retract(fmt.Errorf("%w: %s", ErrAlreadyExists, DefaultAlias))
	case err == nil && o.unchanged:
		return k, nil
	case o.recorded == nil && errors.Is(err, kms.ErrDenied): // the operation itself records that
		return nil, err
	}
	return k, o.finish(err)
}
