package vaultkms

import (
	"encoding/binary"

	"github.com/blobseal/blobseal/kms"
)

const contextLabel = "blobseal kms context v1\x00"

// encode is the one encoding of a context; see the package's documentation. It is
// never empty, which Transit would take for none.
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
