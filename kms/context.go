package kms

import (
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
