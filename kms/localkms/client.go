package localkms

import (
	"context"

	"github.com/blobseal/blobseal/kms"
)

// Client is a [Service] as one account sees it in one region. It is a
// [kms.Client] and a [kms.Authorizer]. All methods are safe for concurrent use.
//
// Methods take a key by its id, its ARN, an alias or an alias's ARN. Ids and
// aliases are those of the client's own account and region; ARNs may be of any. The
// caller is the principal in ctx, see [kms.WithPrincipal]. When a method returns,
// its change is in the store and takes effect for every later call of this Service.
//
// Errors are of type [*kms.KeyError], and their kinds are those of package kms. A caller who names a key of another account gets
// [kms.ErrDenied] whether the key exists or not. After [kms.ErrUnavailable] a change
// may have happened. Permissions are checked before a key's state.
type Client struct {
	service *Service
	scope
}

var (
	_ kms.Client      = (*Client)(nil)
	_ kms.Authorizer  = (*Client)(nil)
	_ kms.KeyComparer = (*Client)(nil)
)

// find returns the key that t names, or nil.
func (c *contents) find(t target) *key {
	id := t.id
	if t.alias != "" {
		all := c.aliases[aliasName{scope: t.scope, name: t.alias}]
		if len(all) == 0 {
			return nil
		}
		id = all[0].key
	}
	if k := c.keys[id]; k != nil && k.scope == t.scope {
		return k
	}
	return nil
}

// find returns the key that t names, or nil if there is none or its deadline has
// passed.
func (s *Service) find(c *contents, t target) *key {
	k := c.find(t)
	if k == nil || s.isGone(k) {
		return nil
	}
	return k
}

// isGone reports whether k's deadline has passed. It remembers that, so that a
// clock that goes back does not revive the key.
func (s *Service) isGone(k *key) bool {
	if k.isPastDeadline(s.now()) {
		s.lost.Store(k.id, k.deadline)
		return true // another document's deadline may take its place meanwhile
	}
	return s.isLost(k)
}

// findAlias returns the key that an alias names, or nil if there is no such alias
// or its key is past its deadline: then the name is free.
func (s *Service) findAlias(c *contents, name aliasName) *key {
	return s.find(c, target{scope: name.scope, alias: name.name})
}

// isLost reports whether k was once seen past its deadline.
func (s *Service) isLost(k *key) bool {
	deadline, found := s.lost.Load(k.id)
	return found && k.state == PendingDeletion && deadline.(int64) == k.deadline
}

// notFound returns the error for a name without a key. A caller that names a key
// of another account gets the same answer as one that may not use it, so that it
// cannot find out which keys and aliases the account has.
func (c *Client) notFound(ctx context.Context, t target) error {
	if t.account != c.account {
		return deniedElsewhere(ctx)
	}
	return kms.ErrNotFound
}

// lookup returns the key that name names, from a fresh snapshot. It loads the
// document if the snapshot does not have the key.
func (c *Client) lookup(ctx context.Context, name string) (*key, error) {
	snap, err := c.service.freshSnapshot(ctx)
	if err != nil {
		return nil, err
	}
	t, err := c.target(name)
	if err != nil {
		return nil, err
	}
	k := c.service.find(&snap.contents, t)
	if k == nil {
		snap, err = c.service.loadFor(ctx, name, func(snap *snapshot) bool { return c.service.find(&snap.contents, t) != nil })
		if err != nil {
			return nil, err
		}
		k = c.service.find(&snap.contents, t)
	}
	if k == nil {
		return nil, c.notFound(ctx, t)
	}
	return k, nil
}

// lookupPermitted returns the key that name names, if the principal in ctx may do op with it.
// With create, it makes the default key.
func (c *Client) lookupPermitted(ctx context.Context, op kms.Operation, name string, ec kms.Context, create bool) (*key, error) {
	k, err := c.lookup(ctx, name)
	if err != nil && create {
		k, err = c.createDefault(ctx, op, name, ec, err)
	}
	if err != nil {
		return nil, err
	}
	kms.ReportFrom(ctx).KeyID = k.arn
	if err := c.authorize(ctx, op, k, ec); err != nil {
		return nil, err
	}
	return k, nil
}
