package localkms

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"slices"
)

// codec reads or writes a document's contents, so that one function describes each
// part for both. Each method reads the value that its argument points to, or writes it
// and changes nothing. After the first error, it reads zeros.
type codec struct {
	reading bool
	in      []byte // what is left to read
	out     []byte // what was written
	err     error

	policies []*policy
	numbers  map[string]uint32  // of policies by their text, to write
	known    map[string]*policy // by their text, to use instead of those read
}

func (c *codec) fail(reason string) {
	if c.err == nil {
		c.err, c.in = fmt.Errorf("contents: %s", reason), nil
	}
}

// check fails unless what was read is ok.
func (c *codec) check(ok bool, reason string) {
	if c.reading && !ok {
		c.fail(reason)
	}
}

// next returns the next size bytes to read, or zeros.
func (c *codec) next(size int) []byte {
	if len(c.in) < size {
		c.fail("truncated")
		return make([]byte, size)
	}
	b := c.in[:size]
	c.in = c.in[size:]
	return b
}

func (c *codec) bytes(b []byte) {
	if c.reading {
		copy(b, c.next(len(b)))
	} else {
		c.out = append(c.out, b...)
	}
}

func (c *codec) uint8(n *uint8) {
	if c.reading {
		*n = c.next(1)[0]
	} else {
		c.out = append(c.out, *n)
	}
}

func (c *codec) bool(v *bool) {
	var n uint8
	if *v {
		n = 1
	}
	c.uint8(&n)
	c.check(n <= 1, "malformed boolean")
	if c.reading {
		*v = n == 1
	}
}

func (c *codec) uint16(n *uint16) {
	if c.reading {
		*n = binary.BigEndian.Uint16(c.next(2))
	} else {
		c.out = binary.BigEndian.AppendUint16(c.out, *n)
	}
}

func (c *codec) uint32(n *uint32) {
	if c.reading {
		*n = binary.BigEndian.Uint32(c.next(4))
	} else {
		c.out = binary.BigEndian.AppendUint32(c.out, *n)
	}
}

func (c *codec) time(ms *int64) {
	if !c.reading {
		c.out = binary.BigEndian.AppendUint64(c.out, uint64(*ms))
		return
	}
	n := binary.BigEndian.Uint64(c.next(8))
	c.check(n <= uint64(maxMillis), "time after the year 9999")
	*ms = int64(min(n, uint64(maxMillis)))
}

// size reads or writes a length or a count, in so many bytes.
func (c *codec) size(width, n int) int {
	var b [4]byte
	if c.reading {
		copy(b[4-width:], c.next(width))
		return int(min(binary.BigEndian.Uint32(b[:]), math.MaxInt32))
	}
	if int64(n) >= 1<<(8*width) {
		c.fail("text or list is too long") // callers are refused before that
	}
	binary.BigEndian.PutUint32(b[:], uint32(n))
	c.out = append(c.out, b[4-width:]...)
	return n
}

func (c *codec) text8(s *string)  { c.text(1, s) }
func (c *codec) text16(s *string) { c.text(2, s) }

func (c *codec) text(width int, s *string) {
	n := c.size(width, len(*s))
	if c.reading {
		*s = string(c.next(n))
	} else {
		c.out = append(c.out, *s...)
	}
}

// code reads or writes a value as its number in codes, which begins with 1.
func code[T comparable](c *codec, codes []T, value *T) {
	number := uint8(max(0, slices.Index(codes, *value)))
	c.uint8(&number)
	if !c.reading {
		return
	}
	if number == 0 || int(number) >= len(codes) {
		c.fail("unknown state or origin")
		return
	}
	*value = codes[number]
}

// list reads or writes a list: its length in so many bytes, then each value, of at
// least that many bytes. If there is a compare, values are in ascending order.
func list[T any](c *codec, width, least int, values *[]T, compare func(a, b T) int, each func(*T)) {
	n := c.size(width, len(*values))
	if c.reading {
		if n > len(c.in)/least { // before allocating
			c.fail("truncated")
			n = 0
		}
		*values = slices.Grow([]T(nil), n)[:n]
	}
	for i := range *values {
		if c.err != nil {
			break
		}
		each(&(*values)[i])
		if i > 0 && compare != nil {
			c.check(compare((*values)[i-1], (*values)[i]) < 0, "list is not in order")
		}
	}
	if c.reading && c.err != nil {
		*values = nil // it lacks values
	}
}

// table reads or writes a map as a list, in ascending order of its keys. each reads a key
// and returns its value, or writes both.
func table[K comparable, V any](c *codec, width, least int, values *map[K]V, compare func(a, b K) int, each func(*K, V) V) {
	var keys []K
	if !c.reading {
		keys = slices.SortedFunc(maps.Keys(*values), compare)
	}
	list(c, width, least, &keys, compare, func(key *K) {
		value := each(key, (*values)[*key])
		if !c.reading {
			return
		}
		if *values == nil {
			*values = make(map[K]V)
		}
		(*values)[*key] = value
	})
}
