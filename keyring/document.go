package keyring

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tink-crypto/tink-go/v2/keyset"
	"golang.org/x/crypto/cryptobyte"
)

// A ringDocument is what a [Store] keeps: one ring, in binary. All integers are
// big-endian. A ring has one encoding: whatever parses marshals back to the same
// bytes.
//
//	magic      [8]byte   89 4B 52 47 0D 0A 1A 0A, "\x89KRG\r\n\x1a\n"
//	version    uint8     2
//	metadata   opaque, with its length as uint24:
//	  ring        [8]byte  the ring's id, random
//	  generation  uint64   1 in the first document, larger in each that replaces it
//	  watermark   uint64   versions up to this number that are not listed were destroyed
//	  period      uint32   rotation period in seconds: 60 to 315360000 (3650 days)
//	  changes     uint64   how often the period was changed
//	  versions    1 to 4096 times, up to the end of metadata, by number, then by id:
//	    number      uint64   from 1; one more than any number and the watermark of the
//	                         document that the version was added to
//	    id          uint32   Tink id, of this version alone
//	    state       uint8    1 enabled, 2 disabled, 3 destroyed; enabled in the last version,
//	                         which is the primary
//	    created     uint64   Unix time in milliseconds, at most 253402300799999 (year 9999)
//	    changed     uint64   when state was last set; created at first
//	    disabled    opaque   marks in force, 8 bytes each, ascending, with their length as
//	                         uint16; some if state is 2, and else none
//	    enabled     opaque   marks that enabling removed, likewise; none if state is 3
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
// The hash keeps the associated data short, because some key services allow little.
// It makes the metadata as authentic as the keyset. The checksum is not authentic: it
// only tells damage from a wrong root.
//
// Numbers, marks, the count of changes and the watermark are for merging two documents
// of one ring: see [draft.merge]. Version 1 has none of them: see [metadata.parseV1].
type ringDocument struct {
	metadata
	keyset []byte // encrypted
	bound  []byte // what the keyset's associated data hashes
}

type metadata struct {
	legacy     bool // comes from a document of version 1
	ring       ringID
	generation uint64
	watermark  uint64
	period     time.Duration // whole seconds
	changes    uint64        // of the period
	versions   []version     // by number and id; the last is the primary
}

type version struct {
	number   uint64
	id       uint32
	state    State
	created  uint64 // Unix milliseconds
	changed  uint64
	disabled []mark // in force
	enabled  []mark // removed by enabling
}

// mark names one act of disabling. Marks are sorted.
type mark [8]byte

const (
	documentMagic   = "\x89KRG\r\n\x1a\n"
	documentVersion = 2
	documentLabel   = "github.com/blobseal/blobseal/v1 keyring document"

	maxMillis = 253_402_300_799_999 // the last that time.Time marshals to JSON
)

// Bounds of what a ring holds.
const (
	maxVersions = 4096 // a thousand years at the default period
	minPeriod   = time.Minute
	maxPeriod   = 3650 * 24 * time.Hour
)

// head marshals the part of the document that is associated data of the keyset.
func (m *metadata) head() ([]byte, error) {
	b := cryptobyte.NewBuilder(make([]byte, 0, 64+40*len(m.versions)))
	b.AddBytes([]byte(documentMagic))
	b.AddUint8(documentVersion)
	b.AddUint24LengthPrefixed(func(b *cryptobyte.Builder) {
		b.AddBytes(m.ring[:])
		b.AddUint64(m.generation)
		b.AddUint64(m.watermark)
		b.AddUint32(uint32(m.period / time.Second))
		b.AddUint64(m.changes)
		for _, v := range m.versions {
			b.AddUint64(v.number)
			b.AddUint32(v.id)
			b.AddUint8(v.state.code())
			b.AddUint64(v.created)
			b.AddUint64(v.changed)
			for _, marks := range [][]mark{v.disabled, v.enabled} {
				b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
					for _, m := range marks {
						b.AddBytes(m[:])
					}
				})
			}
		}
	})
	head, err := b.Bytes()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFull, err)
	}
	return head, nil
}

// associatedData returns what binds a keyset to the head of its document.
func associatedData(head []byte) []byte {
	sum := sha256.Sum256(head)
	return append([]byte(documentLabel+"\x00"), sum[:]...)
}

// marshal returns the document's bytes, always in the current version. The error is
// [ErrFull] if the document is too large, or the error of parsing those bytes.
func (d *ringDocument) marshal() ([]byte, error) {
	if len(d.versions) > maxVersions {
		return nil, fmt.Errorf("%w: %d versions, at most %d", ErrFull, len(d.versions), maxVersions)
	}
	if len(d.keyset) > MaxDocumentSize {
		return nil, fmt.Errorf("%w: encrypted keyset is %d bytes", ErrFull, len(d.keyset))
	}
	head, err := d.head()
	if err != nil {
		return nil, err
	}
	b := cryptobyte.NewBuilder(head)
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

// parseDocument is the inverse of marshal, and reads version 1 besides. It fails with
// [ErrDamaged] or [ErrVersion]. The document shares no memory with data.
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
	if len(body) < 1+sha256.Size {
		return nil, fmt.Errorf("%w: cut short", ErrDamaged)
	}
	if body[0] != 1 && body[0] != documentVersion {
		return nil, fmt.Errorf("%w: %d, this release knows 1 to %d (install a newer release)", ErrVersion, body[0], documentVersion)
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
	d := &ringDocument{keyset: bytes.Clone(encrypted), bound: bytes.Clone(data[:len(documentMagic)+1+3+len(meta)])}
	if err := checkEncoding(d.keyset); err != nil {
		return nil, fmt.Errorf("%w: encrypted keyset: %v", ErrDamaged, err)
	}
	parse := d.metadata.parse
	if body[0] == 1 {
		parse = d.metadata.parseV1
	}
	if err := parse(meta); err != nil {
		return nil, fmt.Errorf("%w: %v", ErrDamaged, err)
	}
	return d, nil
}

// checkEncoding rejects every encoding of an encrypted keyset except Tink's own. Protocol
// buffers allow others, and unknown fields besides.
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
		return errors.New("encoding differs from Tink's")
	}
	return nil
}

func (m *metadata) parse(s cryptobyte.String) error {
	var seconds uint32
	if !s.CopyBytes(m.ring[:]) || !s.ReadUint64(&m.generation) || !s.ReadUint64(&m.watermark) ||
		!s.ReadUint32(&seconds) || !s.ReadUint64(&m.changes) {
		return errors.New("metadata is cut short")
	}
	m.period = time.Duration(seconds) * time.Second
	for !s.Empty() {
		var v version
		var state uint8
		var disabled, enabled cryptobyte.String
		if !s.ReadUint64(&v.number) || !s.ReadUint32(&v.id) || !s.ReadUint8(&state) ||
			!s.ReadUint64(&v.created) || !s.ReadUint64(&v.changed) ||
			!s.ReadUint16LengthPrefixed(&disabled) || !s.ReadUint16LengthPrefixed(&enabled) {
			return errors.New("versions are cut short")
		}
		v.state = stateOf(state)
		var err error
		if v.disabled, err = parseMarks(disabled); err == nil {
			v.enabled, err = parseMarks(enabled)
		}
		if err != nil {
			return fmt.Errorf("version %08x: %w", v.id, err)
		}
		m.versions = append(m.versions, v)
	}
	return m.validate()
}

func parseMarks(s cryptobyte.String) ([]mark, error) {
	if len(s)%len(mark{}) != 0 {
		return nil, fmt.Errorf("%d bytes of marks", len(s))
	}
	var marks []mark
	for !s.Empty() {
		var m mark
		s.CopyBytes(m[:]) // the length was checked
		if len(marks) > 0 && m.compare(marks[len(marks)-1]) <= 0 {
			return nil, errors.New("marks do not ascend")
		}
		marks = append(marks, m)
	}
	return marks, nil
}

func (m mark) compare(other mark) int { return bytes.Compare(m[:], other[:]) }

// validate checks what must hold in every document.
func (m *metadata) validate() error {
	if m.generation == 0 {
		return errors.New("generation is zero")
	}
	if err := checkPeriod(m.period); err != nil {
		return err
	}
	if len(m.versions) == 0 || len(m.versions) > maxVersions {
		return fmt.Errorf("%d versions", len(m.versions))
	}
	seen := make(map[uint32]bool, len(m.versions))
	for i, v := range m.versions {
		if err := v.validate(); err != nil {
			return fmt.Errorf("version %08x %w", v.id, err)
		}
		if seen[v.id] {
			return fmt.Errorf("version %08x is listed twice", v.id)
		}
		if i > 0 && v.compare(m.versions[i-1]) <= 0 {
			return fmt.Errorf("version %08x is out of order", v.id)
		}
		seen[v.id] = true
	}
	if p := m.primary(); p.state != Enabled || p.number <= m.watermark {
		return fmt.Errorf("primary %08x is %v, number %d, watermark %d", p.id, p.state, p.number, m.watermark)
	}
	return nil
}

func (v *version) validate() error {
	switch {
	case !v.state.valid():
		return fmt.Errorf("is in %v", v.state)
	case v.created > maxMillis || v.changed > maxMillis:
		return errors.New("has a time beyond the year 9999")
	case v.number == 0:
		return errors.New("has no number")
	case (v.state == Disabled) != (len(v.disabled) > 0):
		return fmt.Errorf("is %v with %d marks", v.state, len(v.disabled))
	case v.state == Destroyed && len(v.enabled) > 0:
		return errors.New("is destroyed with marks")
	}
	for _, m := range v.disabled {
		if _, removed := slices.BinarySearchFunc(v.enabled, m, mark.compare); removed {
			return errors.New("has a mark in force that was removed")
		}
	}
	return nil
}

// compare orders versions by number, then by id. Versions with the same number come from
// documents that were merged.
func (v version) compare(other version) int {
	return cmp.Or(cmp.Compare(v.number, other.number), cmp.Compare(v.id, other.id))
}

// primary returns the version that seals.
func (m *metadata) primary() *version { return &m.versions[len(m.versions)-1] }

// find returns the version of that id, or nil.
func (m *metadata) find(id uint32) *version {
	i := slices.IndexFunc(m.versions, func(v version) bool { return v.id == id })
	if i < 0 {
		return nil
	}
	return &m.versions[i]
}

// lookup returns the version with v's number and id, or nil.
func (m *metadata) lookup(v version) *version {
	i, found := slices.BinarySearchFunc(m.versions, v, version.compare)
	if !found {
		return nil
	}
	return &m.versions[i]
}

// info describes a version of m.
func (m *metadata) info(v *version) Version {
	return Version{
		ID:      keyID(m.ring, v.id),
		State:   v.state,
		Primary: v.id == m.primary().id,
		Created: time.UnixMilli(int64(v.created)).UTC(),
		Changed: time.UnixMilli(int64(v.changed)).UTC(),
	}
}

// checkPeriod rejects a rotation period that a document cannot hold.
func checkPeriod(p time.Duration) error {
	if p < minPeriod || p > maxPeriod || p%time.Second != 0 {
		return invalid("period of %v, want whole seconds from %v to %v", p, minPeriod, maxPeriod)
	}
	return nil
}

// millis returns t in Unix milliseconds, within the bounds of a document.
func millis(t time.Time) uint64 {
	return uint64(min(max(t.UnixMilli(), 0), maxMillis))
}
