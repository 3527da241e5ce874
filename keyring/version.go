package keyring

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// State tells what a version may be used for.
type State string

// The states of a version.
const (
	Enabled   State = "enabled"   // opens what it sealed; the primary also seals
	Disabled  State = "disabled"  // refused until it is enabled again
	Destroyed State = "destroyed" // its key bytes were erased for ever
)

// stateCodes are the states by their number in a document.
var stateCodes = [...]State{1: Enabled, 2: Disabled, 3: Destroyed}

func (s State) valid() bool { return slices.Contains(stateCodes[1:], s) }

// code returns the state's number in a document.
func (s State) code() uint8 { return uint8(slices.Index(stateCodes[:], s)) }

// stateOf returns the state with that number, or an invalid one.
func stateOf(code uint8) State {
	if code == 0 || int(code) >= len(stateCodes) {
		return State(fmt.Sprintf("state %d", code))
	}
	return stateCodes[code]
}

// Version describes one version of a ring. It holds nothing secret.
type Version struct {
	ID      string    `json:"id"`
	State   State     `json:"state"`
	Primary bool      `json:"primary"` // the version that seals new data keys
	Created time.Time `json:"created"` // UTC, whole milliseconds
	Changed time.Time `json:"changed"` // when State was last set; Created at first
}

// ringID is the random name of a ring.
type ringID [8]byte

func (r ringID) String() string { return hex.EncodeToString(r[:]) }

// keyID returns the id of a ring's version.
func keyID(ring ringID, version uint32) string { return fmt.Sprintf("%v.%08x", ring, version) }

// parseKeyID is the inverse of keyID. It accepts no other spelling.
func parseKeyID(id string) (ring ringID, version uint32, err error) {
	ringPart, versionPart, _ := strings.Cut(id, ".")
	b, _ := hex.DecodeString(ringPart)
	n, _ := strconv.ParseUint(versionPart, 16, 32)
	copy(ring[:], b)
	if keyID(ring, uint32(n)) != id {
		return ring, 0, fmt.Errorf("%w: not a key id", ErrUnknownKey)
	}
	return ring, uint32(n), nil
}
