package sse

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/crypto/cryptobyte"

	"github.com/blobseal/blobseal/kms"
)

// pairs is an encryption context in an envelope's encoding: the names ascend, and
// each name and value follows its length, a uint16. A string serves best, since
// pairs are written, bound and measured more often than read.
type pairs string

// encodePairs encodes a context. It does not check names and values: see check.
func encodePairs(c kms.Context) (pairs, error) {
	if len(c) == 0 {
		return "", nil
	}
	size := 0
	for name, value := range c {
		size += 2 + len(name) + 2 + len(value)
		if size > maxContext { // inside the loop: the sum of all could overflow
			return "", fmt.Errorf("%w: encryption context has more than %d bytes", ErrTooLarge, maxContext)
		}
	}
	b := cryptobyte.NewFixedBuilder(make([]byte, 0, size))
	for _, name := range slices.Sorted(maps.Keys(c)) {
		addField(b, name)
		addField(b, c[name])
	}
	return pairs(b.BytesOrPanic()), nil
}

// parsePairs checks that s encodes pairs, in order. It does not check names and
// values: see check.
func parsePairs(s cryptobyte.String) (pairs, error) {
	p := pairs(s)
	for last := ""; !s.Empty(); {
		var name, value cryptobyte.String
		if !s.ReadUint16LengthPrefixed(&name) || !s.ReadUint16LengthPrefixed(&value) {
			return "", fmt.Errorf("%w: pair exceeds the encryption context", ErrFormat)
		}
		if string(name) <= last {
			return "", fmt.Errorf("%w: names of the encryption context do not ascend", ErrFormat)
		}
		last = string(name)
	}
	return p, nil
}

// each yields the pairs in order.
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

// check refuses names and values that the format does not allow in a mode.
func (p pairs) check(mode Mode) error {
	for name, value := range p.each {
		if name == "" {
			return fmt.Errorf("%w: encryption context has an empty name", ErrInvalid)
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

// bucketKeyPairs is the context of most objects under a bucket key: the caller
// added no pairs.
var bucketKeyPairs, _ = encodePairs(kms.Context{contextBucketKey: "true"})
