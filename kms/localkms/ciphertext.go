package localkms

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/crypto/cryptobyte"

	"github.com/blobseal/blobseal/internal/chunked"
	"github.com/blobseal/blobseal/internal/secret"
	"github.com/blobseal/blobseal/kms"
)

// A ciphertext is, big-endian:
//
//	format   uint8     1
//	key      [16]byte  the key's id
//	version  uint32    which of its versions, from 1
//	message  opaque    Cobblestone-256 message of 1 to 4096 bytes
//
// The message's key is the version's, its context
//
//	ciphertextLabel || format || key || version || pairs
//
// where pairs are the encryption context's, in ascending byte order of the names,
// each name and value with its length before it as uint32. There is one
// ciphertext for each parsed value: what follows the message is part of it.
const (
	ciphertextFormat = 1
	ciphertextHead   = 1 + 16 + 4
	ciphertextLabel  = "github.com/blobseal/blobseal/v1 localkms ciphertext\x00"

	minCiphertext = ciphertextHead + chunked.HeadSize + 1 + chunked.TagSize
	maxCiphertext = ciphertextHead + chunked.HeadSize + maxPlaintext + chunked.TagSize
)

const (
	// maxPlaintext is the largest plaintext of [Client.Encrypt], in bytes.
	maxPlaintext = 4096

	// maxContext is the size of the largest encryption context: the bytes of its names
	// and values, plus 8 for each pair.
	maxContext = 8192
)

// blob is a parsed ciphertext. message is the caller's memory.
type blob struct {
	key     keyID
	version uint32
	message []byte
}

func parseBlob(data []byte) (blob, error) {
	if len(data) < minCiphertext || len(data) > maxCiphertext {
		return blob{}, fmt.Errorf("%w: %d bytes", kms.ErrCiphertext, len(data))
	}
	if data[0] != ciphertextFormat {
		return blob{}, fmt.Errorf("%w: not of this service", kms.ErrCiphertext)
	}
	b := blob{version: binary.BigEndian.Uint32(data[17:21]), message: data[ciphertextHead:]}
	copy(b.key[:], data[1:17])
	if b.version == 0 {
		return blob{}, fmt.Errorf("%w: not of this service", kms.ErrCiphertext)
	}
	return b, nil
}

// head returns what stands before the message.
func (b blob) head() []byte {
	head := append(make([]byte, 0, ciphertextHead), ciphertextFormat)
	head = append(head, b.key[:]...)
	return binary.BigEndian.AppendUint32(head, b.version)
}

// sealBlob encrypts plaintext under a version of a key.
func sealBlob(id keyID, v *material, plaintext []byte, ec kms.Context) ([]byte, error) {
	head := blob{key: id, version: v.number}.head()
	message, err := chunked.Seal(v.key.Bytes(), bind(head, ec), plaintext)
	if err != nil {
		return nil, fmt.Errorf("localkms: %w", err)
	}
	return append(head, message...), nil
}

// openBlob is the inverse of sealBlob.
func openBlob(b blob, key secret.Key, ec kms.Context) ([]byte, error) {
	plaintext, err := chunked.OpenMessage(key.Bytes(), bind(b.head(), ec), b.message)
	if err != nil {
		if errors.Is(err, chunked.ErrKey) || errors.Is(err, chunked.ErrCorrupt) {
			return nil, kms.ErrCiphertext
		}
		return nil, fmt.Errorf("localkms: %w", err)
	}
	return plaintext, nil
}

// bind returns the context of a ciphertext's message.
func bind(head []byte, ec kms.Context) []byte {
	b := cryptobyte.NewBuilder(make([]byte, 0, len(ciphertextLabel)+ciphertextHead+contextSize(ec)))
	b.AddBytes([]byte(ciphertextLabel))
	b.AddBytes(head)
	for _, name := range slices.Sorted(maps.Keys(ec)) {
		for _, s := range []string{name, ec[name]} {
			b.AddUint32(uint32(len(s)))
			b.AddBytes([]byte(s))
		}
	}
	return b.BytesOrPanic()
}

func contextSize(ec kms.Context) int {
	size := 0
	for name, value := range ec {
		size += 8 + len(name) + len(value)
	}
	return size
}

// checkContext bounds an encryption context.
func checkContext(ec kms.Context) error {
	if size := contextSize(ec); size > maxContext {
		return invalid("encryption context is %d bytes, at most %d", size, maxContext)
	}
	return nil
}
