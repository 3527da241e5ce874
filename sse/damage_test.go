package sse_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms/kmstest"
	"github.com/blobseal/blobseal/sse"
)

// refusals are the errors that damage may cause.
var refusals = []error{sse.ErrFormat, sse.ErrVersion, sse.ErrMode, sse.ErrKey, sse.ErrCorrupt, sse.ErrTruncated}

// requireRefused opens data in every way. Each must fail with a refusal, after a
// true prefix of the plaintext.
func requireRefused(t *testing.T, dec sse.Decrypter, data, plaintext []byte, name string) {
	t.Helper()
	for way, read := range map[string]func() ([]byte, error){
		"stream":          func() ([]byte, error) { return open(dec, object, data) },
		"at random":       func() ([]byte, error) { return openAt(dec, object, data) },
		"byte by byte":    func() ([]byte, error) { return byteByByte(dec, data) },
		"twice after all": func() ([]byte, error) { return readTwice(dec, data) },
	} {
		got, err := read()
		require.Error(t, err, "%s, %s", name, way)
		known := false
		for _, refusal := range refusals {
			known = known || errors.Is(err, refusal)
		}
		require.True(t, known, "%s, %s: %v", name, way, err)
		require.True(t, bytes.HasPrefix(plaintext, got), "%s, %s: wrong plaintext", name, way)
	}
}

func byteByByte(dec sse.Decrypter, data []byte) ([]byte, error) {
	r, err := sse.NewReader(context.Background(), iotest.OneByteReader(bytes.NewReader(data)), dec, object)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(iotest.OneByteReader(r))
}

// readTwice reads on after the error. SPEC ERR-3
func readTwice(dec sse.Decrypter, data []byte) ([]byte, error) {
	r, err := sse.NewReader(context.Background(), bytes.NewReader(data), dec, object)
	if err != nil {
		return nil, err
	}
	got, err := io.ReadAll(r)
	for range 3 {
		n, second := r.Read(make([]byte, 100))
		if n != 0 || !errors.Is(second, err) {
			return nil, fmt.Errorf("after %v: %d, %v", err, n, second)
		}
		if _, second = io.Copy(io.Discard, r); !errors.Is(second, err) {
			return nil, fmt.Errorf("after %v: %v", err, second)
		}
	}
	return got, err
}

// TestEveryBitFlip flips each bit of small objects.
// SPEC ENV-1 ENV-2 ENV-3 SEAL-2 MSG-4 MSG-5 ERR-1
func TestEveryBitFlip(t *testing.T) {
	plaintext := []byte("attack at dawn")
	store := keyring.NewMemStore()
	ring := newRingIn(t, store)
	service := newKMS(t, kmstest.NewFake(kmsKey), kmsKey, &sse.KMSOptions{BucketKey: true})
	dec := sse.ByMode{sse.ModeManaged: fresh{store}, sse.ModeKMS: service, sse.ModeCustomer: newCustomer(t, customerKey)}
	for mode, enc := range map[sse.Mode]sse.Encrypter{
		sse.ModeManaged: sse.NewManaged(ring), sse.ModeKMS: service, sse.ModeCustomer: newCustomer(t, customerKey),
	} {
		for _, size := range []int{0, 600} {
			data := seal(t, enc, object, plaintext, &sse.WriterOptions{EnvelopeSize: size})
			for bit := range len(data) * 8 {
				damaged := bytes.Clone(data)
				damaged[bit/8] ^= 1 << (bit % 8)
				requireRefused(t, dec, damaged, plaintext, fmt.Sprintf("%v, bit %d of byte %d", mode, bit%8, bit/8))
			}
		}
	}
}

// TestEveryTruncation cuts small objects at each byte.
func TestEveryTruncation(t *testing.T) {
	for mode, cs := range ciphers(t) {
		for _, plaintext := range [][]byte{nil, []byte("attack at dawn")} {
			data := seal(t, cs[0], object, plaintext, &sse.WriterOptions{EnvelopeSize: 600})
			for n := range len(data) {
				requireRefused(t, cs[0], data[:n], plaintext, fmt.Sprintf("%v, %d of %d bytes", mode, n, len(data)))
			}
		}
		// At and around the boundaries of a longer one.
		plaintext := pattern(3 * chunk)
		data := seal(t, cs[0], object, plaintext, nil)
		body := len(data) - (3*(chunk+16) + 16)
		for k := range 4 {
			for _, d := range []int{-17, -16, -1, 0, 1, 15, 16, 17} {
				if n := body + k*(chunk+16) + d; n < len(data) {
					requireRefused(t, cs[0], data[:n], plaintext, fmt.Sprintf("%v, cut at %d%+d", mode, k, d))
				}
			}
			_, err := open(cs[0], object, data[:body+k*(chunk+16)])
			require.ErrorIs(t, err, sse.ErrTruncated) // SPEC MSG-6 ERR-2
		}
		_, err := open(cs[0], object, data[:body-1])
		require.ErrorIs(t, err, sse.ErrFormat)
		require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	}
}

// TestMixedParts joins what does not belong together. SPEC SEAL-2
func TestMixedParts(t *testing.T) {
	plaintext := pattern(4*chunk + 5)
	for mode, cs := range ciphers(t) {
		a := seal(t, cs[0], object, plaintext, &sse.WriterOptions{EnvelopeSize: 640})
		b := seal(t, cs[0], object, plaintext, &sse.WriterOptions{EnvelopeSize: 640})
		part := func(data []byte, k int) []byte { return data[640+k*16400:][:16400] }
		join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
		for name, mixed := range map[string][]byte{
			"envelope of A, body of B":          join(a[:640], b[640:]),
			"envelope of A, head and body of B": join(a[:640-56], b[640-56:]),
			"chunks swapped":                    join(a[:640], part(a, 1), part(a, 0), a[640+2*16400:]),
			"chunk duplicated":                  join(a[:640], part(a, 0), a[640:]),
			"chunk dropped":                     join(a[:640], a[640+16400:]),
			"last appended":                     join(a, a[640+4*16400:]),
			"byte appended":                     join(a, []byte{0}),
			"object appended":                   join(a, b),
			"chunk of B":                        join(a[:640], part(b, 0), a[640+16400:]),
			"nothing after it":                  a[:640],
			"envelope twice":                    join(a[:640], a),
			"body alone":                        a[640:],
		} {
			requireRefused(t, cs[0], mixed, plaintext, fmt.Sprintf("%v, %s", mode, name))
		}
		_, err := open(cs[0], object, join(a[:640-56], b[640-56:]))
		require.ErrorIs(t, err, sse.ErrKey, "the head is bound by the sealed data key")
		var bad *sse.ChunkError // SPEC ERR-4
		_, err = open(cs[0], object, join(a[:640], part(a, 0), part(a, 2), part(a, 1), a[640+3*16400:]))
		require.ErrorAs(t, err, &bad)
		require.EqualValues(t, 1, bad.Chunk)
	}
}
