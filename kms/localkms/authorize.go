package localkms

import (
	"context"
	"fmt"

	"github.com/blobseal/blobseal/kms"
)

// authorize returns nil if the principal in ctx may do op with k, in the order of
// the package documentation. It does not look at k's state.
func (c *Client) authorize(ctx context.Context, op kms.Operation, k *key, ec kms.Context) error {
	p := kms.PrincipalFrom(ctx)
	deny := func(why string) error {
		if k.account != c.account {
			return deniedElsewhere(ctx)
		}
		return fmt.Errorf("%w: %q may not %s with %s: %s", kms.ErrDenied, shorten(p.ID), op, k.arn, why)
	}
	service := c.service.policy
	if service == nil && len(k.policies) == 0 { // the usual case needs no policy engine
		if k.account == c.account || k.hasGrant(p, op, ec) {
			return nil
		}
		return deny("the key is another account's")
	}
	r := newRequest(c, p, op, k, ec)
	allowed := false
	if service != nil {
		switch service.decide(r) {
		case forbidden:
			return deny("the service's policy forbids it")
		case permitted:
			allowed = k.account == c.account
		}
	}
	if len(k.policies) > 0 {
		switch k.decide(r) {
		case forbidden:
			return deny("the key's policy forbids it")
		case permitted:
			return nil
		}
		allowed = false // the key's own policy permits in place of the service's
	}
	if allowed || k.hasGrant(p, op, ec) {
		return nil
	}
	return deny("nothing permits it")
}

// deniedElsewhere returns the refusal of a key of another account. It does not
// reveal whether the key exists.
func deniedElsewhere(ctx context.Context) error {
	return fmt.Errorf("%w: the key is of another account, which does not permit %q or has no such key (its owner can put a policy or create a grant)",
		kms.ErrDenied, shorten(kms.PrincipalFrom(ctx).ID))
}

// forbids reports whether a policy forbids an operation that needs no permission.
func (c *Client) forbids(ctx context.Context, op kms.Operation, k *key) bool {
	r := newRequest(c, kms.PrincipalFrom(ctx), op, k, nil)
	return c.service.policy != nil && c.service.policy.decide(r) == forbidden ||
		k.decide(r) == forbidden
}

// authorizeAccount is authorize for operations on the client's account.
func (c *Client) authorizeAccount(ctx context.Context, op kms.Operation) error {
	p := kms.PrincipalFrom(ctx)
	policy := c.service.policy
	if policy == nil || policy.decide(newRequest(c, p, op, nil, nil)) == permitted {
		return nil
	}
	return fmt.Errorf("%w: %q may not %s in account %s: the service's policy does not permit it", kms.ErrDenied, shorten(p.ID), op, c.account)
}

// checkUsable returns an error if k's state does not allow its use.
func (k *key) checkUsable() error {
	switch k.state {
	case Enabled:
		return nil
	case Disabled:
		return fmt.Errorf("%w: %s", kms.ErrDisabled, k.arn)
	default:
		return fmt.Errorf("%w: %s", kms.ErrPendingDeletion, k.arn)
	}
}
