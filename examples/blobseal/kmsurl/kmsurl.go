// Package kmsurl opens the keys of key services by URL. The scheme names the service, and
// the rest the key, in the service's own words:
//
//	awskms:///alias/rings?region=eu-west-1
//	gcpkms://projects/P/locations/L/keyRings/R/cryptoKeys/KEY
//	azurekeyvault://NAME.vault.azure.net/keys/KEY
//	hashivault://KEY
//
// Address and credentials come from where the vendor's own tools take them, usually the
// environment. With the build tag noclouds the package has no vendor's client.
package kmsurl

import (
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/blobseal/blobseal/kms"
)

// Schemes. The vendors' are those of Go CDK (gocloud.dev/secrets).
const (
	awsScheme    = "awskms"
	googleScheme = "gcpkms"
	azureScheme  = "azurekeyvault"
	vaultScheme  = "hashivault"

	Local = "localkms" // a key service in a directory
)

const schemes = "awskms://, gcpkms://, azurekeyvault://, hashivault:// or localkms://"

// URL is the URL of a key.
type URL struct {
	Scheme string
	Key    string            // what follows the scheme; for Local the directory
	params map[string]string // by name; only those that were given
}

// Param returns the value of a parameter, or "".
func (u *URL) Param(name string) string { return u.params[name] }

// shape describes the URLs of a scheme: their form in words, a pattern for the key,
// and the parameters.
func shape(scheme string) (form, pattern string, params []string) {
	switch scheme {
	case awsScheme:
		return "awskms:///KEY, where KEY is an id, an ARN, an alias/NAME or an alias' ARN", `.+`, []string{"region", "profile"}
	case googleScheme:
		return "gcpkms://projects/P/locations/L/keyRings/R/cryptoKeys/KEY", `projects/[^/]+/locations/[^/]+/keyRings/[^/]+/cryptoKeys/[^/]+`, nil
	case azureScheme:
		return "azurekeyvault://NAME.vault.azure.net/keys/KEY", `[0-9A-Za-z.-]+(:[0-9]+)?/keys/[0-9A-Za-z-]+(/[0-9A-Za-z]+)?`, []string{"algorithm"}
	case vaultScheme:
		return "hashivault://KEY, or hashivault://MOUNT/keys/KEY", `([^?#]+/keys/)?[\w.-]+`, nil
	case Local:
		return "localkms://DIR?key=KEY", `.+`, []string{"key"}
	}
	return "", "", nil
}

// Parse parses the URL that a flag names, without asking the service. Errors begin with the
// name of the flag.
func Parse(flag, text string) (*URL, error) {
	scheme, rest, found := strings.Cut(text, "://") // url.Parse would take part of an ARN for a bad port
	if !found {
		return nil, fmt.Errorf("%s %q: want a URL: %s", flag, text, schemes)
	}
	form, pattern, params := shape(scheme)
	if form == "" {
		return nil, fmt.Errorf("%s: %s:// is unknown; want %s", flag, scheme, schemes)
	}
	if !hasVendors && scheme != Local {
		return nil, fmt.Errorf("%s: %s:// is not in this build, which has no clouds (install blobseal without the tag noclouds)", flag, scheme)
	}
	rest, query, _ := strings.Cut(rest, "?")
	key, err := url.PathUnescape(rest)
	if scheme == awsScheme {
		key = strings.TrimPrefix(key, "/")
	}
	if err != nil || !regexp.MustCompile(`^`+pattern+`$`).MatchString(key) {
		return nil, fmt.Errorf("%s %q: want %s", flag, text, form)
	}
	u := &URL{Scheme: scheme, Key: key, params: map[string]string{}}
	values, err := url.ParseQuery(query)
	if err != nil {
		return nil, fmt.Errorf("%s %q: %v", flag, text, err)
	}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if !slices.Contains(params, name) {
			return nil, fmt.Errorf("%s: %s:// has no parameter %q", flag, scheme, name)
		}
		if len(values[name]) > 1 || values[name][0] == "" {
			return nil, fmt.Errorf("%s: parameter %q: give one value", flag, name)
		}
		u.params[name] = values[name][0]
	}
	return u, nil
}

// String returns the URL without its parameters, for messages.
func (u *URL) String() string {
	if u.Scheme == awsScheme {
		return u.Scheme + ":///" + u.Key
	}
	return u.Scheme + "://" + u.Key
}

// Key is an open key of a key service.
type Key struct {
	Client kms.Client
	ID     string

	// Hint says why the service may refuse to be asked, or is empty.
	Hint string

	close func() error
}

// Close ends the connections of the client.
func (k *Key) Close() error {
	if k.close == nil {
		return nil
	}
	return k.close()
}
