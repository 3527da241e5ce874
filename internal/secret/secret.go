// Package secret holds key bytes in a value that does not print them.
package secret

import (
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"slices"
)

// KeySize is the length in bytes of every key in this module.
const KeySize = 32

// redacted is what every way of printing a key shows.
const redacted = "[redacted]"

// Key is a 256-bit key. It is immutable and safe for concurrent use. Every verb
// of fmt, slog and the encoding packages shows a placeholder instead of its
// bytes. The bytes sit behind a closure, so that a printer that walks unexported
// fields by reflection (where fmt can call no method) finds a code pointer.
//
// The zero Key holds no key; its Bytes panics, since reaching for it is a bug.
type Key struct {
	open func() *[KeySize]byte
}

// New returns a key that holds a copy of b, which must be KeySize bytes long.
func New(b []byte) (Key, error) {
	if len(b) != KeySize {
		return Key{}, fmt.Errorf("key is %d bytes, want %d", len(b), KeySize)
	}
	p := new([KeySize]byte)
	copy(p[:], b)
	return Key{open: func() *[KeySize]byte { return p }}, nil
}

// Brought is New for a key from outside. It also refuses 32 zeros, which are
// memory that nobody filled.
func Brought(b []byte) (Key, error) {
	if len(b) == KeySize && !slices.ContainsFunc(b, func(c byte) bool { return c != 0 }) {
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

// Bytes returns the key's own bytes. The caller must not change or keep them.
func (k Key) Bytes() []byte { return k.open()[:] }

// IsZero reports whether k holds no key.
func (k Key) IsZero() bool { return k.open == nil }

// Equal compares two keys in constant time.
func (k Key) Equal(other Key) bool {
	return subtle.ConstantTimeCompare(k.Bytes(), other.Bytes()) == 1
}

// Format implements [fmt.Formatter] for every verb.
func (Key) Format(f fmt.State, _ rune) { fmt.Fprint(f, redacted) }

// LogValue implements [slog.LogValuer].
func (Key) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText implements [encoding.TextMarshaler], and so covers JSON and XML.
func (Key) MarshalText() ([]byte, error) { return []byte(redacted), nil }
