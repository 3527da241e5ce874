package chunked

import (
	"errors"
	"fmt"
	"io"
	"math"
)

// ErrClosed: a write after Close.
var ErrClosed = errors.New("sse: write to closed writer")

var errPanicked = errors.New("sse: source or destination panicked")

// stream is where a stream stands in its message. It turns units of one kind
// into units of the other: plaintext chunks into sealed ones, or, if decrypt is
// set, the reverse.
type stream struct {
	c       *Cipher
	decrypt bool
	src     source // the part of a unit that has come, and where more comes from
	next    uint64 // index of the next chunk
	end     uint64 // index at which a bounded range ends
	skip    int    // output bytes to leave out before what is wanted
	left    int64  // output bytes still wanted
	err     error  // the first failure, or io.EOF
	procs   int
	nonce   [nonceSize]byte
}

func newStream(c *Cipher, decrypt bool, src io.Reader) stream {
	s := stream{c: c, decrypt: decrypt, end: math.MaxUint64, left: math.MaxInt64}
	s.src = source{r: src, unit: ChunkSize}
	if decrypt {
		s.src.unit = SealedChunkSize
	}
	return s
}

// outUnit is the size of the units that come out.
func (s *stream) outUnit() int { return ChunkSize + SealedChunkSize - s.src.unit }

// op transforms a batch; see [pipeline].
func (s *stream) op() func(*batch) {
	if s.decrypt {
		return s.c.openBatch
	}
	return s.c.sealBatch
}

// assign gives b whole units, where to put what they become, and the chunks'
// indices. It fails where they are
// more than a message can hold, whose last chunk is never a whole one.
func (s *stream) assign(b *batch, units, out []byte) error {
	n := uint64(len(units) / s.src.unit)
	if s.next+n > MaxChunks-1 {
		return fmt.Errorf("%w: more than 2^38 chunks", ErrTooLarge)
	}
	b.in, b.out, b.first = units, out, s.next
	s.next += n
	return nil
}

// fetch reads up to room bytes of whole units into b; they are to go to out.
func (s *stream) fetch(b *batch, room int, out []byte) (more bool, err error) {
	in := b.input()
	n, full, err := s.src.fill(in[:room])
	if limit := s.assign(b, in[:n], out); limit != nil {
		return false, limit
	}
	b.prompt = !full
	return !s.src.eof && s.next != s.end, err
}

// one transforms the n bytes of one unit in the source's buffer, in place. Fewer
// bytes than a unit are the message's last chunk.
func (s *stream) one(n int) (out []byte, err error) {
	buf := s.src.hold()
	s.src.n = 0
	if n == s.src.unit && s.next == MaxChunks-1 {
		return nil, fmt.Errorf("%w: more than 2^38 chunks", ErrTooLarge)
	}
	switch {
	case !s.decrypt:
		out = s.c.sealChunk(buf[:0], buf[:n], s.next, &s.nonce)
	case n < TagSize:
		return nil, fmt.Errorf("%w: it ends before the end of chunk %d", ErrTruncated, s.next)
	default:
		if out, err = s.c.openChunk(buf[:0], buf[:n], s.next, &s.nonce); err != nil {
			return nil, err
		}
	}
	s.next++
	return s.trim(out), nil
}

// trim cuts output to the part that is wanted, and counts it as given.
func (s *stream) trim(out []byte) []byte {
	skip := min(s.skip, len(out))
	out = out[skip:]
	out = out[:min(int64(len(out)), s.left)]
	s.skip -= skip
	s.left -= int64(len(out))
	return out
}

// failed returns what the stream has failed with, if it has. It has, too, if a
// source or destination panicked: what that had given or taken is not known.
func (s *stream) failed() error {
	if s.src.away {
		s.src.away = false
		s.fail(errPanicked)
	}
	return s.err
}

// fail ends the stream with its first error.
func (s *stream) fail(err error) error {
	s.err = err
	s.src.drop()
	return err
}
