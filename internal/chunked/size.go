package chunked

import "fmt"

// MaxPlaintextSize is the size of the largest plaintext: a byte less than 4 PiB,
// since the last of [MaxChunks] chunks is never a whole one.
const MaxPlaintextSize = MaxChunks*ChunkSize - 1

// maxBodySize is the body size of MaxPlaintextSize bytes.
const maxBodySize = MaxPlaintextSize + MaxChunks*TagSize

// CiphertextSize returns the body size of a plaintext of the given size. It fails
// with [ErrTooLarge] above [MaxPlaintextSize].
func CiphertextSize(plain int64) (int64, error) {
	if plain < 0 {
		return 0, fmt.Errorf("%w: negative size %d", ErrInvalid, plain)
	}
	if plain > MaxPlaintextSize {
		return 0, fmt.Errorf("%w: plaintext has %d bytes, at most %d fit", ErrTooLarge, plain, int64(MaxPlaintextSize))
	}
	return plain + TagSize*(plain/ChunkSize+1), nil
}

// PlaintextSize is the inverse of [CiphertextSize]. If no body has that size, the
// error is [ErrTruncated], or [ErrTooLarge] above the largest body.
func PlaintextSize(body int64) (int64, error) {
	if body < 0 {
		return 0, fmt.Errorf("%w: negative size %d", ErrInvalid, body)
	}
	if body > maxBodySize {
		return 0, fmt.Errorf("%w: body has %d bytes, at most %d fit", ErrTooLarge, body, int64(maxBodySize))
	}
	whole, last := body/SealedChunkSize, body%SealedChunkSize
	if last < TagSize {
		return 0, fmt.Errorf("%w: no body has %d bytes", ErrTruncated, body)
	}
	return whole*ChunkSize + last - TagSize, nil
}

// CiphertextRange returns which part of a body a range reader needs for n
// plaintext bytes from off: whole chunks and, for a range that ends with a
// chunk, 17 bytes of the next one, which prove that the message does not end
// there. The body may end before bodyOff+bodyLen. A negative n means to the end
// and gives a negative bodyLen; an n of zero needs no bytes. An n beyond the
// largest message is reduced to it. A negative off is [ErrInvalid], one beyond
// the largest message is [ErrTooLarge].
func CiphertextRange(off, n int64) (bodyOff, bodyLen int64, err error) {
	if off < 0 {
		return 0, 0, fmt.Errorf("%w: negative offset %d", ErrInvalid, off)
	}
	if off > MaxPlaintextSize {
		return 0, 0, fmt.Errorf("%w: offset is %d, at most %d", ErrTooLarge, off, int64(MaxPlaintextSize))
	}
	first := off / ChunkSize
	switch {
	case n < 0:
		return first * SealedChunkSize, -1, nil
	case n == 0:
		return first * SealedChunkSize, 0, nil
	}
	end := off + min(n, MaxPlaintextSize-off+1)
	bodyLen = ((end-1)/ChunkSize - first + 1) * SealedChunkSize
	if end%ChunkSize == 0 && end < MaxPlaintextSize {
		bodyLen += proof
	}
	return first * SealedChunkSize, bodyLen, nil
}
