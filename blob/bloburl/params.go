package bloburl

import (
	"fmt"
	"maps"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/blobseal/blobseal/sse"
)

// known are the parameters of this package.
var known = []string{
	"allow_plain", "customer_key_file", "envelope_size", "kms_key", "mode", "name",
	"passphrase_file", "ring", "root_key_file", "root_kms_key",
}

// Groups of which a URL that names one hides the environment's others.
var (
	keyParams  = []string{"ring", "kms_key", "customer_key_file"}
	rootParams = []string{"root_key_file", "passphrase_file", "root_kms_key"}
)

// secrets are parameters that would hold a secret, and what to use instead.
var secrets = map[string]string{
	"passphrase": "passphrase_file, or set BLOBSEAL_PASSPHRASE", "password": "passphrase_file, or set BLOBSEAL_PASSPHRASE",
	"root_key": "root_key_file", "customer_key": "customer_key_file", "secret": "a file", "secret_key": "the environment",
	"access_key": "the environment", "token": "the environment", "sas": "the environment",
}

// params are the parameters of a URL and of the environment.
type params map[string]string

// parseParams returns our parameters of a URL, completed by the environment, and those of
// the store's driver.
func parseParams(u *url.URL) (ours params, theirs url.Values, err error) {
	if _, has := u.User.Password(); has {
		return nil, nil, fmt.Errorf("%w: the URL holds a password (use the environment of the store's client)", sse.ErrInvalid)
	}
	values, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: the URL's parameters cannot be parsed", sse.ErrInvalid)
	}
	ours, theirs = params{}, url.Values{}
	for name, list := range values {
		plain := strings.ReplaceAll(strings.ToLower(name), "-", "_")
		switch {
		case secrets[plain] != "":
			return nil, nil, fmt.Errorf("%w: parameter %q would hold a secret, and URLs are logged (use %s)", sse.ErrInvalid, name, secrets[plain])
		case name == "prefix" || name == "key":
			return nil, nil, fmt.Errorf("%w: parameter %q: open the URL with gocloud's mux, which knows it", sse.ErrInvalid, name)
		case !slices.Contains(known, name):
			theirs[name] = list
		case len(list) > 1 || list[0] == "":
			return nil, nil, fmt.Errorf("%w: parameter %q: give one value", sse.ErrInvalid, name)
		default:
			ours[name] = list[0]
		}
	}
	all := maps.Clone(ours)
	for _, name := range known {
		hidden := slices.Contains(keyParams, name) && ours.any(keyParams) || slices.Contains(rootParams, name) && ours.any(rootParams)
		if value := os.Getenv(variable(name)); value != "" && ours[name] == "" && !hidden {
			all[name] = value
		}
	}
	return all, theirs, nil
}

// variable is the environment variable of a parameter.
func variable(name string) string { return "BLOBSEAL_" + strings.ToUpper(name) }

func (p params) any(names []string) bool {
	return slices.ContainsFunc(names, func(name string) bool { return p[name] != "" })
}
