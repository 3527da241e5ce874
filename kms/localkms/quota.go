package localkms

import (
	"cmp"
	"fmt"
)

// Quota bounds what one account may hold, in all regions together, so that it
// cannot fill the document for the others. A zero field means its default; a
// service whose store takes little, such as etcd, sets lower ones.
type Quota struct {
	Keys     int // default keys and keys pending deletion included; 10,000 by default
	Grants   int // of all keys together; 10,000 by default
	Policies int // of keys, each counted once however many keys have it; 1,000 by default
}

func (q *Quota) check() error {
	if min(q.Keys, q.Grants, q.Policies) < 0 {
		return invalid("negative quota")
	}
	q.Keys, q.Grants, q.Policies = cmp.Or(q.Keys, 10000), cmp.Or(q.Grants, 10000), cmp.Or(q.Policies, 1000)
	return nil
}

// usage returns what an account holds.
func (c *contents) usage(account string) (used Quota) {
	policies := make(map[string]bool)
	for _, k := range c.keys {
		if k.account == account {
			used.Keys++
			used.Grants += len(k.grants)
			for _, one := range k.policies {
				policies[one.policy.text] = true
			}
		}
	}
	used.Policies = len(policies)
	return used
}

// checkQuota refuses a change of an account's contents that exceeds its quota. A
// change that adds nothing is not refused, even if the account is above a quota
// that was lowered.
func (s *Service) checkQuota(before, after *contents, account string) error {
	is, limit := after.usage(account), s.opts.Quota
	if is.Keys <= limit.Keys && is.Grants <= limit.Grants && is.Policies <= limit.Policies {
		return nil
	}
	was := before.usage(account)
	check := func(what string, was, is, limit int) error {
		if is > limit && is > was {
			return fmt.Errorf("%w: account %s may have %d %s (delete some, or raise Options.Quota)", ErrLimit, account, limit, what)
		}
		return nil
	}
	return cmp.Or(check("keys", was.Keys, is.Keys, limit.Keys),
		check("grants", was.Grants, is.Grants, limit.Grants),
		check("policies", was.Policies, is.Policies, limit.Policies))
}
