// Package uuid makes and reads random UUIDs.
package uuid

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"strings"
)

// UUID is a universally unique identifier, as of RFC 9562.
type UUID [16]byte

// New returns a random UUID, which is of version 4.
func New() (id UUID) {
	rand.Read(id[:]) // never fails: it ends the program instead
	id[6] = id[6]&0x0f | 0x40
	id[8] = id[8]&0x3f | 0x80
	return id
}

// Compare orders UUIDs by their bytes.
func (id UUID) Compare(other UUID) int { return bytes.Compare(id[:], other[:]) }

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

// Parse is the inverse of String. It reads no other form.
func Parse(text string) (id UUID, ok bool) {
	digits := strings.ReplaceAll(text, "-", "")
	if len(digits) != hex.EncodedLen(len(id)) {
		return UUID{}, false
	}
	_, err := hex.Decode(id[:], []byte(digits))
	if err != nil || id.String() != text {
		return UUID{}, false
	}
	return id, true
}
