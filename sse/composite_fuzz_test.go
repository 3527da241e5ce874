package sse_test

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/sse"
)

// FuzzTrailer: no bytes make ReadTrailer panic or read beyond its bounds, and what
// it finds, without the key, opens nothing. SPEC COMP-8
func FuzzTrailer(f *testing.F) {
	for _, forged := range forgedObjects(customerKey, "photos", "2026/cat.jpg") {
		f.Add(forged.object)
	}
	stranger := newCustomer(f, pattern(32))
	f.Fuzz(func(t *testing.T, data []byte) {
		src := &countedAt{r: bytes.NewReader(data)}
		trailer, err := sse.ReadTrailer(src, int64(len(data)))
		total := 0
		for _, n := range src.reads {
			total += n
		}
		require.LessOrEqual(t, total, len(data)+10)
		if err != nil {
			return
		}
		env := trailer.Envelope()
		require.True(t, bytes.Contains(data, marshal(t, env)))
		tail, off, err := trailer.Replace(env)
		require.NoError(t, err)
		require.Equal(t, data[off:], tail)
		_, err = stranger.Decrypt(t.Context(), anyContext(object), env)
		require.Error(t, err)
	})
}

// FuzzManifest: an authentic manifest, whatever its bytes, is refused or lists
// parts within the bounds. SPEC COMP-6
func FuzzManifest(f *testing.F) {
	a, b := []byte("one"), []byte("two")
	for _, f2 := range []*forge{newForge(customerKey).part(1, a).part(2, b), newForge(customerKey).part(1, nil), newForge(customerKey).part(9, a).part(10_000, nil)} {
		f2.editManifest = func(p []byte) []byte { f.Add(p); return p }
		f2.object("", "")
	}
	c := newCustomer(f, customerKey)
	f.Fuzz(func(t *testing.T, plain []byte) {
		forged := newForge(customerKey).part(1, a).part(2, b)
		forged.editManifest = func([]byte) []byte { return plain }
		data := forged.object("", "")
		composite, err := openComposite(t, c, sse.Object{}, data)
		if err != nil {
			return
		}
		last, sum := 0, int64(0)
		for number, size := range composite.Parts() {
			require.Greater(t, number, last)
			require.LessOrEqual(t, number, 10_000)
			require.GreaterOrEqual(t, size, int64(0))
			last, sum = number, sum+size
		}
		require.Equal(t, composite.Size(), sum)
		require.Positive(t, last)
	})
}

// FuzzUploadState: no state and no receipt makes the parsers panic, and none but
// an upload's own is accepted. SPEC COMP-14
func FuzzUploadState(f *testing.F) {
	c := newCustomer(f, customerKey)
	u := startUpload(f, c, object)
	u.add(f, 1, []byte("plaintext"))
	state, err := u.m.State(f.Context(), c)
	require.NoError(f, err)
	alone, err := u.m.State(f.Context(), nil)
	require.NoError(f, err)
	receipt := u.receipts()[0]
	f.Add(state, receipt)
	f.Add(alone, []byte{})
	f.Add(state[:100], receipt[:105])
	f.Add(append(bytes.Clone(state), state...), append(bytes.Clone(receipt), 0))
	f.Fuzz(func(t *testing.T, fuzzed, receiptBytes []byte) {
		m, err := sse.OpenMultipart(t.Context(), c, object, fuzzed)
		if err == nil { // an upload under this key, perhaps one of another fuzzing process
			reopened, err := m.State(t.Context(), nil)
			require.NoError(t, err)
			require.True(t, bytes.HasPrefix(fuzzed, reopened))
		}
		if completer, err := sse.OpenCompleter(t.Context(), c, object, fuzzed); err == nil {
			_, err = completer.Trailer([][]byte{receipt}, nil)
			require.True(t, err == nil || errors.Is(err, sse.ErrReceipt), "%v", err)
		}
		_, err = u.m.Trailer([][]byte{receiptBytes}, nil)
		require.Equal(t, bytes.Equal(receiptBytes, receipt), err == nil)
	})
}

// FuzzComposite edits a valid composite object. Whatever the edit, what comes out
// is a prefix of the plaintext.
func FuzzComposite(f *testing.F) {
	c := newCustomer(f, customerKey)
	u, data := compositeOf(f, c, object, 100, chunk, 0)
	for _, at := range []int{0, 9, 11, 12, 40, 68, 184, len(data) - 1, len(data) - 20, len(data) - 40, len(data) - 300} {
		f.Add(at, 1, []byte{0xff}, false)
		f.Add(at, 0, []byte("inserted"), true)
		f.Add(at, 40, []byte{}, false)
	}
	plain := u.plain()
	f.Fuzz(func(t *testing.T, at, remove int, insert []byte, random bool) {
		at = max(0, min(at, len(data)))
		remove = max(0, min(remove, len(data)-at))
		edited := slices.Concat(data[:at], insert, data[at+remove:])
		var got []byte
		var err error
		if random {
			got, err = openAt(c, object, edited)
		} else {
			got, err = readComposite(t, c, object, edited)
		}
		require.True(t, bytes.HasPrefix(plain, got))
		if bytes.Equal(edited, data) {
			require.NoError(t, err)
		} else if err == nil && !random {
			t.Fatal("an edited object ended cleanly")
		}
		require.True(t, err != nil || len(got) == len(plain))
	})
}

// FuzzCompositeRanges reads any range of a composite object.
func FuzzCompositeRanges(f *testing.F) {
	c := newCustomer(f, customerKey)
	u, data := compositeOf(f, c, object, 100, chunk, 2*chunk+1, chunk, 0)
	plain := u.plain()
	composite, err := openComposite(f, c, object, data)
	require.NoError(f, err)
	f.Add(int64(0), int64(-1))
	f.Add(int64(99), int64(2))
	f.Add(int64(chunk), int64(100))
	f.Add(int64(len(plain)), int64(-1))
	f.Fuzz(func(t *testing.T, off, n int64) {
		storedOff, storedLen, err := composite.StoredRange(off, n)
		if err != nil {
			require.ErrorIs(t, err, sse.ErrInvalid)
			require.True(t, off < 0 || off > int64(len(plain)))
			return
		}
		want := plain[off:]
		if n >= 0 {
			want = want[:min(n, int64(len(want)))]
		}
		got, err := io.ReadAll(composite.RangeReader(bytes.NewReader(data[storedOff:][:storedLen]), off, n))
		require.NoError(t, err)
		require.True(t, bytes.Equal(want, got))
	})
}
