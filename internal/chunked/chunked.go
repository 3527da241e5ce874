// Package chunked implements Cobblestone-256, the AES-256-GCM instance of
// c2sp.org/chunked-encryption@v1: messages of up to 4 PiB, encrypted and
// decrypted as a stream or at random, in bounded memory.
//
// A message has a head (salt and key commitment, [HeadSize] bytes) and a body
// (chunks). The API separates them, since blobseal stores the head in an
// envelope. [New] and [Open] turn a key, a context and a head into a [Cipher],
// whose streams and random-access readers turn plaintext into a body and back.
// [Seal] and [OpenMessage] handle short messages as a whole.
//
// A reader releases no byte of a chunk before the chunk's tag verifies, and
// returns [io.EOF] only after the last chunk verified. The package knows
// nothing about envelopes, modes and key rings.
package chunked

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
)

// Sizes in bytes, from the specification.
const (
	KeySize         = 32
	SaltSize        = 24
	CommitmentSize  = 32
	HeadSize        = SaltSize + CommitmentSize
	ChunkSize       = 16384 // plaintext of every chunk but the last
	TagSize         = 16
	SealedChunkSize = ChunkSize + TagSize
	nonceSize       = 12
)

// MaxChunks is the largest number of chunks of one message.
const MaxChunks = 1 << 38

// Errors of this package. They carry the prefix of package sse, which exports
// them under the same names.
var (
	// ErrKey: the commitment does not match. The key or the context is wrong, or
	// the head was edited.
	ErrKey = errors.New("sse: wrong key, object or context, or edited envelope")

	// ErrCorrupt: a chunk is not authentic.
	ErrCorrupt = errors.New("sse: object is corrupt")

	// ErrTooLarge: a size or an offset exceeds the format.
	ErrTooLarge = errors.New("sse: too large")

	// ErrInvalid: an argument is wrong, whatever the message.
	ErrInvalid = errors.New("sse: invalid argument")
)

// info begins the info field of HKDF-Expand.
const info = "c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\x00"

// Cipher encrypts or decrypts the chunks of one message. It is immutable and
// safe for concurrent use. To encrypt, use one stream of it: two would use nonces
// twice.
type Cipher struct {
	aead    cipher.AEAD
	base    [nonceSize]byte
	observe func(plain int64, err error) // see Observed; may be nil
}

// New begins a message under key ([KeySize] bytes) and context. It draws a salt
// and returns the message's cipher and head.
func New(key, context []byte) (*Cipher, [HeadSize]byte, error) {
	var salt [SaltSize]byte
	rand.Read(salt[:]) // crashes the program rather than fail
	return FromSalt(key, context, salt[:])
}

// FromSalt returns the cipher and the head of the message that salt begins
// under key and context. Encrypt only with a salt that was drawn for one message.
func FromSalt(key, context, salt []byte) (c *Cipher, head [HeadSize]byte, err error) {
	if len(key) != KeySize || len(salt) != SaltSize {
		return nil, head, fmt.Errorf("%w: key has %d bytes and salt %d, want %d and %d", ErrInvalid, len(key), len(salt), KeySize, SaltSize)
	}
	okm := expand(key, salt, context)
	block, err := aes.NewCipher(okm[:KeySize])
	clear(okm[:KeySize])
	if err != nil {
		return nil, head, fmt.Errorf("chunked: %w", err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, head, fmt.Errorf("chunked: %w", err)
	}
	c = &Cipher{aead: aead}
	copy(c.base[:], okm[KeySize:])
	copy(head[:], salt)
	copy(head[SaltSize:], okm[KeySize+nonceSize:]) // the commitment
	return c, head, nil
}

// Open returns the cipher of a message with this head. It fails with [ErrKey]
// unless head commits to key and context.
func Open(key, context, head []byte) (*Cipher, error) {
	if len(head) != HeadSize {
		return nil, fmt.Errorf("%w: head has %d bytes, want %d", ErrInvalid, len(head), HeadSize)
	}
	c, want, err := FromSalt(key, context, head[:SaltSize])
	if err != nil {
		return nil, err
	}
	if subtle.ConstantTimeCompare(want[:], head) != 1 {
		return nil, ErrKey
	}
	return c, nil
}

// nonce sets n to the nonce of chunk i: the base nonce, with i XORed into its
// last bytes.
func (c *Cipher) nonce(n *[nonceSize]byte, i uint64) {
	*n = c.base
	last := n[nonceSize-8:]
	binary.BigEndian.PutUint64(last, binary.BigEndian.Uint64(last)^i)
}

// sealChunk appends the sealed chunk i to dst. n is scratch space on the caller's
// heap, so that chunks do not allocate.
func (c *Cipher) sealChunk(dst, plaintext []byte, i uint64, n *[nonceSize]byte) []byte {
	c.nonce(n, i)
	return c.aead.Seal(dst, n[:], plaintext, nil)
}

// openChunk appends the plaintext of chunk i to dst. If it fails, it clears the
// part of dst that it would have filled.
func (c *Cipher) openChunk(dst, sealed []byte, i uint64, n *[nonceSize]byte) ([]byte, error) {
	c.nonce(n, i)
	plaintext, err := c.aead.Open(dst, n[:], sealed, nil)
	if err != nil {
		return nil, &ChunkError{Chunk: int64(i)}
	}
	return plaintext, nil
}

// sealChunks appends whole chunks, sealed, to dst. The first one is chunk i.
func (c *Cipher) sealChunks(dst, plaintext []byte, i uint64, n *[nonceSize]byte) []byte {
	for ; len(plaintext) > 0; i++ {
		dst = c.sealChunk(dst, plaintext[:ChunkSize], i, n)
		plaintext = plaintext[ChunkSize:]
	}
	return dst
}

// openChunks appends the plaintext of chunks to dst. The first one is chunk i, and the
// last one may be shorter than the others. If a chunk fails, openChunks returns the
// plaintext of those before it.
func (c *Cipher) openChunks(dst, sealed []byte, i uint64, n *[nonceSize]byte) ([]byte, error) {
	for ; len(sealed) > 0; i++ {
		size := min(len(sealed), SealedChunkSize)
		opened, err := c.openChunk(dst, sealed[:size], i, n)
		if err != nil {
			return dst, err
		}
		dst, sealed = opened, sealed[size:]
	}
	return dst, nil
}

// Seal encrypts plaintext under key and context. It returns head and body.
func Seal(key, context, plaintext []byte) ([]byte, error) {
	bodySize, err := CiphertextSize(int64(len(plaintext)))
	if err != nil {
		return nil, err
	}
	c, head, err := New(key, context)
	if err != nil {
		return nil, err
	}
	message := append(make([]byte, 0, HeadSize+bodySize), head[:]...)
	whole := len(plaintext) / ChunkSize * ChunkSize
	var n [nonceSize]byte
	message = c.sealChunks(message, plaintext[:whole], 0, &n)
	return c.sealChunk(message, plaintext[whole:], uint64(whole/ChunkSize), &n), nil
}

// OpenMessage decrypts what [Seal] returned. It fails with [ErrKey],
// [ErrCorrupt] or [ErrTruncated].
func OpenMessage(key, context, message []byte) ([]byte, error) {
	if len(message) < HeadSize {
		return nil, ErrTruncated
	}
	c, err := Open(key, context, message[:HeadSize])
	if err != nil {
		return nil, err
	}
	body := message[HeadSize:]
	size, err := PlaintextSize(int64(len(body)))
	if err != nil {
		return nil, err
	}
	var n [nonceSize]byte
	plaintext, err := c.openChunks(make([]byte, 0, size), body, 0, &n)
	if err != nil {
		return nil, err
	}
	return plaintext, nil
}
