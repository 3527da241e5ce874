package awskms

import (
	"strings"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/aws/arn"
)

const (
	keyResource   = "key/"
	multiRegion   = "mrk-"
	aliasResource = "alias/"
)

// SameKey implements [kms.KeyComparer]. A key id and a key ARN with that id mean
// one key, and so do the ARNs of a multi-Region key in two regions: both have the
// same key material. AWS KMS resolves aliases when they are used.
func (c *Client) SameKey(name, id string) (same, known bool) {
	if name == "" || !utf8.ValidString(name) {
		return false, true
	}
	if name == id {
		return true, true
	}
	if isAlias(name) {
		return false, false
	}
	b, ok := parseKeyARN(id)
	if !ok {
		return false, true
	}
	a, ok := parseKeyARN(name)
	if !ok {
		return keyResource+name == b.Resource, true
	}
	if strings.HasPrefix(a.Resource, keyResource+multiRegion) {
		a.Region = b.Region
	}
	return a == b, true
}

// isAlias reports whether name is an alias or the ARN of one.
func isAlias(name string) bool {
	if a, err := arn.Parse(name); err == nil {
		name = a.Resource
	}
	return strings.HasPrefix(name, aliasResource)
}

// parseKeyARN parses the ARN of a key, and refuses that of an alias.
func parseKeyARN(s string) (arn.ARN, bool) {
	a, err := arn.Parse(s)
	return a, err == nil && a.Service == "kms" && len(a.Resource) > len(keyResource) && strings.HasPrefix(a.Resource, keyResource)
}

// canAnswer reports whether the key with the ARN answered can be the one that asked
// names. An alias can name any key of its account and region.
func canAnswer(asked, answered string) bool {
	key, ok := parseKeyARN(answered)
	if !ok {
		return false
	}
	if strings.HasPrefix(asked, aliasResource) {
		return true
	}
	a, err := arn.Parse(asked)
	switch {
	case err != nil:
		return key.Resource == keyResource+asked
	case strings.HasPrefix(a.Resource, aliasResource):
		return a.Partition == key.Partition && a.Region == key.Region && a.AccountID == key.AccountID
	default:
		return asked == answered
	}
}
