package azurekms

import (
	"regexp"
	"strings"
)

// keyID is the parsed id of a key.
type keyID struct {
	vault   string // the host, in lower case; empty for the client's own
	name    string
	version string // empty for the newest
}

var (
	identifier = regexp.MustCompile(`^(?:https://([0-9A-Za-z.-]+(?::[0-9]+)?)/keys/)?([0-9A-Za-z-]{1,127})(?:/([0-9A-Za-z]{1,64}))?$`)
	vaultURL   = regexp.MustCompile(`^https://([0-9A-Za-z.-]+(?::[0-9]+)?)/?$`)
)

// parseKeyID returns false for anything but the id of a key. Ids that it accepts are
// safe in the path of a request.
func parseKeyID(s string) (keyID, bool) {
	parts := identifier.FindStringSubmatch(s)
	if parts == nil {
		return keyID{}, false
	}
	return keyID{strings.ToLower(parts[1]), parts[2], parts[3]}, true
}

// String is for errors.
func (id keyID) String() string {
	s := id.name
	if id.version != "" {
		s += "/" + id.version
	}
	if id.vault != "" {
		s = "https://" + id.vault + "/keys/" + s
	}
	return s
}

// matches reports whether answered is the key that id asks for. Azure compares names
// and versions without regard to case.
func (id keyID) matches(answered keyID) bool {
	return strings.EqualFold(id.name, answered.name) &&
		(id.version == "" || strings.EqualFold(id.version, answered.version)) && answered.version != ""
}
