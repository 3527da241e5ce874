package file

import (
	"strconv"
	"strings"

	"github.com/blobseal/blobseal/examples/blobseal/internal/message"
)

// Range is a range of bytes. It includes last, which is -1 for the end.
type Range struct{ off, last int64 }

// ParseRange parses OFF-END and OFF-. It returns nil for an empty text.
func ParseRange(text string) (*Range, error) {
	if text == "" {
		return nil, nil
	}
	bad := message.Usagef("--range %q: want OFF-END, both included, or OFF- for all from OFF on", text)
	from, to, found := strings.Cut(text, "-")
	off, err := strconv.ParseUint(from, 10, 63)
	if !found || err != nil {
		return nil, bad
	}
	r := &Range{int64(off), -1}
	if to != "" {
		last, err := strconv.ParseUint(to, 10, 63)
		if err != nil {
			return nil, bad
		}
		if r.last = int64(last); r.last < r.off {
			return nil, message.Usagef("--range %q: END is before OFF", text)
		}
	}
	return r, nil
}

// Within returns the offset and the length of the range in size bytes. It refuses a range
// that goes beyond them.
func (r *Range) Within(size int64) (off, n int64, err error) {
	last := r.last
	if last < 0 {
		last = size - 1
	}
	if r.off >= size || last >= size {
		return 0, 0, rangeError{size}
	}
	return r.off, last - r.off + 1, nil
}

type rangeError struct{ size int64 }

func (e rangeError) Error() string {
	if e.size == 0 {
		return "--range is beyond the end: the file is empty"
	}
	return "--range is beyond the end: the last byte is " + strconv.FormatInt(e.size-1, 10)
}
