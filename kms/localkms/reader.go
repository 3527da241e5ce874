package localkms

import (
	"fmt"

	"golang.org/x/crypto/cryptobyte"
)

// reader reads values from s until the first error, and zeros from then on.
type reader struct {
	s   cryptobyte.String
	err error
}

// count16 reads how many things of at least size bytes follow.
func (r *reader) count16(size int) int {
	count := int(r.uint16())
	if !r.fits(count, size) {
		return 0
	}
	return count
}

func (r *reader) mark() (m mark) {
	r.bytes(m[:])
	return m
}

func (r *reader) fail(reason string) {
	if r.err == nil {
		r.err, r.s = fmt.Errorf("contents: %s", reason), nil
	}
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

// fits reports whether so many things of at least size bytes can follow.
func (r *reader) fits(count, size int) bool {
	if r.err == nil && count > len(r.s)/size {
		r.fail("cut short")
	}
	return r.err == nil
}

// count reads how many things of at least size bytes follow.
func (r *reader) count(size int) int {
	count := r.uint32()
	if r.err != nil || int64(count) > int64(len(r.s)/size) {
		r.fail("cut short")
		return 0
	}
	return int(count)
}
