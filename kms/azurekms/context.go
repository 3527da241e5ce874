package azurekms

import (
	"encoding/binary"

	"github.com/blobseal/blobseal/kms"
)

const contextLabel = "blobseal kms context v1\x00"

// encode is the one encoding of a context, that of package tinkkms: the label, the
// count, and for each pair, ascending by the bytes of its name, name and value with
// their lengths. Numbers are big endian and have 4 bytes.
func encode(ec kms.Context) []byte {
	b := binary.BigEndian.AppendUint32([]byte(contextLabel), uint32(len(ec)))
	for _, k := range ec.Keys() {
		for _, s := range []string{k, ec[k]} {
			b = binary.BigEndian.AppendUint32(b, uint32(len(s)))
			b = append(b, s...)
		}
	}
	return b
}
