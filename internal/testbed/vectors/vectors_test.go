package vectors

import (
	"bytes"
	"compress/zlib"
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"runtime"
	"slices"
	"testing"
	"testing/iotest"

	"github.com/c2sp/wycheproof"
	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/internal/chunked"
)

// hexBytes is a hex string in JSON.
type hexBytes []byte

func (h *hexBytes) UnmarshalText(text []byte) (err error) {
	*h, err = hex.DecodeString(string(text))
	return err
}

type vector struct {
	ID        int      `json:"tcId"`
	Comment   string   `json:"comment"`
	Key       hexBytes `json:"key"`
	Context   hexBytes `json:"ctx"`
	Packed    hexBytes `json:"ct"` // zlib
	MsgLength int64    `json:"msgLength"`
	MsgSHA512 hexBytes `json:"msgSha512"`
	Result    string   `json:"result"`
	Flags     []string `json:"flags"`

	message []byte
}

func (v *vector) has(flag string) bool { return slices.Contains(v.Flags, flag) }

// vectors loads the official vectors of Cobblestone-256.
func vectors(t *testing.T) []vector {
	raw, err := fs.ReadFile(wycheproof.TestVectors, "c2sp_chunked_encryption_aes_256_gcm_test.json")
	require.NoError(t, err)
	var file struct {
		NumberOfTests int `json:"numberOfTests"`
		TestGroups    []struct {
			Tests []vector `json:"tests"`
		} `json:"testGroups"`
	}
	require.NoError(t, json.Unmarshal(raw, &file))
	var all []vector
	for _, group := range file.TestGroups {
		for _, v := range group.Tests {
			z, err := zlib.NewReader(bytes.NewReader(v.Packed))
			require.NoError(t, err)
			v.message, err = io.ReadAll(z)
			require.NoError(t, err)
			all = append(all, v)
		}
	}
	require.Len(t, all, file.NumberOfTests)
	require.GreaterOrEqual(t, len(all), 35)
	return all
}

// readings are ways to read a whole body. Each returns what came out, and the
// error that ended it. Those that stream release every byte before the chunk that
// fails.
var readings = []struct {
	name    string
	streams bool
	read    func(c *chunked.Cipher, body []byte) ([]byte, error)
}{
	{"Read small", true, func(c *chunked.Cipher, body []byte) ([]byte, error) {
		return io.ReadAll(iotest.OneByteReader(c.Reader(bytes.NewReader(body))))
	}},
	{"Read large", true, func(c *chunked.Cipher, body []byte) ([]byte, error) {
		p := make([]byte, len(body)+1)
		n, err := io.ReadFull(c.Reader(bytes.NewReader(body)), p)
		return p[:n], clean(err)
	}},
	{"WriteTo", true, func(c *chunked.Cipher, body []byte) ([]byte, error) {
		var got bytes.Buffer
		_, err := c.Reader(bytes.NewReader(body)).WriteTo(&got)
		return got.Bytes(), err
	}},
	{"WriteTo, data with EOF", true, func(c *chunked.Cipher, body []byte) ([]byte, error) {
		var got bytes.Buffer
		_, err := c.Reader(iotest.DataErrReader(bytes.NewReader(body))).WriteTo(&got)
		return got.Bytes(), err
	}},
	{"ranges of 10000", false, func(c *chunked.Cipher, body []byte) (got []byte, err error) {
		const step = 10000
		for off := int64(0); ; off += step {
			from, _, err := chunked.CiphertextRange(off, step)
			if err != nil {
				return got, err
			}
			src := bytes.NewReader(body[min(from, int64(len(body))):])
			part, err := io.ReadAll(c.RangeReader(src, off, step))
			got = append(got, part...)
			if err != nil || len(part) < step {
				return got, err
			}
		}
	}},
	{"open range from 0", false, func(c *chunked.Cipher, body []byte) ([]byte, error) {
		return io.ReadAll(c.RangeReader(bytes.NewReader(body), 0, -1))
	}},
	{"ReaderAt", false, func(c *chunked.Cipher, body []byte) ([]byte, error) {
		r, err := c.ReaderAt(bytes.NewReader(body), int64(len(body)))
		if err != nil {
			return nil, err
		}
		p := make([]byte, r.Size()+1)
		n, err := r.ReadAt(p, 0)
		return p[:n], clean(err)
	}},
}

// clean returns nil for the end of the data.
func clean(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return nil
	}
	return err
}

// onProcs runs a test with one goroutine per stream, and with four.
func onProcs(t *testing.T, test func(t *testing.T)) {
	for _, n := range []int{1, 4} {
		t.Run(fmt.Sprintf("procs=%d", n), func(t *testing.T) {
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(n))
			test(t)
		})
	}
}

// TestVectors runs the official vectors through everything. SPEC MSG-1 MSG-2 MSG-3 MSG-4
func TestVectors(t *testing.T) {
	onProcs(t, func(t *testing.T) {
		for _, v := range vectors(t) {
			t.Run(fmt.Sprintf("%d %s", v.ID, v.Comment), func(t *testing.T) { testVector(t, v) })
		}
	})
}

func testVector(t *testing.T, v vector) {
	valid := v.Result == "valid"
	if len(v.message) < chunked.HeadSize {
		require.True(t, v.has("HeaderFailure"))
		_, err := chunked.OpenMessage(v.Key, v.Context, v.message)
		require.ErrorIs(t, err, chunked.ErrTruncated)
		return
	}
	c, err := chunked.Open(v.Key, v.Context, v.message[:chunked.HeadSize])
	if v.has("HeaderFailure") {
		require.Error(t, err)
		if !v.has("InvalidKeySize") {
			require.ErrorIs(t, err, chunked.ErrKey)
		}
		return
	}
	require.NoError(t, err)
	body := v.message[chunked.HeadSize:]
	for _, way := range readings {
		got, err := way.read(c, body)
		if valid {
			require.NoError(t, err, way.name)
			require.EqualValues(t, v.MsgLength, len(got), way.name)
		} else {
			require.ErrorIs(t, err, chunked.ErrCorrupt, way.name)
			require.LessOrEqual(t, int64(len(got)), v.MsgLength, way.name)
		}
		if int64(len(got)) == v.MsgLength && (valid || v.has("PartialPlaintext")) {
			sum := sha512.Sum512(got)
			require.Equal(t, []byte(v.MsgSHA512), sum[:], way.name)
		}
	}

	// The whole-message form, the length alone, and encryption.
	plaintext, err := chunked.OpenMessage(v.Key, v.Context, v.message)
	_, sizeErr := c.ReaderAt(bytes.NewReader(body), int64(len(body)))
	if !valid {
		require.ErrorIs(t, err, chunked.ErrCorrupt)
		require.Empty(t, plaintext)
		if !v.has("ValidFinalChunk") {
			require.ErrorIs(t, sizeErr, chunked.ErrCorrupt)
		}
		return
	}
	require.NoError(t, err)
	require.NoError(t, sizeErr)
	var sealed bytes.Buffer
	w := c.Writer(&sealed)
	_, err = w.Write(plaintext)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	require.Equal(t, body, sealed.Bytes())
}

// TestPartialPlaintext holds the streams to the prefix that a vector allows.
// Bytes behind the prefix release its last byte.
func TestPartialPlaintext(t *testing.T) {
	onProcs(t, func(t *testing.T) {
		tested := 0
		for _, v := range vectors(t) {
			if !v.has("PartialPlaintext") {
				continue
			}
			tested++
			c, err := chunked.Open(v.Key, v.Context, v.message[:chunked.HeadSize])
			require.NoError(t, err)
			for _, way := range readings {
				if !way.streams {
					continue
				}
				got, err := way.read(c, v.message[chunked.HeadSize:])
				require.ErrorIs(t, err, chunked.ErrCorrupt, way.name)
				if int64(len(got)) == v.MsgLength-1 {
					more := append(bytes.Clone(v.message[chunked.HeadSize:]), make([]byte, 17)...)
					got, err = way.read(c, more)
					require.ErrorIs(t, err, chunked.ErrCorrupt, way.name)
				}
				sum := sha512.Sum512(got)
				require.Equal(t, []byte(v.MsgSHA512), sum[:], "%d %s: %s", v.ID, v.Comment, way.name)
			}
		}
		require.Positive(t, tested)
	})
}
