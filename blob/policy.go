package blob

import (
	"fmt"
	"slices"

	"github.com/blobseal/blobseal/sse"
)

// Policy says what may be written to a bucket. It does not limit reads: objects that were
// once allowed stay readable. The zero value allows SSE-S3, and SSE-KMS under any key,
// but no customer keys. No Policy allows unencrypted writes.
type Policy struct {
	// Modes are the modes that writes may use. Empty means SSE-S3 and SSE-KMS.
	Modes []sse.Mode

	// KMSKeys are the keys that SSE-KMS writes may use, by the ids to which the key
	// service resolves them, never by aliases. Empty means any. To read objects of
	// several keys, accept these keys in [sse.KMSOptions] too.
	KMSKeys []string

	// AllowCustomerKeys allows writes in SSE-C. Listing the mode in Modes does too.
	AllowCustomerKeys bool
}

// check returns the rule that decides about a new envelope, and [ErrPolicy] if the rule
// refuses the envelope. An empty keyID means that the key is not known yet.
func (p *Policy) check(mode sse.Mode, keyID string) (Rule, error) {
	named := slices.Contains(p.Modes, mode)
	switch {
	case mode == sse.ModeCustomer:
		if !named && !p.AllowCustomerKeys {
			return RuleCustomerKeys, fmt.Errorf("%w: %v is not allowed", ErrPolicy, mode)
		}
		return RuleCustomerKeys, nil
	case !named && len(p.Modes) > 0:
		return RuleModes, fmt.Errorf("%w: %v is not among the allowed modes", ErrPolicy, mode)
	case mode == sse.ModeKMS && len(p.KMSKeys) > 0:
		if keyID != "" && !slices.Contains(p.KMSKeys, keyID) {
			return RuleKMSKeys, fmt.Errorf("%w: key %q is not among the allowed keys", ErrPolicy, keyID)
		}
		return RuleKMSKeys, nil
	}
	return RuleModes, nil
}

// precheck is check before a key is touched. The envelope tells the key id, so precheck
// does not know it. A cipher without a mode encrypts nothing.
func (p *Policy) precheck(enc sse.Encrypter) (Rule, error) {
	mode := enc.Mode()
	if mode == 0 {
		return RuleModes, nil
	}
	return p.check(mode, "")
}

// validate refuses a policy with an unknown mode.
func (p *Policy) validate() error {
	for _, mode := range p.Modes {
		if _, err := mode.MarshalText(); err != nil {
			return fmt.Errorf("blob: Policy.Modes: %w", err)
		}
	}
	return nil
}
