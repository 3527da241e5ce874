package chunked

import (
	"errors"
	"io"
	"sync"
)

// chunkBuffer is the memory that a stream holds between calls: a chunk, sealed or
// opened in place, with room for a held byte in front of it.
type chunkBuffer [chunkOffset + SealedChunkSize]byte

// chunkOffset keeps the chunk aligned behind the byte in front of it.
const chunkOffset = 16

var chunkBuffers = sync.Pool{New: func() any { return new(chunkBuffer) }}

// source cuts what a reader returns into units of one size. It keeps a partial
// unit from one call to the next.
type source struct {
	r    io.Reader
	unit int          // ChunkSize or SealedChunkSize
	buf  *chunkBuffer // nil if there is nothing to keep
	n    int          // bytes of a partial unit in buf
	eof  bool         // r has ended: the partial unit is the message's last chunk
}

// buffer returns room for one unit. The partial unit is at its start.
func (s *source) buffer() []byte {
	if s.buf == nil {
		s.buf = chunkBuffers.Get().(*chunkBuffer)
	}
	return s.buf[chunkOffset:]
}

// behind returns out, which begins at the start of the buffer, with b in front.
func (s *source) behind(b byte, out []byte) []byte {
	s.buf[chunkOffset-1] = b
	return s.buf[chunkOffset-1 : chunkOffset+len(out)]
}

// keep makes p the partial unit.
func (s *source) keep(p []byte) {
	s.n = len(p)
	if len(p) > 0 {
		copy(s.buffer(), p)
	}
}

// recycle returns the buffer to the pool. Only a stream that ended well may
// call it: after a failure, a source or destination may still use the buffer.
func (s *source) recycle() {
	if s.buf != nil {
		chunkBuffers.Put(s.buf)
	}
	s.drop()
}

// drop leaves the buffer to the garbage collector.
func (s *source) drop() { s.buf, s.n = nil, 0 }

// fill reads into dst, behind a copy of the partial unit, and returns how many
// bytes dst then holds. It reads until it has enough bytes, and continues for
// as long as the reader fills all it was offered, so a slow reader's data is
// passed on at once. At the reader's end it sets eof. It returns the reader's
// other errors together with the bytes that came before them.
func (s *source) fill(dst []byte, enough int) (n int, err error) {
	if s.n > 0 {
		n = copy(dst, s.buf[chunkOffset:][:s.n])
	}
	for empty := 0; n < len(dst) && err == nil; {
		offered := len(dst) - n
		var m int
		m, err = s.r.Read(dst[n:])
		if m < 0 || m > offered {
			return 0, errors.New("sse: source returned an invalid count from Read")
		}
		n += m
		if m > 0 {
			empty = 0
		} else if empty++; empty == 100 && err == nil {
			err = io.ErrNoProgress
		}
		if m < offered && n >= enough {
			break
		}
	}
	if err == io.EOF {
		s.eof, err = true, nil
	}
	return n, err
}
