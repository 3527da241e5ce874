package sse_test

// This is SPEC.md, executed by somebody else: a decrypter of whole objects in
// the self-contained form, and a reader and a writer of ring documents, written
// from that document alone, by an author who had not read the packages. Up to
// the tests at the end nothing here calls a package of this project, nor Tink.

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha512"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

const strangerV1 = "github.com/blobseal/blobseal/v1 "

// strangerMessage is section 2: what an input key, a salt and a context give.
func strangerMessage(key, salt []byte, context string) (aead cipher.AEAD, nonce, commitment []byte) {
	info := "c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\x00" + string(salt) + context
	okm := must(hkdf.Expand(sha512.New, key, info, 76))
	return must(cipher.NewGCM(must(aes.NewCipher(okm[:32])))), okm[32:44], okm[44:]
}

func strangerNonce(base []byte, i uint64) []byte {
	nonce := bytes.Clone(base)
	binary.BigEndian.PutUint64(nonce[4:], binary.BigEndian.Uint64(base[4:])^i)
	return nonce
}

// strangerOpen returns the chunks that verify, and "valid" or the class of the error.
func strangerOpen(key, message []byte, context string) (plain []byte, result string) {
	if len(message) < 56 {
		return nil, "truncated"
	}
	aead, base, commitment := strangerMessage(key, message[:24], context)
	if !bytes.Equal(commitment, message[24:56]) { // a test may take its time
		return nil, "key"
	}
	rest := message[56:]
	for i := uint64(0); len(rest) >= 16; i++ {
		chunk := rest[:min(len(rest), 16400)]
		p, err := aead.Open(nil, strangerNonce(base, i), chunk, nil)
		if err != nil {
			return plain, "corrupt"
		}
		plain, rest = append(plain, p...), rest[len(chunk):]
		if len(chunk) < 16400 {
			return plain, "valid"
		}
	}
	return plain, "truncated"
}

// strangerSeal returns a message under a new salt.
func strangerSeal(key, plain []byte, context string) []byte {
	salt := strangerRandom(24)
	aead, base, commitment := strangerMessage(key, salt, context)
	message := append(salt, commitment...)
	for i := uint64(0); ; i++ {
		chunk := plain[:min(len(plain), 16384)]
		message = aead.Seal(message, strangerNonce(base, i), chunk, nil)
		if plain = plain[len(chunk):]; len(chunk) < 16384 {
			return message
		}
	}
}

// strangerFields reads fields from the front of data, and refuses all from the
// first that does not fit.
type strangerFields struct {
	data []byte
	bad  bool
}

func (f *strangerFields) take(n int) []byte {
	if n > len(f.data) {
		f.data, f.bad = nil, true
		return make([]byte, n)
	}
	field := f.data[:n]
	f.data = f.data[n:]
	return field
}

func (f *strangerFields) uint(size int) (n uint64) {
	for _, b := range f.take(size) {
		n = n<<8 | uint64(b)
	}
	return n
}

func (f *strangerFields) str16() string { return string(f.take(int(f.uint(2)))) }

func strangerStr16(s string) string { return string([]byte{byte(len(s) >> 8), byte(len(s))}) + s }

// stranger decrypts the objects of one mode: sections 4, 5 and 7.
type stranger struct {
	mode byte
	kek  func(keyID string) []byte // nil: unknown; empty: not to be used
}

func (s stranger) open(object []byte, bucket, key string, stated map[string]string) (plain []byte, result string) {
	f := strangerFields{data: object}
	magic, version := string(f.take(8)), f.take(1)[0]
	if f.bad || magic != "\x89SSE\r\n\x1a\n" {
		return nil, "format"
	}
	if version != 1 {
		return nil, "version"
	}
	mode, size := f.take(1)[0], int(min(f.uint(4), 1<<20))
	if f.bad || mode < 1 || mode > 3 || size > 65536 || size > len(object) || size < 14+56 {
		return nil, "format"
	}
	head, body := object[size-56:size], object[size:]
	f.data = object[14 : size-56]
	keyID, wrapped, sealed, pairs := f.str16(), f.str16(), f.take(104), f.str16()
	context := map[string]string{}
	for p, last := (strangerFields{data: []byte(pairs)}), ""; len(p.data) > 0; {
		name, value := p.str16(), p.str16()
		if p.bad || name <= last || !utf8.ValidString(name+"|"+value) {
			return nil, "format"
		}
		last = name
		if !strings.HasPrefix(name, "blobseal:") {
			context[name] = value
		} else if mode != 2 || name != "blobseal:bucket-key" || value != "true" {
			return nil, "format"
		}
	}
	if f.bad || len(keyID) > 2048 || len(wrapped) > 6144 || len(pairs) > 8192 || !utf8.ValidString(keyID) ||
		(mode == 3) != (keyID == "") || (mode == 2) != (wrapped != "") || len(bytes.Trim(f.data, "\x00")) > 0 {
		return nil, "format"
	}
	if mode != s.mode {
		return nil, "mode"
	}
	kek := s.kek(keyID)
	if kek == nil || stated != nil && !maps.Equal(stated, context) {
		return nil, "key"
	}
	if len(kek) == 0 {
		return nil, "refused"
	}
	dek, result := strangerOpen(kek, sealed, strangerBinding(mode, keyID, wrapped, bucket, key, pairs, head))
	if result != "valid" {
		return nil, "key"
	}
	return strangerOpen(dek, append(bytes.Clone(head), body...), strangerV1+"body")
}

// strangerBinding is the context of a sealed data key.
func strangerBinding(mode byte, keyID, wrapped, bucket, key, pairs string, head []byte) string {
	return strangerV1 + "sealed data key\x01" + string(mode) + strangerStr16(keyID) + strangerStr16(wrapped) +
		strangerStr16(bucket) + strangerStr16(key) + strangerStr16(pairs) + string(head)
}

// strangerObject seals an object in mode 1, with a context of one pair.
func strangerObject(kek []byte, keyID, bucket, key string, plain []byte) []byte {
	dek := strangerRandom(32)
	message := strangerSeal(dek, plain, strangerV1+"body")
	head, pairs := message[:56], strangerStr16("team")+strangerStr16("blue")
	sealed := strangerSeal(kek, dek, strangerBinding(1, keyID, "", bucket, key, pairs, head))
	fields := strangerStr16(keyID) + strangerStr16("") + string(sealed) + strangerStr16(pairs)
	object := append([]byte("\x89SSE\r\n\x1a\n\x01\x01"), 0, 0, 0, byte(14+len(fields)+56))
	return append(append(object, fields...), message...)
}

func strangerRandom(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return b
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// SPEC MSG-1 MSG-2 MSG-3 MSG-5 MSG-6 MSG-7 BODY-1 ENV-1 ENV-2 ENV-3 ENV-7 SEAL-1 SEAL-2 SEAL-3 SEAL-4 KEK-1 KEK-2 ERR-1 ERR-2 RING-1 RING-2 ROOT-1
func TestStrangerReadsTheVectors(t *testing.T) {
	files, err := filepath.Glob("testdata/v1/*.json")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".json"), func(t *testing.T) {
			var v struct {
				Mode, Bucket, Key, Result, KEK, Ring, Object string
				Context                                      map[string]string
				RootKey                                      string `json:"root_key"`
				Size                                         int    `json:"plaintext_size"`
				Sum                                          string `json:"plaintext_sha512"`
			}
			require.NoError(t, json.Unmarshal(must(os.ReadFile(file)), &v))
			kek := func(string) []byte { return must(hex.DecodeString(v.KEK)) }
			if v.Ring != "" {
				root := func(ciphertext []byte, associatedData string) []byte {
					context := strangerV1 + "key root\x00" + associatedData
					keyset, result := strangerOpen(must(hex.DecodeString(v.RootKey)), ciphertext, context)
					require.Equal(t, "valid", result)
					return keyset
				}
				keks, err := strangerRing(must(base64.StdEncoding.DecodeString(v.Ring)), root)
				require.NoError(t, err)
				kek = func(keyID string) []byte { return keks[keyID] }
			}
			mode := map[string]byte{"SSE-S3": 1, "SSE-KMS": 2, "SSE-C": 3}[v.Mode]
			object := must(base64.StdEncoding.DecodeString(v.Object))

			plain, result := stranger{mode, kek}.open(object, v.Bucket, v.Key, v.Context)
			require.Equal(t, v.Result, result)
			require.Len(t, plain, v.Size)
			require.Equal(t, v.Sum, fmt.Sprintf("%x", sha512.Sum512(plain)))
			if result == "valid" {
				size := int(binary.BigEndian.Uint32(object[10:]))
				require.Equal(t, size+v.Size+16*(v.Size/16384+1), len(object))
			}
		})
	}
}
