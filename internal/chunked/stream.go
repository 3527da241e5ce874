package chunked

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"math"
)

var errClosed = errors.New("sse: write to closed writer")

// proof is how many stored bytes behind a whole chunk show that its last byte
// is not the last one of the message: fewer can only be an empty last chunk.
const proof = TagSize + 1

// stream is the state of one message under way. It turns units of one kind
// into units of the other: plaintext chunks into sealed ones or, if decrypt is
// set, sealed chunks into plaintext.
//
// A decrypting stream holds back the last byte of a whole chunk until proof
// arrives or the last chunk verifies. A consumer that stops at a length it
// read from the store therefore meets the error of a truncated message.
type stream struct {
	c       *Cipher
	decrypt bool
	guard   guard
	src     source
	dst     io.Writer // of a Writer, and of Reader.WriteTo
	written int64     // bytes that dst took

	next  uint64 // index of the next chunk
	end   uint64 // index behind the last chunk of a range
	probe int    // bytes to read behind the last chunk of a range
	skip  int    // output bytes to leave out before the range
	left  int64  // output bytes of the range not yet released

	sealed int64 // plaintext that an encrypting Reader has yet to tell its observer

	held  bool // the byte in last awaits proof
	last  byte
	err   error // the first failure; errClosed or io.EOF after a good end
	procs int
	nonce [nonceSize]byte
}

// init begins at chunk 0, without an end.
func (s *stream) init(c *Cipher, decrypt bool) {
	s.c, s.decrypt = c, decrypt
	s.end, s.left = math.MaxUint64, math.MaxInt64
	s.src.unit = ChunkSize
	if decrypt {
		s.src.unit, s.probe = SealedChunkSize, proof
	}
}

// enter begins a call that may touch the stream.
func (s *stream) enter() error {
	if !s.guard.enter() {
		return errInUse
	}
	return nil
}

// leave ends a call that entered, and returns the call's error. It fails the
// stream if the call was not alone.
func (s *stream) leave(err error) error {
	if s.guard.leave() {
		return err
	}
	s.src.drop()
	return cmp.Or(err, errInUse)
}

// fail ends the stream with its first error.
func (s *stream) fail(err error) error {
	if err == io.EOF || err == errClosed {
		s.src.recycle()
	} else {
		s.src.drop()
	}
	s.err = err
	return err
}

// outUnit returns the size of the units that come out.
func (s *stream) outUnit() int { return ChunkSize + SealedChunkSize - s.src.unit }

// transform returns the pipeline's op.
func (s *stream) transform() func(*batch) {
	if s.decrypt {
		return s.c.openBatch
	}
	return s.c.sealBatch
}

// proves reports whether n bytes behind a whole chunk release its last byte.
func (s *stream) proves(n int) bool { return !s.decrypt || n >= proof }

// assign gives b whole units, the indices of their chunks and the place for
// their output, which follows the held byte if they prove it. It fails if a
// message cannot hold so many whole chunks: the last of MaxChunks is shorter.
func (s *stream) assign(b *batch, units, out []byte, proven bool) error {
	n := uint64(len(units) / s.src.unit)
	if s.next+n > MaxChunks-1 {
		return fmt.Errorf("%w: more than 2^38 chunks", ErrTooLarge)
	}
	if s.held && (n > 0 || proven) {
		out = append(out, s.last)
		s.held = false
	}
	b.in, b.out, b.first, b.proven = units, out, s.next, proven
	s.next += n
	s.sealed += int64(len(units))
	return nil
}

// fetch reads up to the given number of units into b, for output to out. It
// reports whether the source may have more of the range.
func (s *stream) fetch(b *batch, units int, out []byte) (more bool, err error) {
	units, behind := s.splitRead(units)
	in := b.input()[:units*s.src.unit+behind]
	n, err := s.src.fill(in, s.capRead(len(in)))
	whole := min(n/s.src.unit, units) * s.src.unit
	s.src.keep(in[whole:n])
	if limit := s.assign(b, in[:whole], out, s.proves(n-whole)); limit != nil {
		return false, limit
	}
	b.prompt = n < len(in)
	b.doubt = err != nil
	return err == nil && !s.src.eof && (s.next != s.end || !b.proven && s.probe > 0), err
}

// splitRead bounds units by the range, and returns how many bytes behind them to
// read as proof.
func (s *stream) splitRead(units int) (int, int) {
	if rest := s.end - s.next; rest <= uint64(units) {
		return int(rest), s.probe
	}
	if s.decrypt {
		return units, proof
	}
	return units, 0
}

// capRead returns how many of the bytes asked for are worth passing on.
func (s *stream) capRead(asked int) int {
	if s.held {
		return min(proof, asked)
	}
	return min(s.src.unit, asked)
}

// step transforms the n bytes of a unit in the source's buffer, in place.
// Fewer bytes than a unit are the message's last chunk. On an error, out holds
// a byte of the chunk before, if n bytes prove it.
func (s *stream) step(n int, proven bool) (out []byte, err error) {
	buf := s.src.buffer()
	s.src.n = 0
	switch {
	case n == s.src.unit && s.next == MaxChunks-1:
		err = fmt.Errorf("%w: more than 2^38 chunks", ErrTooLarge)
	case !s.decrypt:
		out = s.c.sealChunk(buf[:0], buf[:n], s.next, &s.nonce)
		s.sealed += int64(n)
	case n < TagSize:
		err = fmt.Errorf("%w: body ends before the end of chunk %d", ErrTruncated, s.next)
	default:
		out, err = s.c.openChunk(buf[:0], buf[:n], s.next, &s.nonce)
	}
	if s.held && (err == nil || n >= proof) {
		out = s.src.behind(s.last, out)
		s.held = false
	}
	if err == nil {
		s.next++
	}
	return s.release(out, proven || err != nil || n < s.src.unit), err
}

// release cuts the output of whole chunks to the range, and holds back its
// last byte unless that is proven or not in the range.
func (s *stream) release(out []byte, proven bool) []byte {
	skip := min(s.skip, len(out))
	s.skip -= skip
	out = out[skip:]
	switch {
	case int64(len(out)) > s.left:
		out = out[:s.left]
	case !proven && len(out) > 0:
		out = out[:len(out)-1]
		s.last, s.held = out[:len(out)+1][len(out)], true
	}
	s.left -= int64(len(out))
	return out
}

// releaseHeld returns the held byte, which is proven now.
func (s *stream) releaseHeld() []byte {
	s.src.buffer()
	s.held = false
	return s.release(s.src.behind(s.last, nil), true)
}

// write writes all of p to dst. A short write is an error. The ends that a stream
// calls good are failures if dst returns them, as a closed SSH channel returns io.EOF.
func (s *stream) write(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	n, err := s.dst.Write(p)
	s.written += int64(max(0, min(n, len(p))))
	switch {
	case err == io.EOF || err == errClosed:
		err = fmt.Errorf("sse: destination failed: %w", err)
	case err == nil && n != len(p):
		err = io.ErrShortWrite
	}
	return err
}

// emit writes the output of a batch.
func (s *stream) emit(b *batch) error {
	return s.write(s.release(b.out, b.proven || b.err != nil))
}

// push transforms p and writes the result. Bytes behind the last whole unit
// wait for the next call.
func (s *stream) push(p []byte) error {
	unit := s.src.unit
	for len(p) > 0 && (s.src.n > 0 || len(p) < unit) {
		n := copy(s.src.buffer()[s.src.n:unit], p)
		s.src.n += n
		p = p[n:]
		if s.src.n == unit {
			if err := s.flush(s.proves(len(p))); err != nil {
				return err
			}
		}
	}
	if len(p) >= unit {
		if err := s.pushUnits(p); err != nil {
			return err
		}
		p = p[len(p)/unit*unit:]
	}
	if len(p) > 0 {
		s.src.keep(p)
	}
	if s.held && s.src.n >= proof {
		return s.write(s.releaseHeld())
	}
	return nil
}

// pushUnits transforms the whole units in p and writes the result.
func (s *stream) pushUnits(p []byte) error {
	unit := s.src.unit
	run := pipeline{op: s.transform(), emit: s.emit, procs: s.procs}
	run.fetch = func(b *batch) (bool, error) {
		units := p[:min(len(p)/unit, batchChunks)*unit]
		p = p[len(units):]
		return len(p) >= unit, s.assign(b, units, b.output(), s.proves(len(p)))
	}
	return run.run()
}

// pull transforms what src returns until src or the range ends, and writes the
// result. It returns how many bytes it read.
func (s *stream) pull(src io.Reader) (read int64, err error) {
	own := s.src.r
	s.src.r, s.src.eof = src, false
	before := int64(s.src.n)
	run := pipeline{op: s.transform(), emit: s.emit, procs: s.procs}
	run.fetch = func(b *batch) (bool, error) {
		more, err := s.fetch(b, batchChunks, b.output())
		read += int64(len(b.in))
		return more, err
	}
	err = run.run()
	s.src.r = own
	return read + int64(s.src.n) - before, err
}

// flush transforms the unit in the source's buffer and writes the result. With
// fewer bytes than a unit, that ends the message.
func (s *stream) flush(proven bool) error {
	out, err := s.step(s.src.n, proven)
	return cmp.Or(s.write(out), err)
}
