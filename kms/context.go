package kms

import (
	"encoding/binary"
	"maps"
	"slices"
)

// Context is an encryption context: names and values that are bound to a
// ciphertext and must be given again, exactly, to open it. It is compared
// case-sensitively and without regard to order. It is not secret: it is stored
// in the clear beside what it protects, and it shows in audit logs.
//
// A nil Context means "none was stated", which each operation documents; an
// empty one states that there are no pairs.
type Context map[string]string

// Clone returns a copy of c that shares nothing with it; nil stays nil.
func (c Context) Clone() Context { return maps.Clone(c) }

// Equal reports whether c and other hold the same pairs; nil equals empty.
func (c Context) Equal(other Context) bool { return maps.Equal(c, other) }

// Keys returns the names in ascending byte order, the order of every encoding.
func (c Context) Keys() []string {
	if len(c) == 0 {
		return nil // most have none, and sorting nothing allocates
	}
	return slices.Sorted(maps.Keys(c))
}

// contextLabel begins what AssociatedData returns, and gives it a version.
const contextLabel = "blobseal kms context v1\x00"

// AssociatedData returns the one encoding of c, for a client of a service that
// binds bytes rather than pairs:
//
//	"blobseal kms context v1" 0x00, count (4 bytes),
//	then for each pair, ascending by the bytes of its name:
//	length (4 bytes), name, length (4 bytes), value
//
// Numbers are big endian. The context of no pairs is the label and a zero, so that
// what is bound is never empty, and a data key is no other ciphertext under the
// same key. It will not change: ciphertexts that services keep depend on it.
func (c Context) AssociatedData() []byte {
	b := binary.BigEndian.AppendUint32([]byte(contextLabel), uint32(len(c)))
	for _, name := range c.Keys() {
		for _, s := range []string{name, c[name]} {
			b = binary.BigEndian.AppendUint32(b, uint32(len(s)))
			b = append(b, s...)
		}
	}
	return b
}
