package sse

import (
	"crypto/hkdf"
	"crypto/sha512"
	"encoding/binary"
	"fmt"
	"math/bits"

	"golang.org/x/crypto/cryptobyte"

	"github.com/blobseal/blobseal/internal/chunked"
	"github.com/blobseal/blobseal/internal/secret"
)

// PartOverhead is how many stored bytes a part has in addition to the
// [CiphertextSize] of its plaintext.
const PartOverhead = partPrefixSize + chunked.HeadSize

// Labels and limits of composite objects, version 2 of the format: SPEC.md, section 16.
const (
	labelV2           = "github.com/blobseal/blobseal/v2 "
	compositeLabel    = labelV2 + "composite"
	manifestKeyLabel  = labelV2 + "manifest key\x00"
	manifestLabel     = labelV2 + "manifest"
	receiptLabel      = labelV2 + "part receipt"
	partLabel         = labelV2 + "part\x00"
	footerMagic       = "\x89END\r\n\x1a\n"
	maxParts          = 10_000
	maxFiller         = 5<<20 - 1
	partPrefixSize    = 12 // magic, version, a zero and the number
	entrySize         = 2 + 8 + chunked.SaltSize
	receiptSize       = chunked.HeadSize + entrySize + chunked.TagSize
	footerSize        = 32
	minManifest       = chunked.HeadSize + 4 + 2 + entrySize + chunked.TagSize
	maxManifestPlain  = 4 + 2 + maxParts*entrySize
	maxManifest       = chunked.HeadSize + maxManifestPlain + chunked.TagSize*(maxManifestPlain/ChunkSize+1)
	tailSize          = 64 << 10 // holds the trailer of most objects
	leastPartStored   = int64(PartOverhead) + chunked.TagSize
	maxCompositePlain = chunked.MaxPlaintextSize
)

// sealing asks Encrypt to seal an existing key for an existing head. It travels in
// an Object, so an Encrypter that wraps another one passes it on.
type sealing struct {
	kind kind
	key  secret.Key
	head [chunked.HeadSize]byte
}

// isComposite reports whether an object that begins with prefix is composite. It
// needs the first 10 bytes.
func isComposite(prefix []byte) bool {
	return len(prefix) > len(magic)+1 && IsEnvelope(prefix) && prefix[len(magic)] == version2 && prefix[len(magic)+1] == 0
}

// partPrefix returns the bytes before the head of a part.
func partPrefix(number int) []byte {
	return binary.BigEndian.AppendUint16(append([]byte(magic), version2, 0), uint16(number))
}

// uploadID returns the salt in the head of a composite object's envelope.
func (e *Envelope) uploadID() []byte { return e.head[:chunked.SaltSize] }

// manifestKey derives the key of an upload's manifest and receipts.
func manifestKey(dek secret.Key, uploadID []byte) (secret.Key, error) {
	key, err := hkdf.Expand(sha512.New, dek.Bytes(), manifestKeyLabel+string(uploadID), secret.KeySize)
	if err != nil {
		return secret.Key{}, fmt.Errorf("sse: deriving the manifest key: %w", err)
	}
	defer clear(key)
	return secret.New(key)
}

// partContext returns the context of a part's message.
func partContext(uploadID []byte, number int) []byte {
	return binary.BigEndian.AppendUint16(append([]byte(partLabel), uploadID...), uint16(number))
}

// entry describes one part, in the manifest and in a receipt.
type entry struct {
	number int
	size   int64 // of the plaintext
	salt   [chunked.SaltSize]byte
}

func (e *entry) add(b *cryptobyte.Builder) {
	b.AddUint16(uint16(e.number))
	b.AddUint64(uint64(e.size))
	b.AddBytes(e.salt[:])
}

// read reads an entry. It fails if the format does not allow its values.
func (e *entry) read(s *cryptobyte.String) bool {
	var number uint16
	var size uint64
	ok := s.ReadUint16(&number) && s.ReadUint64(&size) && s.CopyBytes(e.salt[:])
	e.number, e.size = int(number), int64(size)
	return ok && 1 <= number && number <= maxParts && size <= maxCompositePlain
}

// manifest lists the parts of a composite object.
type manifest struct {
	filler int64
	parts  []entry
}

// check refuses what the format does not allow, in new and in parsed manifests.
func (m *manifest) check() error {
	if m.filler < 0 || m.filler > maxFiller {
		return fmt.Errorf("%w: filler has %d bytes, at most %d are allowed", ErrInvalid, m.filler, maxFiller)
	}
	if len(m.parts) < 1 || len(m.parts) > maxParts {
		return fmt.Errorf("%w: composite object has %d parts, not 1 to %d", ErrInvalid, len(m.parts), maxParts)
	}
	sum, last := int64(0), 0
	for i, p := range m.parts {
		if p.number <= last {
			return fmt.Errorf("%w: part %d follows part %d", ErrInvalid, p.number, last)
		}
		if p.size == 0 && i < len(m.parts)-1 {
			return fmt.Errorf("%w: part %d is empty and not the last", ErrInvalid, p.number)
		}
		last = p.number
		if sum += p.size; sum > maxCompositePlain { // cannot overflow: two sizes are below 2^53
			return fmt.Errorf("%w: parts have more than %d bytes", ErrTooLarge, int64(maxCompositePlain))
		}
	}
	return nil
}

func (m *manifest) marshal() []byte {
	b := cryptobyte.NewFixedBuilder(make([]byte, 0, 4+2+len(m.parts)*entrySize))
	b.AddUint32(uint32(m.filler))
	b.AddUint16(uint16(len(m.parts)))
	for i := range m.parts {
		m.parts[i].add(b)
	}
	return b.BytesOrPanic()
}

// unmarshal parses an authentic manifest.
func (m *manifest) unmarshal(data []byte) error {
	s := cryptobyte.String(data)
	var filler uint32
	var n uint16
	if !s.ReadUint32(&filler) || !s.ReadUint16(&n) || len(s) != int(n)*entrySize {
		return fmt.Errorf("%w: its manifest does not have the size that its parts need", ErrCorrupt)
	}
	m.filler = int64(filler)
	m.parts = make([]entry, n)
	for i := range m.parts {
		if !m.parts[i].read(&s) {
			return fmt.Errorf("%w: its manifest has an invalid part number or size", ErrCorrupt)
		}
	}
	if err := m.check(); err != nil {
		return fmt.Errorf("%w: its manifest breaks the format: %v", ErrCorrupt, err)
	}
	return nil
}

// footer ends a composite object.
type footer struct {
	plain              int64
	manifest, envelope int
}

func (f footer) marshal() []byte {
	b := cryptobyte.NewFixedBuilder(make([]byte, 0, footerSize))
	b.AddUint64(uint64(f.plain))
	b.AddUint32(uint32(f.manifest))
	b.AddUint32(uint32(f.envelope))
	b.AddUint64(version2 << 56)
	b.AddBytes([]byte(footerMagic))
	return b.BytesOrPanic()
}

// unmarshal parses a footer. Nothing in it is authentic.
func (f *footer) unmarshal(data []byte) error {
	s := cryptobyte.String(data)
	var plain, version uint64
	var manifest, envelope uint32
	var end []byte
	if !s.ReadUint64(&plain) || !s.ReadUint32(&manifest) || !s.ReadUint32(&envelope) ||
		!s.ReadUint64(&version) || !s.ReadBytes(&end, len(footerMagic)) || !s.Empty() || string(end) != footerMagic {
		return fmt.Errorf("%w: composite object has no footer at its end (it is truncated, or its upload was not completed)", ErrFormat)
	}
	if version != version2<<56 {
		return fmt.Errorf("%w: composite object's footer is not of version 2", ErrFormat)
	}
	if bits.Len64(plain) > 52 || manifest < minManifest || manifest > maxManifest ||
		envelope < uint32(prefixSize) || envelope > MaxEnvelopeSize {
		return fmt.Errorf("%w: composite object's footer has impossible sizes", ErrFormat)
	}
	f.plain, f.manifest, f.envelope = int64(plain), int(manifest), int(envelope)
	return nil
}
