// Package chunked implements Cobblestone-256, the AES-256-GCM instance of
// c2sp.org/chunked-encryption@v1: messages of up to 4 PiB, encrypted and
// decrypted as a stream or at random, in bounded memory.
//
// A message is a head (salt and key commitment, [HeadSize] bytes) and a body
// (chunks). The two are handled apart, since blobseal stores the head inside an
// envelope. [New] and [Open] turn a key, a context and a head into a [Cipher];
// the streams and random-access readers of a Cipher then turn plaintext into a
// body and back. [Seal] and [OpenMessage] do whole short messages.
//
// No byte of a chunk is released before its tag has passed, and a stream ends
// with [io.EOF] only after its last chunk has. The package knows nothing of
// envelopes, modes or key rings.
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

// Errors of this package. Package sse exports them under the same names to its
// users, and so they carry its prefix.
var (
	// ErrKey: the commitment does not match. The key or the context is another,
	// or the head was changed.
	ErrKey = errors.New("sse: wrong key, object or context, or edited envelope")

	// ErrCorrupt: a chunk is not authentic.
	ErrCorrupt = errors.New("sse: object is corrupt")

	// ErrTooLarge: a size or an offset is beyond what the format can hold.
	ErrTooLarge = errors.New("sse: too large")

	// ErrInvalid: an argument that is wrong in itself.
	ErrInvalid = errors.New("sse: invalid argument")
)

// info is the fixed start of HKDF-Expand's info field.
const info = "c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\x00"

// Cipher encrypts or decrypts the chunks of one message. It is immutable and
// safe for concurrent use. Whoever encrypts with it must give each chunk index
// to one plaintext only.
type Cipher struct {
	aead cipher.AEAD
	base [nonceSize]byte
}

// New starts a message under key (KeySize bytes) and context: it draws a salt
// and returns the message's cipher and its head.
func New(key, context []byte) (*Cipher, [HeadSize]byte, error) {
	var head [HeadSize]byte
	rand.Read(head[:SaltSize]) // never fails: it ends the program instead
	c, commitment, err := derive(key, head[:SaltSize], context)
	if err != nil {
		return nil, head, err
	}
	copy(head[SaltSize:], commitment)
	return c, head, nil
}

// Open returns the cipher of the message that head begins. It fails with
// [ErrKey] unless head's commitment is that of key and context.
func Open(key, context, head []byte) (*Cipher, error) {
	if len(head) != HeadSize {
		return nil, fmt.Errorf("%w: head is %d bytes, want %d", ErrInvalid, len(head), HeadSize)
	}
	c, commitment, err := derive(key, head[:SaltSize], context)
	if err != nil {
		return nil, err
	}
	if subtle.ConstantTimeCompare(commitment, head[SaltSize:]) != 1 {
		return nil, ErrKey
	}
	return c, nil
}

// derive is the specification's key derivation.
func derive(key, salt, context []byte) (c *Cipher, commitment []byte, err error) {
	if len(key) != KeySize {
		return nil, nil, fmt.Errorf("%w: key is %d bytes, want %d", ErrInvalid, len(key), KeySize)
	}
	okm := expand(key, salt, context)
	c, err = newRaw(okm[:KeySize], okm[KeySize:KeySize+nonceSize])
	clear(okm[:KeySize])
	return c, okm[KeySize+nonceSize:][:CommitmentSize], err
}

// newRaw is the specification's raw mode: chunks under a derived key and nonce.
func newRaw(aeadKey, baseNonce []byte) (*Cipher, error) {
	block, err := aes.NewCipher(aeadKey)
	if err != nil {
		return nil, fmt.Errorf("chunked: %w", err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("chunked: %w", err)
	}
	c := &Cipher{aead: aead}
	copy(c.base[:], baseNonce)
	return c, nil
}

// nonce sets n to the nonce of chunk i: the base nonce XOR i, in its last bytes.
func (c *Cipher) nonce(n *[nonceSize]byte, i uint64) {
	*n = c.base
	last := n[nonceSize-8:]
	binary.BigEndian.PutUint64(last, binary.BigEndian.Uint64(last)^i)
}

// sealChunk appends the encryption of chunk i to dst. n is scratch space that
// the caller keeps on the heap, so that no chunk allocates.
func (c *Cipher) sealChunk(dst, plaintext []byte, i uint64, n *[nonceSize]byte) []byte {
	c.nonce(n, i)
	return c.aead.Seal(dst, n[:], plaintext, nil)
}

// openChunk appends the plaintext of chunk i to dst. On failure the part of
// dst that it would have filled is zero.
func (c *Cipher) openChunk(dst, sealed []byte, i uint64, n *[nonceSize]byte) ([]byte, error) {
	c.nonce(n, i)
	plaintext, err := c.aead.Open(dst, n[:], sealed, nil)
	if err != nil {
		return nil, &ChunkError{Chunk: int64(i)}
	}
	return plaintext, nil
}

// Seal encrypts a whole message under key and context: a head and a body.
func Seal(key, context, plaintext []byte) ([]byte, error) {
	bodySize, err := CiphertextSize(int64(len(plaintext)))
	if err != nil {
		return nil, err
	}
	c, head, err := New(key, context)
	if err != nil {
		return nil, err
	}
	message := make([]byte, HeadSize, HeadSize+bodySize)
	copy(message, head[:])
	var n [nonceSize]byte
	for i := uint64(0); ; i++ {
		chunk := plaintext[:min(len(plaintext), ChunkSize)]
		message = c.sealChunk(message, chunk, i, &n)
		if len(chunk) < ChunkSize {
			return message, nil
		}
		plaintext = plaintext[ChunkSize:]
	}
}

// OpenMessage decrypts what [Seal] returned. Its errors are [ErrKey],
// [ErrCorrupt] and [ErrTruncated].
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
	plaintext := make([]byte, 0, size)
	var n [nonceSize]byte
	for i := uint64(0); ; i++ {
		chunk := body[:min(len(body), SealedChunkSize)]
		plaintext, err = c.openChunk(plaintext, chunk, i, &n)
		if err != nil {
			return nil, err
		}
		if len(chunk) < SealedChunkSize {
			return plaintext, nil
		}
		body = body[SealedChunkSize:]
	}
}
