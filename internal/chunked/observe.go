package chunked

import "io"

// Observed returns c with an observer of its streams and random-access readers, in
// place of the one that c has. f gets the plaintext bytes that a call encrypted or
// released, and the error that ended the stream: [io.EOF] if it was a whole message
// and has ended well. Calls of one stream come one at a time, in the goroutine that
// uses the stream.
func (c *Cipher) Observed(f func(plain int64, err error)) *Cipher {
	observed := *c
	observed.observe = f
	return &observed
}

// tell tells an observer, if there is one, what a call did.
func tell(observe func(int64, error), plain int64, err error) {
	if observe != nil && (plain > 0 || err != nil) {
		observe(plain, err)
	}
}

// tellRead tells the observer that the reader released n bytes, and once that it
// ended.
func (r *Reader) tellRead(n int64) {
	if r.observe == nil {
		return
	}
	if !r.decrypt {
		before := plainIn(r.sealed)
		r.sealed += n
		n = plainIn(r.sealed) - before
	}
	var end error
	if r.err != nil && len(r.out) == 0 && !r.told {
		r.told, end = true, r.err
	}
	if end == io.EOF && r.partial {
		end = nil
	}
	tell(r.observe, n, end)
}

// plainIn returns how many plaintext bytes the first n bytes of a body hold, if
// a tag follows what is there of the last chunk. So it is exact at the end of a
// body and of each chunk.
func plainIn(n int64) int64 {
	return n/SealedChunkSize*ChunkSize + max(0, n%SealedChunkSize-TagSize)
}
