package localkms

import "fmt"

// State tells what a key may be used for.
type State uint8

// The states of a key. The numbers are those of the document.
const (
	Enabled         State = 1 // usable
	Disabled        State = 2 // kms.ErrDisabled until it is enabled again
	PendingDeletion State = 3 // kms.ErrPendingDeletion until it is deleted, or the deletion cancelled
)

var stateNames = [...]string{Enabled: "enabled", Disabled: "disabled", PendingDeletion: "pending deletion"}

func (s State) valid() bool { return s >= Enabled && s <= PendingDeletion }

// String returns "enabled", "disabled" or "pending deletion".
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
		return nil, fmt.Errorf("localkms: no such state: %d", uint8(s))
	}
	return []byte(stateNames[s]), nil
}

// UnmarshalText implements [encoding.TextUnmarshaler], for the exact words.
func (s *State) UnmarshalText(text []byte) error {
	for state := Enabled; state <= PendingDeletion; state++ {
		if string(text) == stateNames[state] {
			*s = state
			return nil
		}
	}
	return fmt.Errorf("localkms: no such state: %q", shorten(string(text)))
}
