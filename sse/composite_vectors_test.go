package sse_test

import (
	"bytes"
	"crypto/sha512"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/sse"
)

// compositeVector is one frozen composite object: see VEC-5 in SPEC.md.
type compositeVector struct {
	vector
	Parts [][2]int `json:"parts,omitempty"` // number, plaintext size
}

// uploadVector is a frozen upload.
type uploadVector struct {
	Comment    string            `json:"comment"`
	Mode       sse.Mode          `json:"mode"`
	Bucket     string            `json:"bucket"`
	Key        string            `json:"key"`
	Context    map[string]string `json:"context,omitempty"`
	KEK        hexBytes          `json:"kek"`
	KeeperMode sse.Mode          `json:"keeper_mode,omitempty"`
	KeeperKEK  hexBytes          `json:"keeper_kek,omitempty"`
	State      []byte            `json:"state"`
	Receipts   [][]byte          `json:"receipts"`
	Parts      [][2]int          `json:"parts,omitempty"`
	Result     string            `json:"result"`
}

func compositeVectors(t *testing.T, folder string, minimum int, check func(t *testing.T, text []byte)) {
	files, err := filepath.Glob(filepath.Join("testdata/v2", folder, "*.json"))
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(files), minimum)
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(file)
			require.NoError(t, err)
			check(t, text)
		})
	}
}

// TestCompositeVectors: this package and the stranger read them alike.
// SPEC COMP-1 COMP-2 COMP-3 COMP-4 COMP-5 COMP-6 COMP-7 COMP-8 COMP-9 COMP-10 VEC-5
func TestCompositeVectors(t *testing.T) {
	results := map[string]int{}
	compositeVectors(t, "", 50, func(t *testing.T, text []byte) {
		var v compositeVector
		require.NoError(t, json.Unmarshal(text, &v))
		results[v.Result]++
		obj := sse.Object{Bucket: v.Bucket, Key: v.Key, Context: v.Context, AnyContext: v.Context == nil}
		dec := v.decrypter(t)

		c, err := openComposite(t, dec, obj, v.Object)
		var got []byte
		if err == nil {
			got, err = io.ReadAll(c.Reader(bytes.NewReader(v.Object)))
		}
		requireResult(t, v.Result, err)
		held := 0
		if err != nil && len(got) > 0 && len(got) < v.PlaintextSize {
			held = 1 // SPEC COMP-12 MSG-9
		}
		require.Equal(t, v.PlaintextSize-held, len(got))
		if held == 0 {
			sum := sha512.Sum512(got)
			require.Equal(t, []byte(v.PlaintextSHA512), sum[:])
		}
		if v.Result == "valid" {
			var parts [][2]int
			for number, size := range c.Parts() {
				parts = append(parts, [2]int{number, int(size)})
			}
			require.Equal(t, v.Parts, parts)
		}
		got, err = openAt(dec, obj, v.Object)
		if v.Result == "valid" {
			require.NoError(t, err)
			require.Len(t, got, v.PlaintextSize)
		}
		if err == nil { // only bytes that a random reader does not look at are wrong
			require.Contains(t, []string{"valid", "corrupt"}, v.Result)
		}

		if len(v.Ring) > 0 {
			return // the stranger reads rings in its own test
		}
		s := stranger{byte(v.Mode), func(string) []byte { return v.KEK }}
		plain, result := s.openComposite(v.Object, v.Bucket, v.Key, v.Context)
		require.Equal(t, v.Result, result)
		sum := sha512.Sum512(plain)
		require.Equal(t, []byte(v.PlaintextSHA512), sum[:])
	})
	for _, result := range []string{"valid", "format", "version", "mode", "key", "corrupt", "truncated"} {
		require.Positive(t, results[result], "no vector of %q", result)
	}
}

// TestUploadVectors: the states and receipts of every version of this package stay
// readable. SPEC COMP-14 VEC-5
func TestUploadVectors(t *testing.T) {
	compositeVectors(t, "upload", 8, func(t *testing.T, text []byte) {
		var v uploadVector
		require.NoError(t, json.Unmarshal(text, &v))
		obj := sse.Object{Bucket: v.Bucket, Key: v.Key, Context: v.Context, AnyContext: v.Context == nil}
		dec := (&vector{Mode: v.Mode, KEK: v.KEK}).decrypter(t)
		m, err := sse.OpenMultipart(t.Context(), dec, obj, v.State)
		var trailer []byte
		if err == nil {
			trailer, err = m.Trailer(v.Receipts, nil)
		}
		if err == nil && v.KeeperMode != 0 {
			keeper := (&vector{Mode: v.KeeperMode, KEK: v.KeeperKEK}).decrypter(t)
			var c *sse.Completer
			if c, err = sse.OpenCompleter(t.Context(), keeper, obj, v.State); err == nil {
				trailer, err = c.Trailer(v.Receipts, nil)
			}
		}
		switch v.Result {
		case "receipt":
			require.ErrorIs(t, err, sse.ErrReceipt)
			return
		case "invalid":
			require.ErrorIs(t, err, sse.ErrInvalid)
			return
		}
		requireResult(t, v.Result, err)
		if err == nil {
			require.Equal(t, v.Parts, strangerParts(t, v.KEK, trailer, v.Bucket, v.Key, byte(v.Mode)))
		}
	})
}

// strangerParts reads the manifest of a trailer.
func strangerParts(t *testing.T, kek, trailer []byte, bucket, key string, mode byte) (parts [][2]int) {
	footer := trailer[len(trailer)-32:]
	manifest := int(binary.BigEndian.Uint32(footer[8:]))
	s := stranger{mode, func(string) []byte { return kek }}
	head, dek, result := s.openEnvelope(trailer[manifest:len(trailer)-32], bucket, key, nil)
	require.Equal(t, "valid", result)
	plain, result := strangerOpen(strangerManifestKey(dek, head[:24]), trailer[:manifest], strangerV2+"manifest")
	require.Equal(t, "valid", result)
	for f := (strangerFields{data: plain[6:]}); len(f.data) > 0; f.take(24) {
		parts = append(parts, [2]int{int(f.uint(2)), int(f.uint(8))})
	}
	return parts
}

// saveV2 writes a vector of the second version of the format.
func saveV2(t *testing.T, path string, v any) { saveIn(t, "testdata/v2", path, v) }

// TestGenerateCompositeVectors: see [TestGenerateVectors].
func TestGenerateCompositeVectors(t *testing.T) {
	if !*generate {
		t.Skip("vectors are frozen; see -generate-vectors")
	}
	rootKey, store := randomBytes(32), keyring.NewMemStore()
	root, err := keyring.NewKeyRoot(rootKey)
	require.NoError(t, err)
	ring, err := keyring.Create(t.Context(), store, root, nil)
	require.NoError(t, err)
	document, _, err := store.Load(t.Context())
	require.NoError(t, err)
	kek := randomBytes(32)
	kmsCipher := sse.WithKEK{ForMode: sse.ModeKMS, KeyID: "arn:example:kms:eu-1:111122223333:key/7", Wrapped: randomBytes(184), KEK: kek}
	bases := map[string]struct {
		enc sse.Encrypter
		vector
	}{
		"managed":  {sse.NewManaged(ring), vector{Mode: sse.ModeManaged, RootKey: rootKey, Ring: document}},
		"kms":      {kmsCipher, vector{Mode: sse.ModeKMS, KEK: kek}},
		"customer": {newCustomer(t, kek), vector{Mode: sse.ModeCustomer, KEK: kek}},
	}
	type part struct{ number, size int }
	for mode, base := range bases {
		base.Bucket, base.Key = "photos", "2026/cat.jpg"
		obj := sse.Object{Bucket: base.Bucket, Key: base.Key}
		save := func(name, comment string, context kms.Context, filler int, opts *sse.TrailerOptions, parts ...part) {
			obj := obj
			obj.Context = context
			u := startUpload(t, base.enc, obj)
			u.filler = filler
			v := compositeVector{vector: base.vector}
			for _, p := range parts {
				u.add(t, p.number, randomBytes(p.size))
				v.Parts = append(v.Parts, [2]int{p.number, p.size})
			}
			v.Comment, v.Object = comment, u.complete(t, opts)
			v.vector = withPlaintext(v.vector, "valid", u.plain())
			saveV2(t, mode+"-"+name, v)
		}
		for _, size := range []int{0, 1, chunk - 1, chunk, chunk + 1} {
			save(fmt.Sprintf("size-%05d", size), "one part", nil, 0, nil, part{1, size})
		}
		save("parts", "two parts", nil, 0, nil, part{1, chunk}, part{2, 5})
		save("gaps", "numbers with gaps", nil, 0, nil, part{3, 1}, part{4, 2}, part{10_000, 3})
		save("empty-last", "the last part is empty", nil, 0, nil, part{1, chunk}, part{2, 0})
		save("filler", "1,000 bytes of filler", nil, 1000, nil, part{1, 5})
		save("padded", "the envelope is padded for objects with envelopes of 512 bytes", kms.Context{"team": "blue"}, 0,
			&sse.TrailerOptions{EnvelopeSize: 512}, part{1, 5}, part{2, 6})
	}
	generateUploads(t, bases["customer"].KEK)
	generateInvalidComposites(t)
}

// generateUploads makes vectors of states and receipts.
func generateUploads(t *testing.T, kek []byte) {
	c := newCustomer(t, kek)
	obj := sse.Object{Bucket: "photos", Key: "2026/cat.jpg"}
	keeperKEK := randomBytes(32)
	keeper := sse.WithKEK{ForMode: sse.ModeManaged, KeyID: "0011223344556677.00000001", KEK: keeperKEK}
	u, other := startUpload(t, c, obj), startUpload(t, c, obj)
	u.add(t, 1, randomBytes(5))
	u.add(t, 9, randomBytes(chunk))
	u.add(t, 10, nil)
	other.add(t, 9, randomBytes(5))
	r := u.receipts()
	state, err := u.m.State(t.Context(), nil)
	require.NoError(t, err)
	kept, err := u.m.State(t.Context(), keeper)
	require.NoError(t, err)
	otherKept, err := other.m.State(t.Context(), keeper)
	require.NoError(t, err)
	base := uploadVector{Mode: sse.ModeCustomer, Bucket: obj.Bucket, Key: obj.Key, KEK: kek, State: state, Receipts: r}
	flip := func(b []byte, at int) []byte { b = bytes.Clone(b); b[at] ^= 1; return b }
	for name, edit := range map[string]func(v *uploadVector){
		"valid": func(v *uploadVector) { v.Parts = [][2]int{{1, 5}, {9, chunk}, {10, 0}} },
		"keeper": func(v *uploadVector) {
			v.State, v.KeeperMode, v.KeeperKEK, v.Parts = kept, sse.ModeManaged, keeperKEK, [][2]int{{1, 5}, {9, chunk}, {10, 0}}
		},
		"receipt-foreign":   func(v *uploadVector) { v.Receipts, v.Result = [][]byte{r[0], other.receipts()[0]}, "receipt" },
		"receipt-edited":    func(v *uploadVector) { v.Receipts, v.Result = [][]byte{flip(r[0], 60)}, "receipt" },
		"receipt-cut":       func(v *uploadVector) { v.Receipts, v.Result = [][]byte{r[0][:105]}, "receipt" },
		"receipts-repeated": func(v *uploadVector) { v.Receipts, v.Result = [][]byte{r[0], r[0]}, "invalid" },
		"receipts-order":    func(v *uploadVector) { v.Receipts, v.Result = [][]byte{r[1], r[0]}, "invalid" },
		"receipts-none":     func(v *uploadVector) { v.Receipts, v.Result = [][]byte{}, "invalid" },
		"empty-not-last": func(v *uploadVector) {
			v.Receipts, v.Result = [][]byte{sealPart(t, u.m, 2, nil).receipt, r[1]}, "invalid"
		},
		"state-empty":     func(v *uploadVector) { v.State, v.Result = []byte{}, "format" },
		"state-cut":       func(v *uploadVector) { v.State, v.Result = state[:100], "format" },
		"state-longer":    func(v *uploadVector) { v.State, v.Result = append(bytes.Clone(state), 0), "format" },
		"state-version-1": func(v *uploadVector) { v.State, v.Result = marshal(t, envelope(t, c, obj)), "version" },
		"state-head":      func(v *uploadVector) { v.State, v.Result = flip(state, len(state)-1), "key" },
		"state-two-uploads": func(v *uploadVector) {
			v.State, v.Result = slices.Concat(state, otherKept[len(state):]), "format"
		},
		"state-of-keeper": func(v *uploadVector) { // the keeper's envelope in place of the object's
			v.State, v.Mode, v.KEK, v.Result = kept[len(state):], sse.ModeManaged, keeperKEK, "key"
		},
		"keeper-of-object": func(v *uploadVector) { // and the reverse
			v.State, v.KeeperMode, v.KeeperKEK, v.Result = slices.Concat(state, state), sse.ModeCustomer, kek, "key"
		},
	} {
		v := base
		v.Comment, v.Result = name, "valid"
		edit(&v)
		saveV2(t, "upload/"+name, v)
	}
}
