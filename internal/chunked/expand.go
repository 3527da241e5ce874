package chunked

import (
	"crypto/sha512"
	"crypto/subtle"
)

// expand is HKDF-Expand with SHA-512 (RFC 5869), info || salt || context as its
// info, and its first two blocks as output. It does what [crypto/hkdf] does, with
// HMAC (RFC 2104) written out for a key that is shorter than a block: all but the
// output stays on the stack, which saves a small object a fifth of its time and
// half of its garbage.
func expand(key, salt, context []byte) []byte {
	h := sha512.New()
	var block [sha512.BlockSize]byte
	begin := func(pad byte) { // a hash, with the key, filled up to a block, XOR pad
		for i := range block {
			block[i] = pad
		}
		subtle.XORBytes(block[:], block[:], key)
		h.Reset()
		h.Write(block[:])
	}
	okm := make([]byte, 0, 2*sha512.Size)
	for i := byte(1); i <= 2; i++ {
		last := okm // the first block, when the second is made
		begin(0x36)
		h.Write(last)
		h.Write([]byte(info))
		h.Write(salt)
		h.Write(context)
		h.Write([]byte{i})
		inner := h.Sum(last)[len(last):]
		begin(0x5c)
		h.Write(inner)
		okm = h.Sum(last)
	}
	clear(block[:])
	return okm
}
