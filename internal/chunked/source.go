package chunked

import (
	"errors"
	"io"
	"sync"
)

// chunkBuffers are what one stream holds between calls: room for one chunk,
// which is sealed or opened in place.
var chunkBuffers = sync.Pool{New: func() any { return new([SealedChunkSize]byte) }}

// source cuts what a reader gives into units of one size. The part of a unit
// that has arrived is carried from one call to the next.
type source struct {
	r    io.Reader
	unit int                    // ChunkSize or SealedChunkSize
	buf  *[SealedChunkSize]byte // carry; nil when it holds none
	n    int                    // bytes carried, fewer than unit
	eof  bool                   // r has ended: what is carried is the last, short unit
	away bool                   // the caller's code runs, and may not come back: see stream.failed
}

// hold makes sure that there is a buffer.
func (s *source) hold() []byte {
	if s.buf == nil {
		s.buf = chunkBuffers.Get().(*[SealedChunkSize]byte)
	}
	return s.buf[:]
}

// drop gives the buffer back.
func (s *source) drop() {
	if s.buf != nil {
		chunkBuffers.Put(s.buf)
		s.buf, s.n = nil, 0
	}
}

// fill reads whole units into dst, whose length is a multiple of the unit, and
// returns how many bytes they are. It reads until it has at least one unit, and
// goes on for as long as the reader fills what it is asked for, so that a slow
// reader's data is handed on as it comes. full reports that dst was filled.
// After the last whole unit it sets eof. On any other error the whole units
// that came before it are returned with it.
func (s *source) fill(dst []byte) (n int, full bool, err error) {
	if s.n > 0 {
		n = copy(dst, s.buf[:s.n])
	}
	for empty := 0; n < len(dst) && err == nil; {
		asked := len(dst) - n
		var m int
		s.away = true
		m, err = s.r.Read(dst[n:])
		s.away = false
		if m < 0 || m > asked {
			n, err = 0, errors.New("sse: source returned an invalid count from Read")
			break
		}
		n += m
		if m > 0 {
			empty = 0
		} else if empty++; empty == 100 && err == nil {
			err = io.ErrNoProgress
		}
		if m < asked && n >= s.unit {
			break
		}
	}
	if err == io.EOF {
		s.eof, err = true, nil
	}
	rest := n % s.unit
	whole := n - rest
	if rest > 0 {
		copy(s.hold(), dst[whole:n])
	}
	s.n = rest
	return whole, n == len(dst), err
}
