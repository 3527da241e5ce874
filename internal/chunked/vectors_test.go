package chunked_test

import (
	"bytes"
	"compress/zlib"
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
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
	AEADKey   hexBytes `json:"aeadKey"`
	BaseNonce hexBytes `json:"baseNonce"`
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

// readings are all the ways to read a whole body. Each returns what came out,
// and the error that ended it (nil for a clean end).
var readings = []struct {
	name string
	read func(c *chunked.Cipher, body []byte) ([]byte, error)
}{
	{"Read small", func(c *chunked.Cipher, body []byte) ([]byte, error) {
		return drain(iotest.OneByteReader(c.Reader(bytes.NewReader(body))))
	}},
	{"Read 1000", func(c *chunked.Cipher, body []byte) ([]byte, error) {
		return drainBy(c.Reader(iotest.HalfReader(bytes.NewReader(body))), 1000)
	}},
	{"Read large, one core", func(c *chunked.Cipher, body []byte) ([]byte, error) {
		return drainBy(c.Reader(bytes.NewReader(body)).OnProcs(1), len(body)+1)
	}},
	{"Read large, four cores", func(c *chunked.Cipher, body []byte) ([]byte, error) {
		return drainBy(c.Reader(bytes.NewReader(body)).OnProcs(4), len(body)+1)
	}},
	{"WriteTo, one core", func(c *chunked.Cipher, body []byte) ([]byte, error) {
		return writeTo(c.Reader(bytes.NewReader(body)).OnProcs(1))
	}},
	{"WriteTo, four cores", func(c *chunked.Cipher, body []byte) ([]byte, error) {
		return writeTo(c.Reader(bytes.NewReader(body)).OnProcs(4))
	}},
	{"WriteTo, data with EOF", func(c *chunked.Cipher, body []byte) ([]byte, error) {
		return writeTo(c.Reader(iotest.DataErrReader(bytes.NewReader(body))))
	}},
	{"ranges of 10000", func(c *chunked.Cipher, body []byte) (got []byte, err error) {
		const step = 10000
		for off := int64(0); ; off += step {
			from, _, err := chunked.CiphertextRange(off, step)
			if err != nil {
				return got, err
			}
			src := bytes.NewReader(body[min(from, int64(len(body))):])
			part, err := drain(c.RangeReader(src, off, step))
			got = append(got, part...)
			if err != nil || len(part) < step {
				return got, err
			}
		}
	}},
	{"open range from 0", func(c *chunked.Cipher, body []byte) ([]byte, error) {
		return drain(c.RangeReader(bytes.NewReader(body), 0, -1))
	}},
	{"ReaderAt, whole", func(c *chunked.Cipher, body []byte) ([]byte, error) {
		r, err := c.ReaderAt(bytes.NewReader(body), int64(len(body)))
		if err != nil {
			return nil, err
		}
		p := make([]byte, r.Size()+1)
		n, err := r.OnProcs(3).ReadAt(p, 0)
		return p[:n], clean(err)
	}},
	{"ReaderAt, 5000 at a time", func(c *chunked.Cipher, body []byte) ([]byte, error) {
		r, err := c.ReaderAt(bytes.NewReader(body), int64(len(body)))
		if err != nil {
			return nil, err
		}
		return drainBy(io.NewSectionReader(r, 0, r.Size()), 5000)
	}},
}

func clean(err error) error {
	if err == io.EOF {
		return nil
	}
	return err
}

func drain(r io.Reader) ([]byte, error) { return drainBy(r, 512) }

// drainBy reads with a buffer of one size until an error, and then checks that
// the error stays.
func drainBy(r io.Reader, size int) (got []byte, err error) {
	p := make([]byte, size)
	for {
		n, err := r.Read(p)
		got = append(got, p[:n]...)
		if err != nil {
			for range 3 {
				if n, again := r.Read(p); n != 0 || again == nil || again.Error() != err.Error() {
					return got, fmt.Errorf("error %q did not stay: then %d, %v", err, n, again)
				}
			}
			return got, clean(err)
		}
	}
}

func writeTo(r *chunked.Reader) ([]byte, error) {
	var got bytes.Buffer
	_, err := r.WriteTo(&got)
	if n, again := r.WriteTo(&got); n != 0 || again != err {
		return nil, fmt.Errorf("error %v did not stay: then %d, %v", err, n, again)
	}
	return got.Bytes(), err
}

// TestVectors runs the official vectors through everything. SPEC MSG-1 MSG-2 MSG-3 MSG-4
func TestVectors(t *testing.T) {
	for _, v := range vectors(t) {
		t.Run(fmt.Sprintf("%d %s", v.ID, v.Comment), func(t *testing.T) {
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

			// Through the derived key and through the vector's own, which is raw mode.
			raw, err := chunked.Raw(v.AEADKey, v.BaseNonce)
			require.NoError(t, err)
			for _, cipher := range []*chunked.Cipher{c, raw} {
				for _, way := range readings {
					got, err := way.read(cipher, body)
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
			require.Equal(t, body, encrypt(t, raw, plaintext, 1))
			require.Equal(t, body, encrypt(t, raw, plaintext, 4))
		})
	}
}

// TestPartialPlaintext holds the ways that stream to the prefix that a vector
// allows. Bytes behind it release its last byte: see stream.
func TestPartialPlaintext(t *testing.T) {
	tested := 0
	for _, v := range vectors(t) {
		if !v.has("PartialPlaintext") {
			continue
		}
		tested++
		c, err := chunked.Open(v.Key, v.Context, v.message[:chunked.HeadSize])
		require.NoError(t, err)
		for _, way := range readings[:7] {
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
}

func encrypt(t *testing.T, c *chunked.Cipher, plaintext []byte, procs int) []byte {
	t.Helper()
	var body bytes.Buffer
	w := c.WriterFrom(&body, 0, procs)
	n, err := w.Write(plaintext)
	require.NoError(t, err)
	require.Equal(t, len(plaintext), n)
	require.NoError(t, w.Close())
	return body.Bytes()
}
