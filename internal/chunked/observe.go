package chunked

import "io"

// Observed returns c with an observer of its streams and random-access readers, in
// place of the one that c has. f gets the plaintext bytes that a call encrypted or
// released, and the error that ended the stream: [io.EOF] if the stream was a whole
// message and ended well. A stream calls f in the goroutine that uses the stream.
func (c *Cipher) Observed(f func(plain int64, err error)) *Cipher {
	observed := *c
	observed.observe = f
	return &observed
}

// tell tells the observer, if there is one, what a call did.
func (c *Cipher) tell(plain int64, err error) {
	if c.observe != nil && (plain > 0 || err != nil) {
		c.observe(plain, err)
	}
}

// tellRead tells the observer that a call returned n bytes or, if the reader
// encrypts, how many it sealed, and once that the reader ended.
func (r *Reader) tellRead(n int64) {
	if !r.decrypt {
		n, r.sealed = r.sealed, 0
	}
	var end error
	if r.err != nil && len(r.out) == 0 && !r.told {
		r.told, end = true, r.err
	}
	if end == io.EOF && r.partial {
		end = nil
	}
	r.c.tell(n, end)
}
