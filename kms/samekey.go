package kms

import "strings"

// KeyComparer is what a [Client] may implement if its service has more than one
// name for a key. AWS KMS answers a key's UUID with its ARN, and Azure Key Vault
// answers a key's name with the version that it used.
//
// A wrapper around a Client either forwards SameKey or has a method
// Unwrap() Client, through which [SameKey] finds it.
type KeyComparer interface {
	// SameKey reports whether name means the key with this id, without asking the
	// service. name is any name that GenerateDataKey takes. id is what an answer
	// or an envelope calls a key, and may come from an attacker.
	//
	// known is false for an alias. Only the service knows which key an alias means
	// now, and Decrypt by the alias refuses ciphertexts of every other key. A name
	// that the service cannot take means no key: SameKey returns false, true.
	SameKey(name, id string) (same, known bool)
}

// SameKey asks c, or the client that c wraps, whether name means the key with this
// id; see [KeyComparer]. If nothing in c can tell, a name means only the key whose
// id equals it, and an alias means none.
func SameKey(c Client, name, id string) (same, known bool) {
	if comparer, ok := Find[KeyComparer](c); ok {
		return comparer.SameKey(name, id)
	}
	return name == id && !looksLikeAlias(name), true
}

// looksLikeAlias reports whether name is an alias in the form of AWS KMS, which
// package localkms shares.
func looksLikeAlias(name string) bool {
	return strings.HasPrefix(name, "alias/") || strings.Contains(name, ":alias/")
}

// Find returns the first of c, the client that c wraps, and so on, that is a T.
// A wrapper is a [Client] with a method Unwrap() Client.
func Find[T any](c Client) (T, bool) {
	for c != nil {
		if t, ok := c.(T); ok {
			return t, true
		}
		w, ok := c.(interface{ Unwrap() Client })
		if !ok {
			break
		}
		c = w.Unwrap()
	}
	var none T
	return none, false
}
