package sse_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/sse"
)

// streamIdioms read a whole object from a stream as Go programs do. Most stop at
// the length they were told.
var streamIdioms = map[string]func(r io.Reader, size int64) ([]byte, error){
	"ReadAll": func(r io.Reader, _ int64) ([]byte, error) { return io.ReadAll(r) },
	"Copy": func(r io.Reader, _ int64) ([]byte, error) {
		var dst bytes.Buffer
		_, err := io.Copy(&dst, r)
		return dst.Bytes(), err
	},
	"Copy without WriterTo": func(r io.Reader, _ int64) ([]byte, error) {
		var dst bytes.Buffer
		_, err := io.Copy(&dst, struct{ io.Reader }{r})
		return dst.Bytes(), err
	},
	"CopyN": func(r io.Reader, size int64) ([]byte, error) {
		var dst bytes.Buffer
		_, err := io.CopyN(&dst, r, size)
		return dst.Bytes(), err
	},
	"LimitReader": func(r io.Reader, size int64) ([]byte, error) { return io.ReadAll(io.LimitReader(r, size)) },
	"ReadFull": func(r io.Reader, size int64) ([]byte, error) {
		p := make([]byte, size)
		n, err := io.ReadFull(r, p)
		return p[:n], err
	},
	"bytes": func(r io.Reader, size int64) (got []byte, err error) {
		p := make([]byte, 1)
		for int64(len(got)) < size && err == nil {
			var n int
			n, err = r.Read(p)
			got = append(got, p[:n]...)
		}
		return got, err
	},
}

// TestEndOfComposites cuts and damages composite objects behind a reader that knows
// their size. No program gets that many bytes. SPEC COMP-11 COMP-12
func TestEndOfComposites(t *testing.T) {
	c := newCustomer(t, customerKey)
	for _, sizes := range [][]int{
		{1}, {chunk}, {chunk, 0}, {1, 0}, {5, chunk}, {chunk, 5}, {chunk + 1, 2 * chunk, 0}, {3, 4, 5}, {2 * chunk, 2 * chunk}, {3 * chunk, 0},
	} {
		u, stored := compositeOf(t, c, object, sizes...)
		plain := u.plain()
		end := len(stored) - len(u.trailer)
		composite, err := openComposite(t, c, object, stored)
		require.NoError(t, err)

		at, cuts := 0, map[int]bool{end: true}
		for _, p := range u.parts {
			for k := 0; k <= len(p.stored); k += 16400 {
				for _, more := range []int{-17, -16, -1, 0, 1, 16, 17, 68, 68 + 16, 68 + 17} {
					cuts[at+k+more] = true
				}
			}
			at += len(p.stored)
			for _, more := range []int{-17, -16, -1, 0} {
				cuts[at+more] = true
			}
		}
		for cut := range cuts {
			if cut < 0 || cut > end {
				continue
			}
			damaged := bytes.Clone(stored[:end])
			if cut < end {
				damaged[cut] ^= 1
			}
			for kind, src := range map[string][]byte{"cut": stored[:cut], "damaged": damaged} {
				for name, read := range streamIdioms {
					t.Run(fmt.Sprintf("%s/%v/%s at %d", name, sizes, kind, cut), func(t *testing.T) {
						got, err := read(composite.Reader(bytes.NewReader(src)), composite.Size())
						if cut == end {
							require.NoError(t, err)
							require.True(t, bytes.Equal(plain, got))
							return
						}
						require.True(t, bytes.HasPrefix(plain, got))
						require.Less(t, len(got), len(plain))
						if name == "LimitReader" || name == "ReadFull" || name == "CopyN" {
							return // these have errors of their own
						}
						var part *sse.PartError
						require.ErrorAs(t, err, &part)
						require.ErrorIs(t, err, sse.ErrCorrupt)
						require.Equal(t, kind == "cut", isTruncated(err), "%v", err)
					})
				}
			}
		}
	}
}

func isTruncated(err error) bool {
	var part *sse.PartError
	return errors.As(err, &part) && part.Err == sse.ErrTruncated
}

// TestEveryFlipAndCutOfAComposite: a flipped bit in any byte, and a cut at any,
// never give wrong plaintext, and a stream that ends well read what was written. SPEC COMP-9 COMP-10
func TestEveryFlipAndCutOfAComposite(t *testing.T) {
	c := newCustomer(t, customerKey)
	u := startUpload(t, c, object)
	u.add(t, 1, []byte("hello"))
	u.add(t, 2, []byte("composite"))
	u.add(t, 3, nil)
	u.filler = 10
	stored := u.complete(t, &sse.TrailerOptions{Filler: 10, EnvelopeSize: 400})
	plain, parts := u.plain(), len(stored)-len(u.trailer)-u.filler
	check := func(name string, edited []byte, harmless bool) {
		t.Helper()
		got, err := readComposite(t, c, object, edited)
		require.Equal(t, harmless, err == nil, "%s: %v", name, err)
		require.True(t, bytes.HasPrefix(plain, got), name)
		if err == nil {
			require.Equal(t, plain, got, name)
		}
		got, err = openAt(c, object, edited)
		require.True(t, bytes.HasPrefix(plain, got), name)
		if err == nil {
			require.Equal(t, plain, got, name)
		}
	}
	for i := range stored {
		edited := bytes.Clone(stored)
		edited[i] ^= 1 << (i % 8)
		check(fmt.Sprintf("bit %d of byte %d", i%8, i), edited, i >= parts && i < parts+u.filler)
	}
	for i := range stored {
		check(fmt.Sprintf("cut to %d", i), stored[:i], false)
		check(fmt.Sprintf("without byte %d", i), slices.Concat(stored[:i], stored[i+1:]), false)
		check(fmt.Sprintf("a byte before %d", i), slices.Concat(stored[:i], []byte{0}, stored[i:]), false)
	}
}

// TestCompositeKeysDoNotRepeat: every message of an upload, the attempts that
// failed and repeated completions included, has a key of its own. SPEC COMP-3
// COMP-4 COMP-5
func TestCompositeKeysDoNotRepeat(t *testing.T) {
	kek := customerKey
	u := startUpload(t, newCustomer(t, kek), object)
	state, err := u.m.State(t.Context(), nil)
	require.NoError(t, err)
	s := stranger{3, func(string) []byte { return kek }}
	head, dek, result := s.openEnvelope(state, object.Bucket, object.Key, nil)
	require.Equal(t, "valid", result)
	mk := strangerManifestKey(dek, head[:24])

	seen := map[string]bool{}
	record := func(key, head []byte, context string) {
		t.Helper()
		aead, nonce, commitment := strangerMessage(key, head[:24], context)
		require.Equal(t, head[24:56], commitment)
		id := string(aead.Seal(nil, make([]byte, 12), nil, nil)) // a function of the key
		require.False(t, seen[id], "a key repeats")
		require.False(t, seen[string(nonce)])
		seen[id], seen[string(nonce)] = true, true
	}
	record(dek, head, strangerV2+"composite")
	for range 5 {
		m, err := sse.OpenMultipart(t.Context(), newCustomer(t, kek), object, state)
		require.NoError(t, err)
		for number := 1; number <= 3; number++ {
			p := sealPart(t, m, number, []byte("same"))
			record(dek, p.stored[12:68], strangerPartContext(head[:24], uint64(number)))
			record(mk, p.receipt[:56], strangerV2+"part receipt")
			again, err := m.Part(number) // fails
			require.NoError(t, err)
			var dst bytes.Buffer
			_, err = again.Writer(&dst).Write(make([]byte, chunk)) // less would wait
			require.NoError(t, err)
			record(dek, dst.Bytes()[12:68], strangerPartContext(head[:24], uint64(number)))
			trailer, err := m.Trailer([][]byte{p.receipt}, nil)
			require.NoError(t, err)
			record(mk, trailer[:56], strangerV2+"manifest")
		}
	}
}

// TestPartFailures: a part whose source or destination fails has no receipt, and
// writes nothing more.
func TestPartFailures(t *testing.T) {
	u := startUpload(t, newCustomer(t, customerKey), object)
	for limit := range 100 {
		p, err := u.m.Part(1)
		require.NoError(t, err)
		dst := &limitedWriter{left: limit}
		w := p.Writer(dst)
		_, err = w.Write(pattern(10))
		if err == nil {
			err = w.Close()
		}
		require.Equal(t, limit >= 68+10+16, err == nil, "%d: %v", limit, err)
		_, receiptErr := p.Receipt()
		require.Equal(t, err == nil, receiptErr == nil)
		if err != nil {
			taken := dst.taken
			require.Error(t, w.Close())
			_, err = w.Write([]byte("more"))
			require.Error(t, err)
			_, err = w.(io.ReaderFrom).ReadFrom(bytes.NewReader([]byte("more")))
			require.Error(t, err)
			require.Equal(t, taken, dst.taken)
			_, err = p.Receipt()
			require.ErrorIs(t, err, sse.ErrInvalid)
		}
	}
	p, err := u.m.Part(1)
	require.NoError(t, err)
	w := p.Writer(new(panicOnce))
	require.Panics(t, func() { w.Write(pattern(chunk)) })
	require.Error(t, w.Close())
	_, err = p.Receipt()
	require.ErrorIs(t, err, sse.ErrInvalid)

	p, err = u.m.Part(1)
	require.NoError(t, err)
	_, err = p.Reader(bytes.NewReader(pattern(3 * chunk))).(io.WriterTo).WriteTo(&limitedWriter{left: chunk})
	require.ErrorIs(t, err, io.ErrShortWrite)
	_, err = p.Receipt()
	require.ErrorIs(t, err, sse.ErrInvalid)
	require.ErrorIs(t, p.Writer(io.Discard).Close(), sse.ErrUsed)
}

// limitedWriter takes a number of bytes.
type limitedWriter struct{ left, taken int }

func (l *limitedWriter) Write(p []byte) (int, error) {
	n := min(l.left, len(p))
	l.left -= n
	l.taken += n
	if n < len(p) {
		return n, io.ErrShortWrite
	}
	return n, nil
}

// panicOnce panics at its first Write, and takes all others.
type panicOnce struct{ done bool }

func (p *panicOnce) Write(b []byte) (int, error) {
	if !p.done {
		p.done = true
		panic("destination")
	}
	return len(b), nil
}

// TestPartErrorNumbers: a PartError has the number of the part that is damaged, which
// is not its place in the object, however the object is read. SPEC ERR-4
func TestPartErrorNumbers(t *testing.T) {
	c := newCustomer(t, customerKey)
	u := startUpload(t, c, object)
	for number, size := range map[int]int{3: 2*chunk + 5, 7: chunk, 20: 100, 21: 0} {
		u.add(t, number, pattern(size))
	}
	slices.SortFunc(u.parts, func(a, b storedPart) int { return a.number - b.number })
	stored := u.complete(t, nil)
	composite, err := openComposite(t, c, object, stored)
	require.NoError(t, err)
	whole := func(object []byte) io.Reader { return composite.Reader(bytes.NewReader(object)) }
	for name, read := range map[string]func(object []byte) error{
		"Read": func(object []byte) error {
			_, err := io.Copy(io.Discard, struct{ io.Reader }{whole(object)})
			return err
		},
		"WriteTo": func(object []byte) error {
			_, err := io.Copy(io.Discard, whole(object))
			return err
		},
		"RangeReader": func(object []byte) error {
			off, _, err := composite.StoredRange(5, -1)
			require.NoError(t, err)
			_, err = io.ReadAll(composite.RangeReader(bytes.NewReader(object[off:]), 5, -1))
			return err
		},
		"ReaderAt": func(object []byte) error {
			_, err := io.ReadAll(composite.ReaderAt(bytes.NewReader(object)))
			return err
		},
	} {
		at := 0
		for i, p := range u.parts {
			for where, off := range map[string]int{"prefix": 11, "head": 20, "first chunk": 68, "last tag": len(p.stored) - 1} {
				isHead := where == "prefix" || where == "head"
				emptyChunk := where == "last tag" && len(p.plain)%chunk == 0
				if name == "ReaderAt" && (isHead || emptyChunk || len(p.plain) == 0) || name == "RangeReader" && isHead && i == 0 {
					continue // nothing of that is read
				}
				t.Run(fmt.Sprintf("%s/part %d/%s", name, p.number, where), func(t *testing.T) {
					damaged := bytes.Clone(stored)
					damaged[at+off] ^= 1
					var part *sse.PartError
					require.ErrorAs(t, read(damaged), &part)
					require.Equal(t, p.number, part.Number)
				})
			}
			at += len(p.stored)
		}
	}
}
