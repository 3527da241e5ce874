package keyring

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tink-crypto/tink-go/v2/keyset"
	"golang.org/x/crypto/cryptobyte"
)

// A document is what a [Store] keeps: one ring, in binary. All integers are
// big-endian. There is one encoding of each ring: whatever parses marshals back
// to the same bytes.
//
//	magic      [8]byte   89 4B 52 47 0D 0A 1A 0A, "\x89KRG\r\n\x1a\n"
//	version    uint8     1
//	metadata   opaque, with its length as uint24:
//	  ring        [8]byte  the ring's id, random
//	  generation  uint64   1 in the first document, one more in each that replaces it
//	  period      uint32   rotation period in seconds: 60 to 315360000 (3650 days)
//	  primary     uint32   Tink id of the primary, which is enabled
//	  versions    1 to 4096 times, up to the end of metadata, oldest first:
//	    id          uint32   Tink id, of this version alone
//	    state       uint8    1 enabled, 2 disabled, 3 destroyed
//	    created     uint64   Unix time in milliseconds, at most 253402300799999 (year 9999)
//	    changed     uint64   when state was last set; created at first
//	keyset     opaque, at least 1 byte, with its length as uint24: Tink's EncryptedKeyset in
//	           binary, in the one encoding that Tink writes (field 2, the ciphertext, alone).
//	           The keyset holds HKDF-SHA-256 PRF keys of 32 bytes with an empty salt, one
//	           for each version that is not destroyed, in the same order
//	checksum   [32]byte  SHA-256 of everything before it
//
// The whole is at most 1 MiB ([MaxDocumentSize]).
//
// The keyset is encrypted by the root with the associated data
//
//	"github.com/blobseal/blobseal/v1 keyring document" || 0x00 || SHA-256(magic || version || metadata with its length)
//
// which is hashed because key services allow little associated data. So the
// metadata is as authentic as the keyset; the checksum is not, it only tells
// damage from a wrong root.
type ringDocument struct {
	metadata
	keyset []byte // encrypted
}

type metadata struct {
	ring       ringID
	generation uint64
	period     time.Duration // whole seconds
	primary    uint32
	versions   []version
}

type version struct {
	id      uint32
	state   State
	created uint64 // Unix milliseconds
	changed uint64
}

const (
	documentMagic   = "\x89KRG\r\n\x1a\n"
	documentVersion = 1
	documentLabel   = "github.com/blobseal/blobseal/v1 keyring document"

	metadataHead = 8 + 8 + 4 + 4       // before the versions
	versionSize  = 4 + 1 + 8 + 8       // of one version
	maxMillis    = 253_402_300_799_999 // the last that time.Time marshals to JSON
)

// Bounds of what a ring holds.
const (
	// MaxVersions is the largest number of versions in a ring, destroyed ones
	// included: a thousand years at the default period.
	MaxVersions = 4096

	// MinPeriod and MaxPeriod bound the rotation period, which is a whole
	// number of seconds.
	MinPeriod = time.Minute
	MaxPeriod = 3650 * 24 * time.Hour
)

// head is the part of the document that is associated data of the keyset.
func (m *metadata) head() []byte {
	b := cryptobyte.NewBuilder(make([]byte, 0, len(documentMagic)+1+3+metadataHead+len(m.versions)*versionSize))
	b.AddBytes([]byte(documentMagic))
	b.AddUint8(documentVersion)
	b.AddUint24LengthPrefixed(func(b *cryptobyte.Builder) {
		b.AddBytes(m.ring[:])
		b.AddUint64(m.generation)
		b.AddUint32(uint32(m.period / time.Second))
		b.AddUint32(m.primary)
		for _, v := range m.versions {
			b.AddUint32(v.id)
			b.AddUint8(uint8(v.state))
			b.AddUint64(v.created)
			b.AddUint64(v.changed)
		}
	})
	return b.BytesOrPanic()
}

// associatedData binds the keyset to the metadata.
func (m *metadata) associatedData() []byte {
	sum := sha256.Sum256(m.head())
	return append([]byte(documentLabel+"\x00"), sum[:]...)
}

// marshal returns the document's bytes. It fails with [ErrFull] if they are too
// many, and with the error of parsing them if there is one.
func (d *ringDocument) marshal() ([]byte, error) {
	if len(d.versions) > MaxVersions {
		return nil, fmt.Errorf("%w: it holds %d versions, destroyed ones included", ErrFull, MaxVersions)
	}
	if len(d.keyset) > MaxDocumentSize {
		return nil, fmt.Errorf("%w: encrypted keyset is %d bytes", ErrFull, len(d.keyset))
	}
	b := cryptobyte.NewBuilder(d.head())
	b.AddUint24LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(d.keyset) })
	data := b.BytesOrPanic()
	sum := sha256.Sum256(data)
	data = append(data, sum[:]...)
	if len(data) > MaxDocumentSize {
		return nil, fmt.Errorf("%w: document is %d bytes, at most %d", ErrFull, len(data), MaxDocumentSize)
	}
	if _, err := parseDocument(data); err != nil {
		return nil, err
	}
	return data, nil
}

// parseDocument is the inverse of marshal. It fails with [ErrDamaged] or
// [ErrVersion]. The document shares no memory with data.
func parseDocument(data []byte) (*ringDocument, error) {
	if len(data) > MaxDocumentSize {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrDamaged, len(data), MaxDocumentSize)
	}
	if len(data) == 0 {
		return nil, fmt.Errorf("%w: empty", ErrDamaged)
	}
	body, found := bytes.CutPrefix(data, []byte(documentMagic))
	if !found {
		return nil, fmt.Errorf("%w: does not begin as a keyring document", ErrDamaged)
	}
	if len(body) == 0 {
		return nil, fmt.Errorf("%w: cut short", ErrDamaged)
	}
	if body[0] != documentVersion {
		return nil, fmt.Errorf("%w: %d, this release knows %d", ErrVersion, body[0], documentVersion)
	}
	if len(body) < 1+sha256.Size {
		return nil, fmt.Errorf("%w: cut short", ErrDamaged)
	}
	end := len(data) - sha256.Size
	if sum := sha256.Sum256(data[:end]); !bytes.Equal(sum[:], data[end:]) {
		return nil, fmt.Errorf("%w: checksum does not match", ErrDamaged)
	}

	rest := cryptobyte.String(data[len(documentMagic)+1 : end])
	var meta, encrypted cryptobyte.String
	if !rest.ReadUint24LengthPrefixed(&meta) || !rest.ReadUint24LengthPrefixed(&encrypted) || !rest.Empty() {
		return nil, fmt.Errorf("%w: lengths do not add up", ErrDamaged)
	}
	if len(encrypted) == 0 {
		return nil, fmt.Errorf("%w: no keyset", ErrDamaged)
	}
	d := &ringDocument{keyset: bytes.Clone(encrypted)}
	if err := checkEncoding(d.keyset); err != nil {
		return nil, fmt.Errorf("%w: encrypted keyset: %v", ErrDamaged, err)
	}
	if err := d.parseMetadata(meta); err != nil {
		return nil, fmt.Errorf("%w: %v", ErrDamaged, err)
	}
	return d, nil
}

// checkEncoding refuses every encoding of an encrypted keyset but the one that
// Tink writes: protocol buffers have others, and room for more beside it.
func checkEncoding(encrypted []byte) error {
	message, err := keyset.NewBinaryReader(bytes.NewReader(encrypted)).ReadEncrypted()
	if err != nil {
		return err
	}
	var again bytes.Buffer
	if err := keyset.NewBinaryWriter(&again).WriteEncrypted(message); err != nil {
		return err
	}
	if !bytes.Equal(again.Bytes(), encrypted) {
		return errors.New("another encoding than Tink's")
	}
	return nil
}

func (m *metadata) parseMetadata(s cryptobyte.String) error {
	var seconds uint32
	if !s.CopyBytes(m.ring[:]) || !s.ReadUint64(&m.generation) || !s.ReadUint32(&seconds) || !s.ReadUint32(&m.primary) {
		return fmt.Errorf("metadata is cut short")
	}
	if m.generation == 0 {
		return fmt.Errorf("generation is zero")
	}
	m.period = time.Duration(seconds) * time.Second
	if err := checkPeriod(m.period); err != nil {
		return err
	}
	if len(s)%versionSize != 0 || len(s) == 0 || len(s)/versionSize > MaxVersions {
		return fmt.Errorf("%d bytes of versions", len(s))
	}
	m.versions = make([]version, len(s)/versionSize)
	seen := make(map[uint32]State, len(m.versions))
	for i := range m.versions {
		v := &m.versions[i]
		s.ReadUint32(&v.id) // the length was checked
		s.ReadUint8((*uint8)(&v.state))
		s.ReadUint64(&v.created)
		s.ReadUint64(&v.changed)
		switch {
		case !v.state.valid():
			return fmt.Errorf("version %08x is in %v", v.id, v.state)
		case v.created > maxMillis || v.changed > maxMillis:
			return fmt.Errorf("version %08x has a time beyond the year 9999", v.id)
		case seen[v.id] != 0:
			return fmt.Errorf("version %08x is there twice", v.id)
		}
		seen[v.id] = v.state
	}
	if seen[m.primary] != Enabled {
		return fmt.Errorf("primary %08x is not an enabled version", m.primary)
	}
	return nil
}

// find returns the version of that id, or nil.
func (m *metadata) find(id uint32) *version {
	for i := range slices.Backward(m.versions) { // the primary is looked for most, and it is the last
		if m.versions[i].id == id {
			return &m.versions[i]
		}
	}
	return nil
}

// info describes the version at index i.
func (m *metadata) info(i int) Info {
	v := m.versions[i]
	return Info{
		ID:      keyID(m.ring, v.id),
		State:   v.state,
		Primary: v.id == m.primary,
		Created: time.UnixMilli(int64(v.created)).UTC(),
		Changed: time.UnixMilli(int64(v.changed)).UTC(),
	}
}

// checkPeriod refuses a rotation period that a document cannot hold.
func checkPeriod(p time.Duration) error {
	if p < MinPeriod || p > MaxPeriod || p%time.Second != 0 {
		return fmt.Errorf("%w: %v; want whole seconds from %v to %v", ErrPeriod, p, MinPeriod, MaxPeriod)
	}
	return nil
}

// millis returns t for a document, within what that holds.
func millis(t time.Time) uint64 {
	return uint64(min(max(t.UnixMilli(), 0), maxMillis))
}
