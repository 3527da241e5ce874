// Package uuid makes random UUIDs.
package uuid

import (
	"crypto/rand"
	"encoding/hex"
)

// UUID is a universally unique identifier, as of RFC 9562.
type UUID [16]byte

// New returns a random UUID, which is of version 4.
func New() UUID {
	var id UUID
	rand.Read(id[:]) // never fails: it ends the program instead
	id[6] = id[6]&0x0f | 0x40
	id[8] = id[8]&0x3f | 0x80
	return id
}

// String returns the UUID in its usual, lower-case form.
func (id UUID) String() string {
	var text [36]byte
	hex.Encode(text[0:8], id[0:4])
	hex.Encode(text[9:13], id[4:6])
	hex.Encode(text[14:18], id[6:8])
	hex.Encode(text[19:23], id[8:10])
	hex.Encode(text[24:36], id[10:16])
	text[8], text[13], text[18], text[23] = '-', '-', '-', '-'
	return string(text[:])
}
