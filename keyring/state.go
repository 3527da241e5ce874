package keyring

import (
	"fmt"
	"time"
)

// State tells what a version may be used for.
type State uint8

// The states of a version. The numbers are those of the document.
const (
	Enabled   State = 1 // opens what it sealed; the primary also seals
	Disabled  State = 2 // refused until it is enabled again
	Destroyed State = 3 // its key bytes are gone for ever
)

// stateNames are the text forms, by number.
var stateNames = [...]string{Enabled: "enabled", Disabled: "disabled", Destroyed: "destroyed"}

func (s State) valid() bool { return s >= Enabled && s <= Destroyed }

// String returns "enabled", "disabled" or "destroyed".
func (s State) String() string {
	if !s.valid() {
		return fmt.Sprintf("state %d", uint8(s))
	}
	return stateNames[s]
}

// MarshalText implements [encoding.TextMarshaler]. It fails for other numbers
// than the three states.
func (s State) MarshalText() ([]byte, error) {
	if !s.valid() {
		return nil, invalid("no such state: %d", uint8(s))
	}
	return []byte(stateNames[s]), nil
}

// UnmarshalText implements [encoding.TextUnmarshaler], for the exact words.
func (s *State) UnmarshalText(text []byte) error {
	for state := Enabled; state <= Destroyed; state++ {
		if string(text) == stateNames[state] {
			*s = state
			return nil
		}
	}
	return invalid("no such state: %q", shorten(string(text)))
}

// Version describes one version of a ring. It holds nothing secret.
type Version struct {
	ID      string    `json:"id"`
	State   State     `json:"state"`
	Primary bool      `json:"primary"` // the version that seals new data keys
	Created time.Time `json:"created"` // UTC, whole milliseconds
	Changed time.Time `json:"changed"` // when State was last set; Created at first
}
