package localkms

import (
	"context"
	"fmt"

	"github.com/blobseal/blobseal/kms"
)

// PutKeyPolicyOptions are the options of [Client.PutKeyPolicy].
type PutKeyPolicyOptions struct {
	// BypassLockoutCheck accepts a policy that forbids the caller to replace it. If it
	// permits nobody else, nobody can administer the key any more.
	BypassLockoutCheck bool
}

// PutKeyPolicy sets the key's policy, in Cedar; see the package documentation. From
// then on, what neither the policy nor a grant permits is denied.
//
// A policy that does not parse, or that names principals, actions or resources of
// unknown kinds, is [ErrPolicy]. A policy that does not permit the caller to call
// PutKeyPolicy again is [ErrLockout], unless opts say otherwise.
func (c *Client) PutKeyPolicy(ctx context.Context, keyID, policy string, opts *PutKeyPolicyOptions) error {
	return c.change(ctx, opPutKeyPolicy, keyID, func(d *draft, k *key) error {
		p, err := newPolicy(policy)
		if err != nil {
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
	if err := c.authorize(ctx, opPutKeyPolicy, k, nil); err != nil {
		return fmt.Errorf("%w: %q could not replace it (permit PutKeyPolicy)", ErrLockout, shorten(kms.PrincipalFrom(ctx).ID))
	}
	return nil
}

// KeyPolicy returns the text of the key's policy, or "" if it has none. If the
// store failed over while two processes changed the policy, the text is both
// policies; both apply until PutKeyPolicy or DeleteKeyPolicy replaces them.
func (c *Client) KeyPolicy(ctx context.Context, keyID string) (string, error) {
	return view(ctx, c, opGetKeyPolicy, keyID, (*key).policyText)
}

// DeleteKeyPolicy removes the key's policy, so that the service's policy decides.
func (c *Client) DeleteKeyPolicy(ctx context.Context, keyID string) error {
	return c.change(ctx, opDeleteKeyPolicy, keyID, func(d *draft, k *key) error {
		if len(k.policies) > 0 {
			d.setPolicy(k, nil)
		}
		return nil
	})
}
