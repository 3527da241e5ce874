package sse

import "io"

// Observed returns e with an observer, for telemetry: f gets the plaintext bytes
// of each call of e's stream, and the error that ended the stream, which is
// [io.EOF] once the whole object is encrypted. The stream calls f in the goroutine
// that uses the stream. Observers that e already has are called first.
//
// The result takes the place of e, whose own streams are [ErrUsed] from then on.
// For [StartMultipart], f gets the bytes and errors of all parts, from several
// goroutines at once, and never io.EOF.
func (e *Encryption) Observed(f func(plain int64, err error)) *Encryption {
	observed := &Encryption{envelope: e.envelope, observe: join(e.observe, f)}
	if e.body != nil {
		observed.body = e.body.Observed(observed.observe)
	}
	observed.used.Store(e.used.Swap(true))
	return observed
}

// Observed returns d with an observer, for telemetry: f gets the plaintext bytes
// that each call of a reader released, and the error that ended the reader. A reader
// of a whole object ends with [io.EOF], once the end is authentic; f does not hear of
// the end of a range, or of a composite object. Readers call f in the goroutines that
// use them. Observers that d already has are called first.
func (d *Decryption) Observed(f func(plain int64, err error)) *Decryption {
	observed := &Decryption{envelope: d.envelope, dek: d.dek, observe: join(d.observe, f)}
	if d.body != nil {
		observed.body = d.body.Observed(observed.observe)
	}
	return observed
}

// observer is what Observed takes; nil observes nothing.
type observer func(plain int64, err error)

func join(first, second observer) observer {
	if first == nil {
		return second
	}
	return func(plain int64, err error) {
		first(plain, err)
		second(plain, err)
	}
}

// part observes the stream of one part. It drops io.EOF, since the end of a part is
// not the end of the object.
func (o observer) part(plain int64, err error) {
	if err == io.EOF {
		err = nil
	}
	if o != nil && (plain > 0 || err != nil) {
		o(plain, err)
	}
}
