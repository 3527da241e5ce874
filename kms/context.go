package kms

import (
	"encoding/binary"
	"maps"
	"slices"
)

// Context is an encryption context: pairs that are bound to a ciphertext and
// needed to decrypt it. Comparison is exact and ignores order. A context is not
// secret: it is stored in the clear and appears in audit trails.
//
// A nil Context and an empty one are different to some operations, which say so.
type Context map[string]string

// contextLabel begins the encoding of every context.
const contextLabel = "blobseal kms context v1\x00"

// AssociatedData encodes c for services that bind bytes instead of pairs:
//
//	"blobseal kms context v1" 0x00, count (4 bytes),
//	then for each pair, in ascending order of names:
//	length (4 bytes), name, length (4 bytes), value
//
// Numbers are big endian. The encoding is never empty, so a data key cannot be
// confused with other ciphertexts under the same key. It will not change, because
// stored ciphertexts depend on it.
func (c Context) AssociatedData() []byte {
	b := binary.BigEndian.AppendUint32([]byte(contextLabel), uint32(len(c)))
	for _, name := range slices.Sorted(maps.Keys(c)) {
		for _, s := range []string{name, c[name]} {
			b = binary.BigEndian.AppendUint32(b, uint32(len(s)))
			b = append(b, s...)
		}
	}
	return b
}
