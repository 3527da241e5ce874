package chunked_test

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/internal/chunked"
)

// randomSource returns data in random pieces. It may return io.EOF with the last
// one, and nothing at all now and then.
type randomSource struct {
	rng  *rand.Rand
	rest []byte
	most int
}

func (s *randomSource) Read(p []byte) (int, error) {
	if len(p) == 0 || s.rng.IntN(10) == 0 && len(s.rest) > 0 {
		return 0, nil
	}
	n := copy(p[:min(len(p), 1+s.rng.IntN(s.most))], s.rest)
	s.rest = s.rest[n:]
	if len(s.rest) == 0 && (n == 0 || s.rng.IntN(2) == 0) {
		return n, io.EOF
	}
	return n, nil
}

// randomPusher is a randomSource that also writes itself.
type randomPusher struct{ randomSource }

func (s *randomPusher) WriteTo(w io.Writer) (total int64, err error) {
	for err == nil && len(s.rest) > 0 {
		piece := s.rest[:min(len(s.rest), 1+s.rng.IntN(s.most))]
		s.rest = s.rest[len(piece):]
		var n int
		if s.rng.IntN(4) == 0 {
			var m int64
			m, err = io.Copy(w, bytes.NewReader(piece))
			n = int(m)
		} else {
			n, err = w.Write(piece)
		}
		total += int64(n)
	}
	return total, err
}

// readRandomly reads r to its end in calls of random sizes, the last of which
// may be a WriteTo.
func readRandomly(rng *rand.Rand, r *chunked.Reader, most int) ([]byte, error) {
	var got bytes.Buffer
	for {
		if rng.IntN(8) == 0 {
			_, err := r.WriteTo(&got)
			return got.Bytes(), err
		}
		p := make([]byte, rng.IntN(most))
		n, err := r.Read(p)
		got.Write(p[:n])
		if err != nil {
			return got.Bytes(), clean(err)
		}
	}
}

// FuzzStreams encrypts and reads ranges in random steps, of whole and of cut
// bodies. The seed alone decides all that happens. SPEC MSG-6 MSG-8 MSG-9
func FuzzStreams(f *testing.F) {
	for seed := range uint64(40) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		rng := rand.New(rand.NewPCG(seed, 1))
		around := func() int { // a size, often at a boundary
			n := rng.IntN(4)*chunk + rng.IntN(2)*rng.IntN(2)*batch
			return max(0, n+rng.IntN(5)-2+rng.IntN(2)*rng.IntN(chunk))
		}
		c := newCipher(t)
		plaintext := pattern(around())
		steps := []int{100, 5000, chunk, sealed, sealed + 17, 3 * batch}
		step := func() int { return steps[rng.IntN(len(steps))] }
		source := func(p []byte) io.Reader {
			s := randomSource{rng, p, step()}
			if rng.IntN(2) == 0 {
				return &randomPusher{s}
			}
			return &s
		}

		body, err := readRandomly(rng, c.EncryptingReaderFrom(source(plaintext), 0, 1+rng.IntN(3)), step())
		require.NoError(t, err)
		require.True(t, bytes.Equal(encrypt(t, c, plaintext, 1), body), "another body")

		off, n := int64(min(around(), len(plaintext))), int64(around()-1)
		want := plaintext[off:]
		if n >= 0 {
			want = want[:min(n, int64(len(want)))]
		}
		cut := len(body)
		if rng.IntN(2) == 0 {
			cut = min(max(around()/chunk*sealed+rng.IntN(20)-2, 0), cut)
		}
		from, length, err := chunked.CiphertextRange(off, n)
		require.NoError(t, err)
		part := body[min(from, int64(cut)):cut]
		if length >= 0 { // no more is needed
			part = part[:min(length, int64(len(part)))]
		}
		got, err := readRandomly(rng, c.RangeReader(source(part), off, n).OnProcs(1+rng.IntN(3)), step())
		what := fmt.Sprintf("%d bytes, off %d, n %d, cut to %d of %d", len(plaintext), off, n, cut, len(body))
		require.True(t, bytes.HasPrefix(want, got), what)
		if cut == len(body) {
			require.NoError(t, err, what)
			require.Len(t, got, len(want), what)
		}
		if err == nil { // then the range is whole, and does not end with the cut body
			require.Len(t, got, len(want), what)
			require.True(t, cut == len(body) || n == 0 || off+n < claimed(cut), what)
		}
	})
}
