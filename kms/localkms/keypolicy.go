package localkms

import (
	"context"
	"fmt"

	"github.com/blobseal/blobseal/kms"
)

// PutKeyPolicyOptions change what [Client.PutKeyPolicy] does; nil is right for most.
type PutKeyPolicyOptions struct {
	// BypassLockoutCheck sets a policy although it forbids the caller to replace
	// it. If it permits nobody else, no one can administer the key any more.
	BypassLockoutCheck bool
}

// PutKeyPolicy gives the key a policy in Cedar, in place of the one that it may
// have; see the package documentation. From then on, what the policy does not
// permit is denied, but for grants.
//
// A policy that does not parse, or whose heads name principals, actions or
// resources of kinds that the service does not have, is [ErrPolicy]. A policy under which the caller, as who it now is, may not call
// PutKeyPolicy again is [ErrLockout], unless opts say otherwise.
func (c *Client) PutKeyPolicy(ctx context.Context, keyID, policy string, opts *PutKeyPolicyOptions) error {
	return c.change(ctx, OpPutKeyPolicy, keyID, func(d *draft, k *key) error {
		p, err := newPolicy(policy)
		if err != nil {
			return err
		}
		if err := k.notDeleting(); err != nil {
			return err
		}
		next := d.setPolicy(k, p)
		if opts != nil && opts.BypassLockoutCheck {
			return nil
		}
		return c.checkLockout(ctx, next)
	})
}

// checkLockout refuses a key whose policy the caller could not replace.
func (c *Client) checkLockout(ctx context.Context, k *key) error {
	if err := c.authorize(ctx, OpPutKeyPolicy, k, nil); err != nil {
		return fmt.Errorf("%w: under it %q could not put another", ErrLockout, shorten(kms.PrincipalFrom(ctx).ID))
	}
	return nil
}

// KeyPolicy returns the key's policy, as it was put, or "" if it has none. If the
// store failed over while two processes changed the policy, it returns both; both
// apply until PutKeyPolicy or DeleteKeyPolicy replaces them.
func (c *Client) KeyPolicy(ctx context.Context, keyID string) (string, error) {
	var text string
	err := c.view(ctx, OpGetKeyPolicy, keyID, func(k *key) error {
		text = k.policyText()
		return nil
	})
	if err != nil {
		return "", err
	}
	return text, nil
}

// DeleteKeyPolicy takes the key's policy away, so that the service's own decides.
func (c *Client) DeleteKeyPolicy(ctx context.Context, keyID string) error {
	return c.change(ctx, OpDeleteKeyPolicy, keyID, func(d *draft, k *key) error {
		if err := k.notDeleting(); err != nil {
			return err
		}
		if len(k.policies) > 0 {
			d.setPolicy(k, nil)
		}
		return nil
	})
}
