package sse

import "fmt"

// Mode says who holds the key that opens an object. Each object has one mode.
type Mode uint8

// The modes, with their values in an envelope.
const (
	ModeManaged  Mode = 1 // SSE-S3: the service, in a key ring
	ModeKMS      Mode = 2 // SSE-KMS: a key service
	ModeCustomer Mode = 3 // SSE-C: the caller, who sends it with each request
)

var modeNames = map[Mode]string{ModeManaged: "SSE-S3", ModeKMS: "SSE-KMS", ModeCustomer: "SSE-C"}

// String returns "SSE-S3", "SSE-KMS" or "SSE-C". S3's headers have other values:
// "AES256" and "aws:kms" for the first two.
func (m Mode) String() string {
	if name, ok := modeNames[m]; ok {
		return name
	}
	return fmt.Sprintf("Mode(%d)", uint8(m))
}

// MarshalText returns what [Mode.String] returns. An unknown mode is [ErrInvalid].
func (m Mode) MarshalText() ([]byte, error) {
	if name, ok := modeNames[m]; ok {
		return []byte(name), nil
	}
	return nil, fmt.Errorf("%w: unknown mode %d", ErrInvalid, uint8(m))
}

// UnmarshalText parses what MarshalText returns. Other text is [ErrInvalid].
func (m *Mode) UnmarshalText(text []byte) error {
	for mode, name := range modeNames {
		if name == string(text) {
			*m = mode
			return nil
		}
	}
	return fmt.Errorf("%w: unknown mode %q (use SSE-S3, SSE-KMS or SSE-C)", ErrInvalid, text)
}
