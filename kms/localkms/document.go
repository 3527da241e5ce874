package localkms

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"golang.org/x/crypto/cryptobyte"

	"github.com/blobseal/blobseal/internal/chunked"
	"github.com/blobseal/blobseal/internal/document"
	"github.com/blobseal/blobseal/internal/secret"
	"github.com/blobseal/blobseal/keyring"
)

// A document is what the store keeps: everything that the service knows, in
// binary, all integers big-endian.
//
//	magic       [8]byte   89 4B 4D 53 0D 0A 1A 0A, "\x89KMS\r\n\x1a\n"
//	version     uint8     2; 1 is read as well
//	service     [16]byte  the service's id, random
//	generation  uint64    1 in the first document, larger in each that replaces it
//	sealed      opaque    the document key, 32 random bytes, encrypted by the root; 1 to
//	                      65535 bytes with their length as uint16
//	body        opaque    Cobblestone-256 message under the document key: the contents
//	checksum    [32]byte  SHA-256 of everything before it
//
// The whole is at most 32 MiB.
//
// The root's associated data is
//
//	"github.com/blobseal/blobseal/v1 localkms root" || 0x00 || service
//
// and the context of the body's message
//
//	"github.com/blobseal/blobseal/v1 localkms document" || 0x00 || everything before the body
//
// so the whole is authentic except for the checksum, which only tells damage from
// a wrong root.
//
// The document key changes with the root alone, so a process asks the root when it
// opens the document, and not for each change. Each write has a salt, and so an
// AEAD key, of its own.
type header struct {
	version    uint8
	service    [16]byte
	generation uint64
	sealed     []byte // the document key
}

const (
	documentMagic   = "\x89KMS\r\n\x1a\n"
	documentVersion = 2
	documentLabel   = "github.com/blobseal/blobseal/v1 localkms document\x00"
	rootLabel       = "github.com/blobseal/blobseal/v1 localkms root\x00"

	maxSealed = 1<<16 - 1
)

// maxDocumentSize is the largest document of a service in bytes. It bounds the
// number of keys: a key without a policy, tags or a description takes about 180
// bytes, and each further version 41. A store that takes only
// [keyring.MaxDocumentSize] holds about 5,800 keys.
const maxDocumentSize = 32 << 20

func (h *header) marshal() []byte {
	b := make([]byte, 0, len(documentMagic)+1+16+8+2+len(h.sealed))
	b = append(b, documentMagic...)
	b = append(b, h.version)
	b = append(b, h.service[:]...)
	b = binary.BigEndian.AppendUint64(b, h.generation)
	b = binary.BigEndian.AppendUint16(b, uint16(len(h.sealed)))
	return append(b, h.sealed...)
}

// parseDocument takes a document apart. It fails with [keyring.ErrDamaged] or
// [keyring.ErrVersion]. body shares data's memory.
func parseDocument(data []byte) (h header, body []byte, err error) {
	if len(data) > maxDocumentSize {
		return h, nil, fmt.Errorf("%w: %d bytes, at most %d", keyring.ErrDamaged, len(data), maxDocumentSize)
	}
	rest, found := bytes.CutPrefix(data, []byte(documentMagic))
	if !found || len(rest) == 0 {
		return h, nil, fmt.Errorf("%w: does not begin as a key service's document", keyring.ErrDamaged)
	}
	if h.version = rest[0]; h.version < 1 || h.version > documentVersion {
		return h, nil, fmt.Errorf("%w: %d, this release knows 1 to %d (install a newer release)", keyring.ErrVersion, h.version, documentVersion)
	}
	if len(rest) < 1+sha256.Size {
		return h, nil, fmt.Errorf("%w: cut short", keyring.ErrDamaged)
	}
	end := len(data) - sha256.Size
	if sum := sha256.Sum256(data[:end]); !bytes.Equal(sum[:], data[end:]) {
		return h, nil, fmt.Errorf("%w: checksum does not match", keyring.ErrDamaged)
	}
	s := cryptobyte.String(data[len(documentMagic)+1 : end])
	var sealed cryptobyte.String
	if !s.CopyBytes(h.service[:]) || !s.ReadUint64(&h.generation) || !s.ReadUint16LengthPrefixed(&sealed) ||
		len(sealed) == 0 || h.generation == 0 {
		return h, nil, fmt.Errorf("%w: header is cut short", keyring.ErrDamaged)
	}
	h.sealed = bytes.Clone(sealed)
	return h, s, nil
}

// newDraft returns the first document of a new service. Sealing draws its key.
func newDraft() *draft {
	d := &draft{state: state{contents: newContents()}, changed: true}
	rand.Read(d.service[:]) // never fails: it ends the program instead
	return d
}

// newKey draws a document key and lets the root seal it.
func (h *header) newKey(ctx context.Context, root keyring.Root) (secret.Key, error) {
	dek := secret.Random()
	sealed, err := root.EncryptWithContext(ctx, dek.Bytes(), h.rootData())
	if err != nil {
		return dek, document.RootError(ctx, errRootSeals, err)
	}
	if len(sealed) == 0 || len(sealed) > maxSealed {
		return dek, fmt.Errorf("localkms: root encrypts %d bytes to %d, want at most %d", secret.KeySize, len(sealed), maxSealed)
	}
	h.sealed = sealed
	if _, err := h.open(ctx, root); err != nil { // nothing is stored that the root does not open
		return dek, fmt.Errorf("localkms: document key just sealed: %w", err)
	}
	return dek, nil
}

// errRootSeals: the root refuses to encrypt.
var errRootSeals = errors.New("localkms: root does not seal the document key")

func (h *header) rootData() []byte { return append([]byte(rootLabel), h.service[:]...) }

// open lets the root open the document key.
func (h *header) open(ctx context.Context, root keyring.Root) (secret.Key, error) {
	raw, err := root.DecryptWithContext(ctx, h.sealed, h.rootData())
	if err != nil {
		return secret.Key{}, document.RootError(ctx, keyring.ErrRoot, err)
	}
	defer clear(raw)
	dek, err := secret.New(raw)
	if err != nil {
		return secret.Key{}, fmt.Errorf("%w: document %w", keyring.ErrDamaged, err)
	}
	return dek, nil
}

// seal encrypts encoded contents as the body of h's document and returns the whole.
func (h *header) seal(dek secret.Key, plaintext []byte) ([]byte, error) {
	head := h.marshal()
	body, err := chunked.Seal(dek.Bytes(), append([]byte(documentLabel), head...), plaintext)
	if err != nil {
		return nil, fmt.Errorf("localkms: %w", err)
	}
	data := append(append(make([]byte, 0, len(head)+len(body)+sha256.Size), head...), body...)
	sum := sha256.Sum256(data)
	return append(data, sum[:]...), nil
}

// sealedSize returns the length of a document with that much plaintext.
func (h *header) sealedSize(plaintext int) int {
	body, err := chunked.CiphertextSize(int64(plaintext))
	if err != nil {
		return math.MaxInt
	}
	return len(h.marshal()) + chunked.HeadSize + int(body) + sha256.Size
}

// openDocument parses and decrypts a document. The root is asked, unless known
// is a snapshot under the same document key. Policies that known holds are taken
// from there.
func openDocument(ctx context.Context, root keyring.Root, data []byte, known *snapshot) (*draft, error) {
	h, body, err := parseDocument(data)
	if err != nil {
		return nil, err
	}
	d := &draft{state: state{header: h, size: len(data)}}
	if known != nil && known.service == h.service && bytes.Equal(known.sealed, h.sealed) {
		d.dek = known.dek
	} else if d.dek, err = h.open(ctx, root); err != nil {
		return nil, err
	}
	plaintext, err := chunked.OpenMessage(d.dek.Bytes(), append([]byte(documentLabel), h.marshal()...), body)
	if err != nil {
		if errors.Is(err, chunked.ErrKey) || errors.Is(err, chunked.ErrCorrupt) {
			return nil, fmt.Errorf("%w: contents are not authentic", keyring.ErrDamaged)
		}
		return nil, fmt.Errorf("%w: %w", keyring.ErrDamaged, err)
	}
	defer clear(plaintext)
	if err := d.contents.parse(plaintext, h.version, known); err != nil {
		return nil, fmt.Errorf("%w: %w", keyring.ErrDamaged, err)
	}
	return d, nil
}
