package awss3

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/blobseal/blobseal/sse"
)

// span is a range of a plaintext in a request.
type span struct {
	spec   string
	off    int64
	n      int64 // below zero is to the end
	suffix bool  // the last n bytes
}

// parseSpan parses the value of a Range header.
func parseSpan(spec string) (span, error) {
	s := span{spec: spec, n: -1}
	text, ok := strings.CutPrefix(spec, "bytes=")
	first, last, dash := strings.Cut(strings.TrimSpace(text), "-")
	if !ok || !dash || first == "" && last == "" {
		return s, fmt.Errorf("%w: Range %q (want bytes=FIRST-LAST, bytes=FIRST- or bytes=-N, one range)", sse.ErrInvalid, spec)
	}
	number := func(text string) int64 {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n < 0 || text[0] == '+' {
			ok = false
		}
		return n
	}
	switch {
	case first == "":
		s.suffix, s.n = true, number(last)
	case last == "":
		s.off = number(first)
	default:
		s.off = number(first)
		s.n = number(last) - s.off + 1
		ok = ok && s.n > 0
	}
	if !ok {
		return s, fmt.Errorf("%w: Range %q (want bytes=FIRST-LAST, bytes=FIRST- or bytes=-N, one range)", sse.ErrInvalid, spec)
	}
	return s, nil
}

// clip returns the range of the span in an object of size bytes. The range is empty if the
// span begins behind the object's end.
func (s span) clip(size int64) (off, n int64) {
	switch {
	case s.suffix:
		n = min(s.n, size)
		return size - n, n
	case s.off >= size:
		return size, 0
	case s.n < 0:
		return s.off, size - s.off
	}
	return s.off, min(s.n, size-s.off)
}

// contentRange is the Content-Range of n bytes from off of an object of size bytes.
func contentRange(off, n, size int64) *string {
	text := fmt.Sprintf("bytes %d-%d/%d", off, off+n-1, size)
	return &text
}

// parseContentRange returns the parts of a Content-Range: the first byte, the number of
// bytes and the size of the whole.
func parseContentRange(text string) (off, n, size int64, ok bool) {
	var last int64
	if _, err := fmt.Sscanf(text, "bytes %d-%d/%d", &off, &last, &size); err != nil || last < off || size <= last {
		return 0, 0, 0, false
	}
	return off, last - off + 1, size, true
}
