package keyring

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/blobseal/blobseal/internal/chunked"
	"github.com/blobseal/blobseal/internal/secret"
)

// kekLabel is the PRF's input, from which a version's KEK comes.
const kekLabel = "github.com/blobseal/blobseal/v1 managed key-encryption key"

// Key is one enabled version of a ring's master key. It is immutable and safe
// for concurrent use. It holds the version's key-encryption key, which is never
// printed, and not the master key itself.
//
// A Key works for as long as it is held, even after its version was disabled: ask the
// ring again for each operation.
type Key struct {
	id  string
	kek secret.Key
}

// ID returns the version's id: the ring's id, a dot and 8 hex digits.
func (k *Key) ID() string { return k.id }

// Seal encrypts a data key under the version, bound to context, as one
// Cobblestone-256 message. The caller labels and frames context.
func (k *Key) Seal(dek, context []byte) ([]byte, error) {
	sealed, err := chunked.Seal(k.kek.Bytes(), context, dek)
	if err != nil {
		return nil, fmt.Errorf("keyring: key %s: %w", k.id, err)
	}
	return sealed, nil
}

// Open decrypts what [Key.Seal] returned. A wrong key, a wrong context or an
// edited message is the error that package sse exports as ErrKey, a damaged message its
// ErrCorrupt or ErrTruncated.
func (k *Key) Open(sealed, context []byte) ([]byte, error) {
	dek, err := chunked.OpenMessage(k.kek.Bytes(), context, sealed)
	if err != nil {
		return nil, fmt.Errorf("keyring: key %s: %w", k.id, err)
	}
	return dek, nil
}

// ringID is the random name of a ring.
type ringID [8]byte

func (r ringID) String() string { return hex.EncodeToString(r[:]) }

// keyID returns the id of a ring's version.
func keyID(ring ringID, version uint32) string {
	b := append(make([]byte, 0, len(ring)+4), ring[:]...)
	s := hex.EncodeToString(binary.BigEndian.AppendUint32(b, version))
	return s[:2*len(ring)] + "." + s[2*len(ring):]
}

var errNoID = fmt.Errorf("%w: not a key id", ErrUnknownKey)

// parseKeyID is the inverse of keyID. It takes no other spelling.
func parseKeyID(id string) (ring ringID, version uint32, err error) {
	var b [len(ring) + 4]byte
	ringPart, versionPart, found := strings.Cut(id, ".")
	if len(id) != 2*len(b)+1 || !found || len(ringPart) != 2*len(ring) {
		return ring, 0, errNoID
	}
	if _, err := hex.Decode(b[:], []byte(ringPart+versionPart)); err != nil {
		return ring, 0, errNoID
	}
	copy(ring[:], b[:])
	version = binary.BigEndian.Uint32(b[len(ring):])
	if keyID(ring, version) != id { // upper-case digits
		return ring, 0, errNoID
	}
	return ring, version, nil
}

// shorten keeps an id that anyone may have written from filling the log.
func shorten(id string) string {
	if len(id) > 64 {
		return id[:64] + "..."
	}
	return id
}
