// Package secret holds keys in a type that does not print them.
package secret

import (
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
)

// KeySize is the length in bytes of every key in this module.
const KeySize = 32

// redacted is what a printed key shows.
const redacted = "[redacted]"

// Key is a 256-bit key. It is immutable and safe for concurrent use. fmt, slog and
// the encoding packages print a placeholder instead of its bytes. The bytes are
// behind a closure, so a printer that walks unexported fields by reflection, without
// calling methods, finds only a code pointer.
//
// The zero Key holds no key, and its Bytes panics.
type Key struct {
	open func() *[KeySize]byte
}

// New returns a key with a copy of b, which must have [KeySize] bytes.
func New(b []byte) (Key, error) {
	if len(b) != KeySize {
		return Key{}, fmt.Errorf("key has %d bytes, want %d", len(b), KeySize)
	}
	p := new([KeySize]byte)
	copy(p[:], b)
	return Key{open: func() *[KeySize]byte { return p }}, nil
}

// Import is New for a key from outside this module. It also refuses 32 zeros, which are
// memory that nobody filled.
func Import(b []byte) (Key, error) {
	if subtle.ConstantTimeCompare(b, make([]byte, KeySize)) == 1 {
		return Key{}, errors.New("key is all zeros (fill it from crypto/rand)")
	}
	return New(b)
}

// Random returns a key from the operating system's random source.
func Random() Key {
	p := new([KeySize]byte)
	rand.Read(p[:]) // never fails: it ends the program instead
	return Key{open: func() *[KeySize]byte { return p }}
}

// Bytes returns the bytes of the key. The caller must not change or keep them.
func (k Key) Bytes() []byte { return k.open()[:] }

// IsZero reports whether k holds no key.
func (k Key) IsZero() bool { return k.open == nil }

// Equal compares two keys in constant time.
func (k Key) Equal(other Key) bool {
	return subtle.ConstantTimeCompare(k.Bytes(), other.Bytes()) == 1
}

// Format implements [fmt.Formatter] for every verb.
func (Key) Format(f fmt.State, _ rune) { fmt.Fprint(f, redacted) }

// LogValue implements [slog.LogValuer] with the placeholder.
func (Key) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText implements [encoding.TextMarshaler], for JSON and XML.
func (Key) MarshalText() ([]byte, error) { return []byte(redacted), nil }
