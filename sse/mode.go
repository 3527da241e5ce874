package sse

import "fmt"

// Mode is who manages the key that opens an object. Every object has one.
type Mode uint8

// The modes, with the values that they have in an envelope.
const (
	ModeManaged  Mode = 1 // SSE-S3: a key ring of the service
	ModeKMS      Mode = 2 // SSE-KMS: a key service
	ModeCustomer Mode = 3 // SSE-C: a key that comes with every request
)

var modeNames = map[Mode]string{ModeManaged: "SSE-S3", ModeKMS: "SSE-KMS", ModeCustomer: "SSE-C"}

// String returns "SSE-S3", "SSE-KMS" or "SSE-C". These are not the values of S3's
// headers, where the first two are "AES256" and "aws:kms".
func (m Mode) String() string {
	if name, ok := modeNames[m]; ok {
		return name
	}
	return fmt.Sprintf("Mode(%d)", uint8(m))
}

// MarshalText returns what [Mode.String] does, and is [ErrInvalid] for a mode that
// is unknown.
func (m Mode) MarshalText() ([]byte, error) {
	if name, ok := modeNames[m]; ok {
		return []byte(name), nil
	}
	return nil, fmt.Errorf("%w: mode %d", ErrInvalid, uint8(m))
}

// UnmarshalText accepts what MarshalText returns; anything else is [ErrInvalid].
func (m *Mode) UnmarshalText(text []byte) error {
	for mode, name := range modeNames {
		if name == string(text) {
			*m = mode
			return nil
		}
	}
	return fmt.Errorf("%w: mode %q", ErrInvalid, text)
}
