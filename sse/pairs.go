package sse

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"golang.org/x/crypto/cryptobyte"

	"github.com/blobseal/blobseal/kms"
)

// pairs is an encryption context as an envelope encodes it: each name and each
// value behind its length, a uint16, the names ascending. One string, since it is
// written, bound and measured more often than it is looked into.
type pairs string

// encodePairs encodes a context, whatever its names and values are: see check.
func encodePairs(c kms.Context) (pairs, error) {
	if len(c) == 0 {
		return "", nil
	}
	size := 0
	for name, value := range c {
		size += 2 + len(name) + 2 + len(value)
		if size > maxContext { // at once: the sum of them all may overflow
			return "", fmt.Errorf("%w: encryption context of more than %d bytes", ErrTooLarge, maxContext)
		}
	}
	b := cryptobyte.NewFixedBuilder(make([]byte, 0, size))
	for _, name := range c.Keys() {
		addString(b, name)
		addString(b, c[name])
	}
	return pairs(b.BytesOrPanic()), nil
}

// parsePairs checks that s is pairs in their order. What they may be is for the
// envelope's check, as it is for those of encodePairs.
func parsePairs(s cryptobyte.String) (pairs, error) {
	p := pairs(s)
	for last := ""; !s.Empty(); {
		var name, value cryptobyte.String
		if !s.ReadUint16LengthPrefixed(&name) || !s.ReadUint16LengthPrefixed(&value) {
			return "", fmt.Errorf("%w: a pair of the encryption context does not fit", ErrFormat)
		}
		if string(name) <= last {
			return "", fmt.Errorf("%w: encryption context is not in order", ErrFormat)
		}
		last = string(name)
	}
	return p, nil
}

// each yields the pairs in their order.
func (p pairs) each(yield func(name, value string) bool) {
	field := func() (s string) {
		n := 2 + int(p[0])<<8 + int(p[1])
		s, p = string(p[2:n]), p[n:]
		return s
	}
	for len(p) > 0 {
		if name := field(); !yield(name, field()) {
			return
		}
	}
}

// check reports what the format does not allow in an envelope of that mode.
func (p pairs) check(mode Mode) error {
	for name, value := range p.each {
		if name == "" {
			return fmt.Errorf("%w: empty name in the encryption context", ErrInvalid)
		}
		if strings.HasPrefix(name, reservedPrefix) && (mode != ModeKMS || name != contextBucketKey || value != "true") {
			return fmt.Errorf("%w: %q in the encryption context is reserved", ErrInvalid, name)
		}
		if !utf8.ValidString(name) || !utf8.ValidString(value) {
			return fmt.Errorf("%w: encryption context %q is not UTF-8", ErrInvalid, name)
		}
	}
	return nil
}

// bucketKeyPairs is the context of an object under a bucket key without pairs of
// the caller's, as most are.
var bucketKeyPairs, _ = encodePairs(kms.Context{contextBucketKey: "true"})
