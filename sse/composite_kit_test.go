package sse_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/sse"
)

// storedPart is a part that was uploaded.
type storedPart struct {
	number        int
	plain, stored []byte
	receipt       []byte
}

// storedUpload is a composite object, in the pieces that a store gets.
type storedUpload struct {
	m       *sse.Multipart
	parts   []storedPart
	filler  int
	trailer []byte
}

// startUpload starts an upload.
func startUpload(t testing.TB, enc sse.Encrypter, obj sse.Object) *storedUpload {
	t.Helper()
	m, err := sse.StartMultipart(t.Context(), enc, obj)
	require.NoError(t, err)
	return &storedUpload{m: m}
}

// sealPart uploads one part.
func sealPart(t testing.TB, m *sse.Multipart, number int, plain []byte) storedPart {
	t.Helper()
	p, err := m.Part(number)
	require.NoError(t, err)
	var dst bytes.Buffer
	w := p.Writer(&dst)
	_, err = w.Write(plain)
	require.NoError(t, err)
	_, err = p.Receipt()
	require.ErrorIs(t, err, sse.ErrInvalid, "before the end")
	require.NoError(t, w.Close())
	receipt, err := p.Receipt()
	require.NoError(t, err)
	require.Len(t, receipt, 106)
	return storedPart{number, plain, dst.Bytes(), receipt}
}

func (u *storedUpload) add(t testing.TB, number int, plain []byte) {
	t.Helper()
	u.parts = append(u.parts, sealPart(t, u.m, number, plain))
}

func (u *storedUpload) receipts() (receipts [][]byte) {
	for _, p := range u.parts {
		receipts = append(receipts, p.receipt)
	}
	return receipts
}

// complete returns the stored object.
func (u *storedUpload) complete(t testing.TB, opts *sse.TrailerOptions) []byte {
	t.Helper()
	if opts == nil {
		opts = &sse.TrailerOptions{Filler: int64(u.filler)}
	}
	trailer, err := u.m.Trailer(u.receipts(), opts)
	require.NoError(t, err)
	u.trailer = trailer
	return u.object()
}

func (u *storedUpload) object() (object []byte) {
	for _, p := range u.parts {
		object = append(object, p.stored...)
	}
	object = append(object, make([]byte, u.filler)...)
	return append(object, u.trailer...)
}

func (u *storedUpload) plain() (plain []byte) {
	for _, p := range u.parts {
		plain = append(plain, p.plain...)
	}
	return plain
}

// compositeOf is an upload of parts of these sizes, numbered from 1, and its object.
func compositeOf(t testing.TB, enc sse.Encrypter, obj sse.Object, sizes ...int) (u *storedUpload, object []byte) {
	t.Helper()
	u = startUpload(t, enc, obj)
	for i, size := range sizes {
		u.add(t, i+1, pattern(size + i)[i:])
	}
	return u, u.complete(t, nil)
}

// openComposite opens a stored object with random access.
func openComposite(t testing.TB, dec sse.Decrypter, obj sse.Object, object []byte) (*sse.Composite, error) {
	trailer, err := sse.ReadTrailer(bytes.NewReader(object), int64(len(object)))
	if err != nil {
		return nil, err
	}
	d, err := dec.Decrypt(t.Context(), obj, trailer.Envelope())
	if err != nil {
		return nil, err
	}
	return trailer.Open(d)
}

// readComposite reads a whole composite object as a stream.
func readComposite(t testing.TB, dec sse.Decrypter, obj sse.Object, object []byte) ([]byte, error) {
	c, err := openComposite(t, dec, obj, object)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(c.Reader(bytes.NewReader(object)))
}

// counted counts what is read of it.
type counted struct {
	r io.Reader
	n int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// readEverywhere reads an object in every way, and ranges of it.
func readEverywhere(t *testing.T, random *rand.Rand, dec sse.Decrypter, obj sse.Object, object, plain []byte) {
	t.Helper()
	equal := func(got []byte, err error) {
		t.Helper()
		require.NoError(t, err)
		require.True(t, bytes.Equal(plain, got), "%d and %d bytes", len(plain), len(got))
	}
	c, err := openComposite(t, dec, obj, object)
	require.NoError(t, err)
	size := int64(len(plain))
	require.Equal(t, size, c.Size())
	equal(io.ReadAll(c.Reader(bytes.NewReader(object))))
	equal(io.ReadAll(iotest.OneByteReader(c.Reader(iotest.HalfReader(bytes.NewReader(object))))))
	var dst bytes.Buffer
	_, err = c.Reader(bytes.NewReader(object)).(io.WriterTo).WriteTo(&dst)
	equal(dst.Bytes(), err)
	equal(openAt(dec, obj, object))
	at := c.ReaderAt(bytes.NewReader(object))
	for range 20 {
		off := random.Int64N(size + 1)
		n := random.Int64N(size + 3 - off)
		if random.IntN(4) == 0 { // up to the border of a chunk or a part
			n = max(0, off/chunk*chunk+chunk-off)
		}
		want := plain[off:min(off+n, size)]
		storedOff, storedLen, err := c.StoredRange(off, n)
		require.NoError(t, err)
		src := &counted{r: bytes.NewReader(object[storedOff:])}
		got, err := io.ReadAll(c.RangeReader(src, off, n))
		require.NoError(t, err)
		require.True(t, bytes.Equal(want, got), "%d bytes at %d of %d", n, off, size)
		require.LessOrEqual(t, src.n, storedLen, "the range reader read too much")
		got, err = io.ReadAll(c.RangeReader(bytes.NewReader(object[storedOff:][:storedLen]), off, n))
		require.NoError(t, err)
		require.True(t, bytes.Equal(want, got))
		dst.Reset()
		_, err = io.Copy(&dst, c.RangeReader(bytes.NewReader(object[storedOff:]), off, n))
		require.NoError(t, err)
		require.True(t, bytes.Equal(want, dst.Bytes()))

		p := make([]byte, n)
		m, err := at.ReadAt(p, off)
		require.True(t, err == nil || err == io.EOF, "%v", err)
		require.True(t, bytes.Equal(want, p[:m]))
	}
}

// countedAt records the sizes of reads.
type countedAt struct {
	r     io.ReaderAt
	reads []int
}

func (c *countedAt) ReadAt(p []byte, off int64) (int, error) {
	c.reads = append(c.reads, len(p))
	return c.r.ReadAt(p, off)
}

func trailerOf(t testing.TB, object []byte) *sse.Trailer {
	t.Helper()
	trailer, err := sse.ReadTrailer(bytes.NewReader(object), int64(len(object)))
	require.NoError(t, err)
	return trailer
}

// withFooter appends a footer.
func withFooter(object []byte, plain int64, manifest, envelope int) []byte {
	b := binary.BigEndian.AppendUint64(bytes.Clone(object), uint64(plain))
	b = binary.BigEndian.AppendUint32(b, uint32(manifest))
	b = binary.BigEndian.AppendUint32(b, uint32(envelope))
	b = append(b, 2, 0, 0, 0, 0, 0, 0, 0)
	return append(b, "\x89END\r\n\x1a\n"...)
}
