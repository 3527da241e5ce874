package localkms

import (
	"fmt"

	"golang.org/x/crypto/cryptobyte"
)

// reader reads values from s until the first error, and zeros from then on.
type reader struct {
	s   cryptobyte.String
	err error

	policies []*policy // of the document
	named    int       // how many of them a key has named so far
}

func (r *reader) fail(reason string) {
	if r.err == nil {
		r.err, r.s = fmt.Errorf("contents: %s", reason), nil
	}
}

// fits returns count if so many things of at least size bytes can follow.
func (r *reader) fits(count uint32, size int) int {
	if int64(count) > int64(len(r.s)/size) {
		r.fail("cut short")
		return 0
	}
	return int(count)
}

// ascending refuses values that are out of order, or there twice.
func ascending[T any](r *reader, what string, values []T, compare func(a, b T) int) {
	for i := 1; i < len(values); i++ {
		if compare(values[i-1], values[i]) >= 0 {
			r.fail(what + " are not in order")
		}
	}
}

// readCode reads a value by its number in codes, which begins with 1.
func readCode[T any](r *reader, codes []T) (value T) {
	number := int(r.uint8())
	if number == 0 || number >= len(codes) {
		r.fail("a state or an origin of no number")
		return value
	}
	return codes[number]
}

// pairs reads names and values of at least size bytes together, in order of the names.
func (r *reader) pairs(count uint32, size int, name func() string) map[string]string {
	n := r.fits(count, size)
	if n == 0 {
		return nil
	}
	pairs := make(map[string]string, n)
	before := ""
	for i := range n {
		name, value := name(), r.text16()
		if i > 0 && name <= before {
			r.fail("names are not in order")
		}
		pairs[name], before = value, name
	}
	return pairs
}

func (r *reader) mark() (m mark) {
	r.bytes(m[:])
	return m
}

func (r *reader) bytes(b []byte) {
	if !r.s.CopyBytes(b) {
		r.fail("cut short")
	}
}

func (r *reader) uint8() (n uint8) {
	if !r.s.ReadUint8(&n) {
		r.fail("cut short")
	}
	return n
}

func (r *reader) uint16() (n uint16) {
	if !r.s.ReadUint16(&n) {
		r.fail("cut short")
	}
	return n
}

func (r *reader) uint32() (n uint32) {
	if !r.s.ReadUint32(&n) {
		r.fail("cut short")
	}
	return n
}

func (r *reader) time() int64 {
	var n uint64
	if !r.s.ReadUint64(&n) {
		r.fail("cut short")
	}
	if n > uint64(maxMillis) {
		r.fail("a time beyond the year 9999")
		return 0
	}
	return int64(n)
}

func (r *reader) text8() string {
	var s cryptobyte.String
	if !r.s.ReadUint8LengthPrefixed(&s) {
		r.fail("cut short")
	}
	return string(s)
}

func (r *reader) text16() string {
	var s cryptobyte.String
	if !r.s.ReadUint16LengthPrefixed(&s) {
		r.fail("cut short")
	}
	return string(s)
}
