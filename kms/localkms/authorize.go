package localkms

import (
	"context"
	"fmt"

	"github.com/blobseal/blobseal/kms"
)

// authorize reports whether the principal in ctx may do op with k now; k's state
// is not looked at. The order is that of the package documentation.
func (c *Client) authorize(ctx context.Context, op kms.Operation, k *key, ec kms.Context) error {
	p := kms.PrincipalFrom(ctx)
	deny := func(why string) error {
		if k.account != c.account {
			return deniedElsewhere(ctx)
		}
		return fmt.Errorf("%w: %q may not %s with %s: %s", kms.ErrDenied, shorten(p.ID), op, k.arn, why)
	}
	service := c.service.policy
	if service == nil && len(k.policies) == 0 { // the most frequent case, without a question
		if k.account == c.account || k.granted(p, op, ec) {
			return nil
		}
		return deny("the key is another account's")
	}
	r := newRequest(c, p, op, k.entity, ec)
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
	if allowed || k.granted(p, op, ec) {
		return nil
	}
	return deny("nothing permits it")
}

// deniedElsewhere refuses the principal in ctx a key of another account. It says
// nothing about the key, not even that there is one.
func deniedElsewhere(ctx context.Context) error {
	return fmt.Errorf("%w: the key is of another account, which does not permit %q or has no such key (its owner can put a policy or create a grant)",
		kms.ErrDenied, shorten(kms.PrincipalFrom(ctx).ID))
}

// forbids reports whether a policy forbids op: for what needs no permission.
func (c *Client) forbids(ctx context.Context, op kms.Operation, k *key) bool {
	r := newRequest(c, kms.PrincipalFrom(ctx), op, k.entity, nil)
	return c.service.policy != nil && c.service.policy.decide(r) == forbidden ||
		k.decide(r) == forbidden
}

// authorizeAccount is authorize for operations on the client's account.
func (c *Client) authorizeAccount(ctx context.Context, op kms.Operation) error {
	p := kms.PrincipalFrom(ctx)
	policy := c.service.policy
	if policy == nil || policy.decide(newRequest(c, p, op, newAccountEntity(c.account), nil)) == permitted {
		return nil
	}
	return fmt.Errorf("%w: %q may not %s in account %s: the service's policy does not permit it", kms.ErrDenied, shorten(p.ID), op, c.account)
}

// serves reports whether k's state lets it be used.
func (k *key) serves() error {
	switch k.state {
	case Enabled:
		return nil
	case Disabled:
		return fmt.Errorf("%w: %s", kms.ErrDisabled, k.arn)
	default:
		return fmt.Errorf("%w: %s", kms.ErrPendingDeletion, k.arn)
	}
}

// notDeleting refuses changes of a key that waits to be deleted.
func (k *key) notDeleting() error {
	if k.state == PendingDeletion {
		return fmt.Errorf("%w: %s", kms.ErrPendingDeletion, k.arn)
	}
	return nil
}
