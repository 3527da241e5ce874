package sse_test

import (
	"bytes"
	"crypto/rand"
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/sse"
)

// vector is one frozen object: what it takes to open it, and what must come of it.
// The files in testdata/v1 stay as they are for as long as version 1 is read.
type vector struct {
	Comment string            `json:"comment"`
	Mode    sse.Mode          `json:"mode"`
	Bucket  string            `json:"bucket"`
	Key     string            `json:"key"`
	Context map[string]string `json:"context,omitempty"` // stated when it is opened; absent: as stored

	// One of the two: the key-encryption key, or (SSE-S3) a ring document and
	// the 32-byte key of its root.
	KEK     hexBytes `json:"kek,omitempty"`
	RootKey hexBytes `json:"root_key,omitempty"`
	Ring    []byte   `json:"ring,omitempty"` // base64

	Object []byte `json:"object"` // base64; the self-contained form

	// Result is "valid", or the class of the error: see SPEC.md, section 7.
	Result string `json:"result"`
	// Of the whole plaintext, or of what may come out before the error.
	PlaintextSize   int      `json:"plaintext_size"`
	PlaintextSHA512 hexBytes `json:"plaintext_sha512"`
}

type hexBytes []byte

func (h hexBytes) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, h), nil }

func (h *hexBytes) UnmarshalText(text []byte) (err error) {
	*h, err = hex.DecodeString(string(text))
	return err
}

var resultErrors = map[string]error{
	"valid": nil, "format": sse.ErrFormat, "version": sse.ErrVersion, "mode": sse.ErrMode,
	"key": sse.ErrKey, "corrupt": sse.ErrCorrupt, "truncated": sse.ErrTruncated,
}

func (v *vector) decrypter(t *testing.T) sse.Decrypter {
	switch {
	case len(v.Ring) > 0:
		store := keyring.NewMemStore()
		_, err := store.Swap(t.Context(), "", v.Ring)
		require.NoError(t, err)
		root, err := keyring.NewKeyRoot(v.RootKey)
		require.NoError(t, err)
		ring, err := keyring.Open(t.Context(), store, root, nil)
		require.NoError(t, err)
		return sse.ByMode{sse.ModeManaged: sse.NewManaged(ring)}
	case v.Mode == sse.ModeCustomer:
		return sse.ByMode{sse.ModeCustomer: newCustomer(t, v.KEK)}
	}
	return sse.ByMode{v.Mode: sse.WithKEK{ForMode: v.Mode, KEK: v.KEK}}
}

// SPEC ERR-5 VEC-1
func TestVectors(t *testing.T) {
	files, err := filepath.Glob("testdata/v1/*.json")
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(files), 30)
	results := map[string]int{}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(file)
			require.NoError(t, err)
			var v vector
			require.NoError(t, json.Unmarshal(text, &v))
			want, known := resultErrors[v.Result]
			require.True(t, known || v.Result == "refused", v.Result)
			results[v.Result]++
			obj := sse.Object{Bucket: v.Bucket, Key: v.Key, Context: v.Context, AnyContext: v.Context == nil}
			dec := v.decrypter(t)

			got, err := open(dec, obj, v.Object)
			requireResult(t, v.Result, err)
			if want != nil && len(got) == v.PlaintextSize-1 { // SPEC MSG-9: bytes that follow release the last one
				require.Zero(t, v.PlaintextSize%chunk)
				got, err = open(dec, obj, append(bytes.Clone(v.Object), make([]byte, 17)...))
				require.ErrorIs(t, err, sse.ErrCorrupt)
			}
			sum := sha512.Sum512(got)
			require.Equal(t, v.PlaintextSize, len(got))
			require.Equal(t, []byte(v.PlaintextSHA512), sum[:])

			_, err = openAt(dec, obj, v.Object)
			if v.Result == "refused" {
				requireResult(t, v.Result, err)
			} else if want == nil {
				require.NoError(t, err)
				env, err := sse.ReadEnvelope(bytes.NewReader(v.Object))
				require.NoError(t, err)
				require.Equal(t, v.Object[:env.Size()], marshal(t, env))
			} else {
				require.ErrorIs(t, err, want)
			}
		})
	}
	for _, result := range append(slices.Collect(maps.Keys(resultErrors)), "refused") {
		require.Positive(t, results[result], "no vector of %q", result)
	}
}

var generate = flag.Bool("generate-vectors", false, "write vectors that are not in testdata yet")

// TestGenerateVectors makes the vectors, with
//
//	go test ./sse -run TestGenerateVectors -generate-vectors
//
// It writes files that do not exist and never replaces one. It is long because it is
// a list of vectors.
func TestGenerateVectors(t *testing.T) {
	if !*generate {
		t.Skip("vectors are frozen; see -generate-vectors")
	}
	random := func(n int) []byte {
		p := make([]byte, n)
		rand.Read(p)
		return p
	}
	rootKey := random(32)
	root, err := keyring.NewKeyRoot(rootKey)
	require.NoError(t, err)
	store := keyring.NewMemStore()
	ring, err := keyring.Create(t.Context(), store, root, nil)
	require.NoError(t, err)
	_, err = ring.Rotate(t.Context())
	require.NoError(t, err)
	document, _, err := store.Load(t.Context())
	require.NoError(t, err)

	save := func(name string, v vector, plaintext []byte) {
		sum := sha512.Sum512(plaintext)
		v.PlaintextSize, v.PlaintextSHA512 = len(plaintext), sum[:]
		text, err := json.MarshalIndent(v, "", "  ")
		require.NoError(t, err)
		file, err := os.OpenFile(filepath.Join("testdata/v1", name+".json"), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
		if errors.Is(err, os.ErrExist) {
			return
		}
		require.NoError(t, err)
		_, err = file.Write(append(text, '\n'))
		require.NoError(t, errors.Join(err, file.Close()))
	}

	for mode, name := range map[sse.Mode]string{
		sse.ModeManaged: "managed", sse.ModeKMS: "kms", sse.ModeCustomer: "customer",
	} {
		base := vector{Mode: mode, Bucket: "photos", Key: "2026/cat.jpg"}
		var enc sse.Encrypter
		switch mode {
		case sse.ModeManaged:
			base.RootKey, base.Ring = rootKey, document
			enc = sse.NewManaged(ring)
		case sse.ModeCustomer:
			base.KEK = random(32)
			enc = newCustomer(t, base.KEK)
		default:
			base.KEK = random(32)
			enc = sse.WithKEK{ForMode: mode, KeyID: "arn:example:kms:eu-1:111122223333:key/7", Wrapped: random(184), KEK: base.KEK}
		}
		obj := sse.Object{Bucket: base.Bucket, Key: base.Key}
		valid := func(file, comment string, size, envelope int, context kms.Context) ([]byte, []byte) {
			v := base
			obj := obj
			obj.Context = context
			plaintext := random(size)
			v.Comment, v.Result = comment, "valid"
			v.Object = seal(t, enc, obj, plaintext, &sse.WriterOptions{EnvelopeSize: envelope})
			save(name+"-"+file, v, plaintext)
			return v.Object, plaintext
		}
		for _, size := range []int{0, 1, chunk - 1, chunk, chunk + 1, 2*chunk + 5} {
			valid(fmt.Sprintf("size-%05d", size), fmt.Sprintf("%d bytes of plaintext", size), size, 0, nil)
		}
		valid("context", "an encryption context that is not stated", 20, 0, kms.Context{"b": "2", "a": "", "ü": "ß"})
		data, plaintext := valid("padded", "an envelope padded to 1 KiB", 20, 1024, kms.Context{"team": "blue"})

		invalid := func(file, comment, result string, object []byte, v vector, released []byte) {
			v.Comment, v.Result, v.Object = comment, result, object
			save(name+"-"+file, v, released)
		}
		edit := func(f func(b []byte)) []byte {
			b := bytes.Clone(data)
			f(b)
			return b
		}
		stated := base
		stated.Context = map[string]string{"team": "blue"}
		invalid("context-stated", "the context is stated and equal", "valid", data, stated, plaintext)
		stated.Context = map[string]string{"Team": "blue"}
		invalid("context-case", "the stated context differs in case", "key", data, stated, nil)
		renamed := base
		renamed.Bucket, renamed.Key = "photos/2026", "cat.jpg"
		invalid("renamed", "opened under another name", "key", data, renamed, nil)
		if mode != sse.ModeManaged {
			other := base
			other.KEK = random(32)
			invalid("wrong-key", "opened with another key", "key", data, other, nil)
		}
		sealed := bytes.Index(data, []byte("key/7")) + 5 + 2 + 184 // behind what is wrapped
		if mode != sse.ModeKMS {
			sealed = 14 + 2 + int(data[15]) + 2
		}
		invalid("sealed-salt", "a bit of the sealed data key's salt is flipped", "key", edit(func(b []byte) { b[sealed] ^= 1 }), base, nil)
		invalid("sealed-commitment", "a bit of the sealed data key's commitment is flipped", "key", edit(func(b []byte) { b[sealed+24] ^= 1 }), base, nil)
		invalid("sealed-chunk", "a bit of the sealed data key is flipped", "key", edit(func(b []byte) { b[sealed+56] ^= 1 }), base, nil)
		invalid("sealed-tag", "a bit of the sealed data key's tag is flipped", "key", edit(func(b []byte) { b[sealed+103] ^= 1 }), base, nil)
		if mode != sse.ModeCustomer {
			invalid("key-id", "a character of the key id is another", "key", edit(func(b []byte) { b[15+int(b[15])] ^= 1 }), base, nil)
		}
		invalid("mode-0", "mode 0", "format", edit(func(b []byte) { b[9] = 0 }), base, nil)
		invalid("mode-4", "mode 4", "format", edit(func(b []byte) { b[9] = 4 }), base, nil)
		invalid("version", "version 2", "version", edit(func(b []byte) { b[8] = 2 }), base, nil)
		invalid("magic", "no magic bytes", "format", edit(func(b []byte) { b[0] ^= 1 }), base, nil)
		invalid("padding", "padding that is not zero", "format", edit(func(b []byte) { b[1024-56-1] = 1 }), base, nil)
		invalid("size", "size one too large", "format", edit(func(b []byte) { b[13] = 1 }), base, nil)
		invalid("cut-envelope", "ends inside the envelope", "format", data[:500], base, nil)
		invalid("context-edited", "a bit of the stored context is flipped", "key", edit(func(b []byte) {
			b[bytes.Index(b, []byte("blue"))] ^= 1
		}), base, nil)
		invalid("head-edited", "a bit of the head is flipped", "key", edit(func(b []byte) { b[1023] ^= 1 }), base, nil)
		other := vector{}
		other = base
		wrong := map[sse.Mode]sse.Mode{sse.ModeManaged: sse.ModeCustomer, sse.ModeKMS: sse.ModeCustomer, sse.ModeCustomer: sse.ModeKMS}[mode]
		other.Mode, other.KEK, other.Ring, other.RootKey = wrong, random(32), nil, nil
		invalid("mode", "opened by a decrypter of "+strings.ToUpper(wrong.String()), "mode", data, other, nil)

		long := random(2*chunk + 5)
		object := seal(t, enc, obj, long, nil)
		at := len(object) - (2*16400 + 5 + 16)
		invalid("tail-edited", "the last bit is flipped", "corrupt", append(bytes.Clone(object[:len(object)-1]), object[len(object)-1]^1), base, long[:2*chunk])
		invalid("cut-at-chunk", "cut behind a whole chunk", "truncated", object[:at+16400], base, long[:chunk])
		invalid("cut-in-chunk", "cut inside a chunk", "corrupt", object[:at+16400+99], base, long[:chunk])
		for _, n := range []int{1, 15, 16} {
			result := "truncated"
			if n == 16 {
				result = "corrupt"
			}
			invalid(fmt.Sprintf("cut-%02d-bytes-into-chunk", n), "cut a few bytes into a chunk", result, object[:at+16400+n], base, long[:chunk])
		}
		invalid("cut-to-envelope", "no body", "truncated", object[:at], base, nil)
		invalid("swapped", "chunks 0 and 1 swapped", "corrupt", bytes.Join([][]byte{
			object[:at], object[at+16400 : at+2*16400], object[at : at+16400], object[at+2*16400:],
		}, nil), base, nil)
		invalid("appended", "a byte is appended", "corrupt", append(bytes.Clone(object), 0), base, long[:2*chunk])
		second := seal(t, enc, obj, long, nil)
		invalid("mixed", "envelope of one object, body of another", "corrupt", append(bytes.Clone(object[:at]), second[at:]...), base, nil)
		if mode == sse.ModeKMS {
			e := enc.(sse.WithKEK)
			e.BucketKey = true
			enc = e
			valid("bucket-key", "the key service bound the bucket alone", 20, 0, kms.Context{"team": "blue"})
		}
	}

	// Envelopes that break the format in one place, with nothing behind them.
	for file, broken := range map[string]func(l *layout){
		"key-id-in-customer":     func(l *layout) { l.keyID = []byte("k") },
		"wrapped-in-customer":    func(l *layout) { l.wrapped = []byte("w") },
		"no-key-id-in-managed":   func(l *layout) { l.mode = 1 },
		"wrapped-in-managed":     func(l *layout) { l.mode, l.keyID, l.wrapped = 1, []byte("k"), []byte("w") },
		"nothing-wrapped-in-kms": func(l *layout) { l.mode, l.keyID = 2, []byte("k") },
		"names-out-of-order":     func(l *layout) { l.context = pairs("b", "1", "a", "2") },
		"name-twice":             func(l *layout) { l.context = pairs("a", "1", "a", "2") },
		"name-empty":             func(l *layout) { l.context = pairs("", "1") },
		"name-not-utf8":          func(l *layout) { l.context = pairs("\xff", "1") },
		"name-reserved":          func(l *layout) { l.context = pairs("blobseal:object", "x") },
		"bucket-key-in-customer": func(l *layout) { l.context = pairs("blobseal:bucket-key", "true") },
		"size-above-bound":       func(l *layout) { l.padding = make([]byte, sse.MaxEnvelopeSize) },
	} {
		l := customerLayout()
		broken(&l)
		v := vector{Mode: sse.Mode(l.mode), KEK: random(32), Comment: file, Result: "format", Object: l.bytes()}
		save("format-"+file, v, nil)
	}
}
