package jobs

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/blobseal/blobseal/sse"
)

// KeyRef names a key that seals objects: a version of a ring's master key, a key of
// a key service, or customer keys, which have no KeyID.
type KeyRef struct {
	Mode  sse.Mode `json:"mode"`
	KeyID string   `json:"keyId,omitempty"`
}

// String names the mode and the key.
func (k KeyRef) String() string {
	if k.KeyID == "" {
		return k.Mode.String()
	}
	return k.Mode.String() + " " + k.KeyID
}

// keyOf names the key that opens an envelope.
func keyOf(env *sse.Envelope) KeyRef { return KeyRef{env.Mode(), env.KeyID()} }

// compareKeys orders by mode and id.
func compareKeys(x, y KeyRef) int {
	return cmp.Or(cmp.Compare(x.Mode, y.Mode), strings.Compare(x.KeyID, y.KeyID))
}

// versionID is the form of the ids of a ring's versions.
var versionID = regexp.MustCompile(`^[0-9a-f]{16}\.[0-9a-f]{8}$`)

// check refuses what cannot name a key.
func (k KeyRef) check() error {
	switch {
	case k.Mode != sse.ModeManaged && k.Mode != sse.ModeKMS && k.Mode != sse.ModeCustomer:
		return fmt.Errorf("%w: key %q has no mode (set KeyRef.Mode)", sse.ErrInvalid, k.KeyID)
	case (k.KeyID == "") != (k.Mode == sse.ModeCustomer):
		return fmt.Errorf("%w: %v key with id %q", sse.ErrInvalid, k.Mode, k.KeyID)
	case k.Mode == sse.ModeManaged && !versionID.MatchString(k.KeyID):
		return fmt.Errorf("%w: %q is no version of a ring (see Ring.Versions)", sse.ErrInvalid, k.KeyID)
	}
	return checkKeyID(k.KeyID)
}

// checkKeyID refuses an alias.
func checkKeyID(id string) error {
	if strings.HasPrefix(id, "alias/") || strings.Contains(id, ":alias/") {
		return fmt.Errorf("%w: %q is an alias, which envelopes never name (give the key's id; KeyOf tells it)", sse.ErrInvalid, id)
	}
	return nil
}

// names reports whether k names the key of an envelope; see [namesKey].
func (k KeyRef) names(seal KeyRef) bool {
	return k.Mode == seal.Mode && namesKey(k.KeyID, seal.KeyID)
}

// namesKey reports whether name names the key that an envelope calls id. A name without
// slashes and colons, such as a UUID or the name of a key in a vault, names every key
// whose id ends in it. The versions of one key are one key, since deleting a key deletes
// all of them.
func namesKey(name, id string) bool {
	name, id = keyVersion.ReplaceAllString(name, "$1$2"), keyVersion.ReplaceAllString(id, "$1$2")
	return name == id || name != "" && !strings.ContainsAny(name, "/:") && strings.HasSuffix(id, "/"+name)
}

// keyVersion matches ids that name a version of a key, as those of Azure Key Vault and
// Google Cloud KMS do.
var keyVersion = regexp.MustCompile(`^(https://[^/]+/keys/[^/]+)/[^/]+$|^(projects/.+/cryptoKeys/[^/]+)/cryptoKeyVersions/[0-9]+$`)

// Filter chooses objects. The zero Filter chooses all.
type Filter struct {
	Prefix string     `json:"prefix,omitempty"` // of the keys
	Modes  []sse.Mode `json:"modes,omitempty"`  // empty means all
	KeyIDs []string   `json:"keyIds,omitempty"` // empty means all; "" is that of SSE-C; no aliases
}

// check refuses a filter that can choose nothing.
func (f Filter) check() error {
	for _, mode := range f.Modes {
		if mode != sse.ModeManaged && mode != sse.ModeKMS && mode != sse.ModeCustomer {
			return fmt.Errorf("%w: filter with mode %d", sse.ErrInvalid, mode)
		}
	}
	for _, id := range f.KeyIDs {
		if err := checkKeyID(id); err != nil {
			return err
		}
	}
	return nil
}

// narrow reports whether the filter chooses by key, and so leaves out everything
// that is not encrypted.
func (f Filter) narrow() bool { return len(f.Modes) > 0 || len(f.KeyIDs) > 0 }

// chooses reports whether the filter chooses an object under seal, which is zero if the
// object has no envelope.
func (f Filter) chooses(seal KeyRef) bool {
	if seal == (KeyRef{}) {
		return !f.narrow()
	}
	return (len(f.Modes) == 0 || slices.Contains(f.Modes, seal.Mode)) &&
		(len(f.KeyIDs) == 0 || slices.ContainsFunc(f.KeyIDs, func(id string) bool { return namesKey(id, seal.KeyID) }))
}
