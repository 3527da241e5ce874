package sse_test

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/localkms"
	"github.com/blobseal/blobseal/sse"
)

// saveVector writes a vector of the first version of the format.
func saveVector(t *testing.T, path string, v any) { saveIn(t, "testdata/v1", path, v) }

// saveIn writes a vector to a folder unless the file exists.
func saveIn(t *testing.T, dir, path string, v any) {
	text, err := json.MarshalIndent(v, "", "  ")
	require.NoError(t, err)
	path = filepath.Join(dir, path+".json")
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if errors.Is(err, os.ErrExist) {
		return
	}
	require.NoError(t, err)
	_, err = file.Write(append(text, '\n'))
	require.NoError(t, errors.Join(err, file.Close()))
}

func randomBytes(n int) []byte {
	p := make([]byte, n)
	rand.Read(p)
	return p
}

// withPlaintext returns v with what must come out of it.
func withPlaintext(v vector, result string, plaintext []byte) vector {
	sum := sha512.Sum512(plaintext)
	v.Result, v.PlaintextSize, v.PlaintextSHA512 = result, len(plaintext), sum[:]
	return v
}

// vectorService is the embedded key service of the vectors.
type vectorService struct {
	*localkms.Client
	store   keyring.Store
	rootKey []byte
}

func newVectorService(t *testing.T) *vectorService {
	s := &vectorService{store: keyring.NewMemStore(), rootKey: randomBytes(32)}
	root, err := keyring.NewKeyRoot(s.rootKey)
	require.NoError(t, err)
	service, err := localkms.Create(t.Context(), s.store, root, nil)
	require.NoError(t, err)
	s.Client, err = service.Client("", "")
	require.NoError(t, err)
	return s
}

func (s *vectorService) document(t *testing.T) *serviceDocument {
	document, _, err := s.store.Load(t.Context())
	require.NoError(t, err)
	return &serviceDocument{document, s.rootKey, "000000000000", "local"}
}

func (s *vectorService) key(t *testing.T, alias string) string {
	k, err := s.CreateKey(t.Context(), &localkms.CreateKeyInput{Description: alias})
	require.NoError(t, err)
	require.NoError(t, s.CreateAlias(t.Context(), alias, k.ID))
	return k.ARN
}

// TestGenerateServiceVectors: see [TestGenerateVectors].
func TestGenerateServiceVectors(t *testing.T) {
	if !*generate {
		t.Skip("vectors are frozen; see -generate-vectors")
	}
	ctx, s := t.Context(), newVectorService(t)
	photos, videos, disabled := s.key(t, "alias/photos"), s.key(t, "alias/videos"), s.key(t, "alias/disabled")
	obj := sse.Object{Bucket: "photos", Key: "2026/cat.jpg", Context: kms.Context{"team": "blue", "ü": ""}}
	plaintext := randomBytes(20)
	sealed := func(key string, opts *sse.KMSOptions) []byte {
		cipher, err := sse.NewKMS(s, key, opts)
		require.NoError(t, err)
		return seal(t, cipher, obj, plaintext, nil)
	}
	first := sealed(photos, nil)
	_, err := s.RotateKey(ctx, photos)
	require.NoError(t, err)
	second, bucketKey := sealed("alias/photos", nil), sealed(photos, &sse.KMSOptions{BucketKey: true})
	foreign, refused := sealed(videos, nil), sealed(disabled, nil)
	require.NoError(t, s.DisableKey(ctx, disabled))
	service := s.document(t)
	photosID := strings.TrimPrefix(photos, "arn:blobseal:kms:local:000000000000:key/")
	edited := func(object []byte, at int) []byte { // counted from where the ciphertext begins
		object = bytes.Clone(object)
		object[14+2+len(photos)+2+at] ^= 1
		return object
	}
	for name, v := range map[string]struct {
		comment, key, result string
		accept               []string
		object               []byte
		edit                 func(v *vector)
	}{
		"arn":              {"the key is named by its ARN", photos, "valid", nil, second, nil},
		"id":               {"the key is named by its id", photosID, "valid", nil, second, nil},
		"alias":            {"the key is named by an alias", "alias/photos", "valid", nil, second, nil},
		"alias-arn":        {"the key is named by an alias's ARN", "arn:blobseal:kms:local:000000000000:alias/photos", "valid", nil, second, nil},
		"first-version":    {"sealed before the key was rotated", "alias/photos", "valid", nil, first, nil},
		"bucket-key":       {"the encryption context names the bucket only", photos, "valid", nil, bucketKey, nil},
		"accepted":         {"under another key, which is accepted", photos, "valid", []string{videos}, foreign, nil},
		"foreign":          {"under another key", photos, "key", nil, foreign, nil},
		"foreign-alias":    {"under another key than the alias means", "alias/photos", "key", nil, foreign, nil},
		"foreign-region":   {"the key is named by its ARN in another region", strings.Replace(photos, ":local:", ":elsewhere:", 1), "key", nil, second, nil},
		"no-alias":         {"there is no such alias", "alias/none", "key", nil, second, nil},
		"disabled":         {"the key is disabled", disabled, "refused", nil, refused, nil},
		"disabled-alias":   {"the key that the alias means is disabled", "alias/disabled", "refused", nil, refused, nil},
		"disabled-context": {"the key is disabled, and the stated context differs", disabled, "key", nil, refused, func(v *vector) { v.Context = map[string]string{"team": "green"} }},
		"disabled-name":    {"the key is disabled, and the object's name is wrong", disabled, "refused", nil, refused, func(v *vector) { v.Key = "2026/dog.jpg" }},
		"disabled-foreign": {"under a key that is disabled, and not accepted", photos, "key", nil, refused, nil},
		"disabled-format":  {"the key is disabled, and the ciphertext is of no known format", "alias/disabled", "key", nil, edited(refused, 0), nil},
		"renamed":          {"opened under another name", photos, "key", nil, second, func(v *vector) { v.Key = "2026/dog.jpg" }},
		"format":           {"the ciphertext is of no known format", photos, "key", nil, edited(second, 0), nil},
		"other-key":        {"the ciphertext names another key", photos, "key", nil, edited(second, 16), nil},
		"other-version":    {"the ciphertext names a version that the key does not have", photos, "key", nil, edited(second, 17), nil},
		"earlier-version":  {"the ciphertext names the key's version before", photos, "key", nil, earlier(second, len(photos)), nil},
		"salt":             {"a bit of the ciphertext's salt is flipped", photos, "key", nil, edited(second, 21), nil},
		"tag":              {"the last bit of the ciphertext is flipped", photos, "key", nil, edited(second, 124), nil},
	} {
		vec := serviceVector{vector{Comment: v.comment, Mode: sse.ModeKMS, Bucket: obj.Bucket, Key: obj.Key, Object: v.object}, v.key, v.accept, service}
		if v.edit != nil {
			v.edit(&vec.vector)
		}
		var out []byte
		if v.result == "valid" {
			out = plaintext
		}
		vec.vector = withPlaintext(vec.vector, v.result, out)
		saveVector(t, "service/"+name, vec)
	}
}

// earlier is an object whose ciphertext names version 1 in place of 2.
func earlier(object []byte, idSize int) []byte {
	object = bytes.Clone(object)
	object[14+2+idSize+2+20] ^= 3
	return object
}

// TestGenerateRefusedVectors: see [TestGenerateVectors].
func TestGenerateRefusedVectors(t *testing.T) {
	if !*generate {
		t.Skip("vectors are frozen; see -generate-vectors")
	}
	ctx, rootKey, store := t.Context(), randomBytes(32), keyring.NewMemStore()
	root, err := keyring.NewKeyRoot(rootKey)
	require.NoError(t, err)
	ring, err := keyring.Create(ctx, store, root, nil)
	require.NoError(t, err)
	obj := sse.Object{Bucket: "photos", Key: "2026/cat.jpg"}
	var objects [][]byte
	for range 3 {
		objects = append(objects, seal(t, sse.NewManaged(ring), obj, []byte("meow"), nil))
		_, err = ring.Rotate(ctx)
		require.NoError(t, err)
	}
	keys := ring.Versions()
	_, err = ring.SetState(ctx, keys[0].ID, keyring.Disabled)
	require.NoError(t, err)
	_, err = ring.SetState(ctx, keys[1].ID, keyring.Destroyed)
	require.NoError(t, err)
	document, _, err := store.Load(ctx)
	require.NoError(t, err)
	base := vector{Mode: sse.ModeManaged, Bucket: obj.Bucket, Key: obj.Key, RootKey: rootKey, Ring: document}
	save := func(name, comment, result string, object []byte, plaintext string, edit func(v *vector)) {
		v := base
		v.Comment, v.Object = comment, object
		if edit != nil {
			edit(&v)
		}
		saveVector(t, name, withPlaintext(v, result, []byte(plaintext)))
	}
	save("managed-disabled", "the version is disabled", "refused", objects[0], "", nil)
	save("managed-destroyed", "the version is destroyed", "refused", objects[1], "", nil)
	save("managed-old-version", "under a version that is not the primary", "valid", objects[2], "meow", nil)
	save("managed-disabled-context", "the version is disabled, and the stated context differs", "key", objects[0], "",
		func(v *vector) { v.Context = map[string]string{"team": "blue"} })
	save("managed-disabled-renamed", "the version is disabled, and the name is wrong", "refused", objects[0], "",
		func(v *vector) { v.Key = "dog.jpg" })
	for name, obj := range map[string]sse.Object{"bucket": {Key: "k"}, "key": {Bucket: "b"}, "name": {}} {
		object := seal(t, sse.NewManaged(ring), obj, []byte("meow"), nil)
		save("managed-empty-"+name, "the "+name+" is empty", "valid", object, "meow", func(v *vector) { v.Bucket, v.Key = obj.Bucket, obj.Key })
	}
}

// TestGenerateRingVectors: see [TestGenerateVectors].
func TestGenerateRingVectors(t *testing.T) {
	if !*generate {
		t.Skip("vectors are frozen; see -generate-vectors")
	}
	rootKey := randomBytes(32)
	r := newStrangerRing(rootKey)
	saveVector(t, "ring/valid", ringVector{
		Comment: "a version of each state", Ring: r.document(), RootKey: rootKey, Result: "valid",
		KEKs: r.keks(), Unusable: r.unusable(),
	})
	unknown := newStrangerRing(rootKey)
	unknown.keysetTail = strangerText(9, "unknown") + strangerInt(10, 1)
	saveVector(t, "ring/valid-unknown-field", ringVector{
		Comment: "the keyset has fields that are not known", Ring: unknown.document(), RootKey: rootKey, Result: "valid",
		KEKs: unknown.keks(), Unusable: unknown.unusable(),
	})
	for name, broken := range brokenRings {
		b := newStrangerRing(rootKey)
		broken.edit(b)
		saveVector(t, "ring/"+name, ringVector{Comment: broken.comment, Ring: b.document(), RootKey: rootKey, Result: broken.result})
	}
	generateNewRing(t)
	saveVector(t, "ring/root-key", ringVector{Comment: "another root key", Ring: r.document(), RootKey: randomBytes(32), Result: "root"})
	generatePassphraseRings(t)
	generateKMSRings(t)
}

// generateNewRing saves a document that package keyring writes, of version 2.
func generateNewRing(t *testing.T) {
	ctx, rootKey, store := t.Context(), randomBytes(32), keyring.NewMemStore()
	root, err := keyring.NewKeyRoot(rootKey)
	require.NoError(t, err)
	ring, err := keyring.Create(ctx, store, root, nil)
	require.NoError(t, err)
	obj := sse.Object{Bucket: "photos", Key: "2026/cat.jpg"}
	object := seal(t, sse.NewManaged(ring), obj, []byte("meow"), nil)
	for range 3 {
		_, err = ring.Rotate(ctx)
		require.NoError(t, err)
	}
	keys := ring.Versions()
	for i, state := range []keyring.State{keyring.Disabled, keyring.Enabled} { // leaves a mark
		_, err = ring.SetState(ctx, keys[0].ID, state)
		require.NoError(t, err)
		_, err = ring.SetState(ctx, keys[i+1].ID, []keyring.State{keyring.Disabled, keyring.Destroyed}[i])
		require.NoError(t, err)
	}
	document, _, err := store.Load(ctx)
	require.NoError(t, err)
	require.EqualValues(t, 2, document[8])
	v := ringVector{Comment: "a document of version 2", Ring: document, RootKey: rootKey, Result: "valid", KEKs: map[string]hexBytes{}}
	keks, err := strangerRing(document, func(ciphertext []byte, associatedData string) []byte {
		keyset, result := strangerOpen(rootKey, ciphertext, strangerV1+"key root\x00"+associatedData)
		require.Equal(t, "valid", result)
		return keyset
	})
	require.NoError(t, err)
	for _, key := range keys {
		if kek := keks[key.ID]; len(kek) > 0 {
			v.KEKs[key.ID] = kek
		} else {
			v.Unusable = append(v.Unusable, key.ID)
		}
	}
	saveVector(t, "ring/valid-version-2", v)
	saveVector(t, "managed-ring-version-2", withPlaintext(vector{
		Comment: "the ring is a document of version 2", Mode: sse.ModeManaged, Bucket: obj.Bucket, Key: obj.Key,
		RootKey: rootKey, Ring: document, Object: object,
	}, "valid", []byte("meow")))
}

func generatePassphraseRings(t *testing.T) {
	const passphrase = "correct horse battery stapler"
	header := func(kind byte, passes, memory uint32, threads byte) []byte {
		h := binary.BigEndian.AppendUint32([]byte{kind}, passes)
		h = append(binary.BigEndian.AppendUint32(h, memory), threads)
		return append(h, randomBytes(16)...)
	}
	for name, v := range map[string]struct {
		comment, passphrase, result string
		header                      []byte
	}{
		"passphrase":         {"a passphrase root", passphrase, "valid", header(1, 2, 19<<10, 1)},
		"passphrase-wrong":   {"another passphrase", passphrase + "!", "root", header(1, 2, 19<<10, 1)},
		"passphrase-passes":  {"too few passes", passphrase, "root", header(1, 1, 19<<10, 1)},
		"passphrase-memory":  {"too little memory", passphrase, "root", header(1, 2, 19<<10-1, 1)},
		"passphrase-threads": {"too many threads", passphrase, "root", header(1, 2, 19<<10, 17)},
		"passphrase-kind":    {"a header of another kind", passphrase, "root", header(3, 2, 19<<10, 1)},
	} {
		r := newStrangerRing(nil)
		r.root = func(keyset, ad string) string {
			key, context := strangerPassphrase([]byte(passphrase), v.header, ad)
			return string(v.header) + string(strangerSeal(key, []byte(keyset), context))
		}
		vec := ringVector{Comment: v.comment, Ring: r.document(), Passphrase: v.passphrase, Result: v.result}
		if v.result == "valid" {
			vec.KEKs, vec.Unusable = r.keks(), r.unusable()
		}
		saveVector(t, "ring/"+name, vec)
	}
}

func generateKMSRings(t *testing.T) {
	s := newVectorService(t)
	rings, other, disabled := s.key(t, "alias/rings"), s.key(t, "alias/other"), s.key(t, "alias/disabled")
	own := kms.Context{"service": "photos"}
	context := kms.Context{"blobseal:purpose": "keyring root", "service": "photos"}
	sealedBy := func(key string, context kms.Context) *strangerRingParts {
		r := newStrangerRing(nil)
		r.root = func(keyset, ad string) string {
			dk, err := s.GenerateDataKey(t.Context(), key, context)
			require.NoError(t, err)
			header := "\x02" + strangerStr16(dk.KeyID) + strangerStr16(string(dk.Ciphertext))
			return header + string(strangerSeal(dk.Plaintext(), []byte(keyset), strangerV1+"KMS root\x00"+header+ad))
		}
		r.sealed = r.root(r.keyset(), strangerRingData(1, r.metadata()))
		return r
	}
	good, foreign, refused, purpose := sealedBy(rings, context), sealedBy(other, context), sealedBy(disabled, context), sealedBy(rings, own)
	require.NoError(t, s.DisableKey(t.Context(), disabled))
	for name, v := range map[string]struct {
		comment, key, result string
		ring                 *strangerRingParts
		context              kms.Context
	}{
		"kms":          {"the root is a key of a key service", rings, "valid", good, own},
		"kms-alias":    {"the root is named by an alias", "alias/rings", "valid", good, own},
		"kms-foreign":  {"the header names another key, and its ciphertext", rings, "root", foreign, own},
		"kms-context":  {"the root was set up with other pairs", rings, "root", good, kms.Context{"service": "videos"}},
		"kms-purpose":  {"the data key was made for another purpose", rings, "root", purpose, own},
		"kms-disabled": {"the root's key is disabled", disabled, "unavailable", refused, own},
	} {
		vec := ringVector{Comment: v.comment, Ring: v.ring.document(), ServiceKey: v.key, RootContext: v.context, Service: s.document(t), Result: v.result}
		if v.result == "valid" {
			vec.KEKs, vec.Unusable = v.ring.keks(), v.ring.unusable()
		}
		saveVector(t, "ring/"+name, vec)
	}
}

// TestGenerateTextVectors: see [TestGenerateVectors].
func TestGenerateTextVectors(t *testing.T) {
	if !*generate {
		t.Skip("vectors are frozen; see -generate-vectors")
	}
	e, err := newCustomer(t, randomBytes(32)).Encrypt(t.Context(), sse.Object{Context: kms.Context{"ab": "c"}})
	require.NoError(t, err)
	data := marshal(t, e.Envelope())
	require.Equal(t, 1, len(data)%3, "the last character has unused bits")
	text := base64.RawURLEncoding.EncodeToString(data)
	saveVector(t, "text/valid", textVector{"the text form", text, "valid", data})
	last := strings.IndexByte(urlAlphabet, text[len(text)-1])
	for name, v := range map[string]struct{ comment, text string }{
		"padded":         {"padding characters", text + "=="},
		"line-break":     {"a line break at the end", text + "\n"},
		"line-break-in":  {"a line break inside", text[:76] + "\r\n" + text[76:]},
		"space":          {"a space at the end", text + " "},
		"unused-bits":    {"unused bits that are not zero", text[:len(text)-1] + string(urlAlphabet[last+1])},
		"standard":       {"the standard alphabet", "+" + text[1:]},
		"cut":            {"a character is missing", text[:len(text)-1]},
		"longer":         {"a byte behind the envelope", base64.RawURLEncoding.EncodeToString(append(bytes.Clone(data), 0))},
		"empty":          {"no text", ""},
		"hexadecimal":    {"hexadecimal", fmt.Sprintf("%x", data)},
		"two-characters": {"two characters", text[:2]},
	} {
		saveVector(t, "text/"+name, textVector{v.comment, v.text, "format", nil})
	}
}

const urlAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

func checksum(doc []byte) []byte {
	sum := sha256.Sum256(doc)
	return append(doc, sum[:]...)
}
