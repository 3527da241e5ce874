package main

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha512"
	"io"
	"strings"
)

const (
	rawName  = "raw AES-256-GCM"
	rawChunk = 16 << 10
	rawTag   = 16
)

// newRaw returns the limit of one core: the standard library's AEAD over chunks of 16 KiB
// into one buffer, with a key that is set up beforehand. It reuses a nonce, so it is not
// secure.
func newRaw() *contestant {
	aead := newGCM(make([]byte, 32))
	nonce := make([]byte, aead.NonceSize())
	buf := make([]byte, 0, rawChunk+rawTag)
	return &contestant{
		name: rawName,
		encrypt: []way{{"Seal", func(dst io.Writer, src []byte) error {
			for first := true; first || len(src) > 0; first = false {
				n := min(len(src), rawChunk)
				if _, err := dst.Write(aead.Seal(buf, nonce, src[:n], nil)); err != nil {
					return err
				}
				src = src[n:]
			}
			return nil
		}}},
		decrypt: []way{{"Open", func(dst io.Writer, src []byte) error {
			for len(src) > 0 {
				n := min(len(src), rawChunk+rawTag)
				out, err := aead.Open(buf, nonce, src[:n], nil)
				if err != nil {
					return err
				}
				if _, err := dst.Write(out); err != nil {
					return err
				}
				src = src[n:]
			}
			return nil
		}}},
		open: func(sealed []byte) (io.ReaderAt, error) {
			return &rawReaderAt{aead, nonce, sealed, buf}, nil
		},
	}
}

// rawReaderAt opens the chunks that a read needs, and nothing else.
type rawReaderAt struct {
	aead               cipher.AEAD
	nonce, sealed, buf []byte
}

func (r *rawReaderAt) ReadAt(p []byte, off int64) (n int, err error) {
	for n < len(p) {
		at := (off + int64(n)) / rawChunk * (rawChunk + rawTag)
		end := min(at+rawChunk+rawTag, int64(len(r.sealed)))
		out, err := r.aead.Open(r.buf, r.nonce, r.sealed[at:end], nil)
		if err != nil {
			return n, err
		}
		n += copy(p[n:], out[(off+int64(n))%rawChunk:])
	}
	return n, nil
}

func newGCM(key []byte) cipher.AEAD {
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic(err)
	}
	return aead
}

// floor returns only the cryptography that the format needs to encrypt a small object in
// SSE-S3: the data key, two salts, two derivations, two key set-ups, and a seal of the
// data key and of the object.
func floor() func(p []byte) error {
	const (
		okm  = 32 + 12 + 32 // key, base nonce, commitment
		name = len("c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\x00") + 24
		// What the two keys are bound to beside the salt, for managedObject.
		body = len("github.com/blobseal/blobseal/v1 body")
		seal = len("github.com/blobseal/blobseal/v1 sealed data key") + 1 + 1 +
			2 + 25 + 2 + 2 + len(objectBucket) + 2 + len(objectKey) + 2 + 56
	)
	bodyInfo, sealInfo := strings.Repeat("b", name+body), strings.Repeat("s", name+seal)
	kek, dek, salt := make([]byte, 32), make([]byte, 32), make([]byte, 24)
	out := make([]byte, 0, 64<<10)
	return func(p []byte) error {
		rand.Read(dek)
		for _, part := range []struct {
			key       []byte
			info      string
			plaintext []byte
		}{{dek, bodyInfo, p}, {kek, sealInfo, dek}} {
			rand.Read(salt)
			derived, err := hkdf.Expand(sha512.New, part.key, part.info, okm)
			if err != nil {
				return err
			}
			newGCM(derived[:32]).Seal(out, derived[32:44], part.plaintext, nil)
		}
		return nil
	}
}
