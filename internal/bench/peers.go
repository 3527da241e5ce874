package main

import (
	"bytes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"io"
	"path"

	"filippo.io/age"
	dare "github.com/minio/sio"
	siogo "github.com/secure-io/sio-go"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/streamingaead"
	"github.com/tink-crypto/tink-go/v2/streamingaead/aesgcmhkdf"
	"golang.org/x/crypto/chacha20poly1305"
)

// peers returns the other libraries, each in every way that suits it.
func peers() ([]*contestant, error) {
	sioGo, err := newSioGo()
	if err != nil {
		return nil, err
	}
	tink64, err := newTink("Tink, 64 KiB segments", 64<<10)
	if err != nil {
		return nil, err
	}
	tink1, err := newTink("Tink, 1 MiB segments", 1<<20)
	if err != nil {
		return nil, err
	}
	ageFile, err := newAge()
	if err != nil {
		return nil, err
	}
	all := append(newDares(), sioGo, tink64, tink1, ageFile)
	for _, c := range all {
		c.peer = true
	}
	return all, nil
}

// dareConfig is DARE 2.0 with AES-256-GCM. Pinning both versions picks the
// direct decoder.
func dareConfig(key []byte) dare.Config {
	return dare.Config{
		MinVersion: dare.Version20, MaxVersion: dare.Version20,
		CipherSuites: []byte{dare.AES_256_GCM},
		Key:          key,
	}
}

// dares returns minio/sio, with chunks of 64 KiB, with the keys of three kinds of callers.
// Its DARE.md asks for a key for each stream (2.2, appendix A): with one key for all
// streams, an attacker who can write to the store can exchange packages between objects.
func newDares() []*contestant {
	key := randomBytes(32)
	same := func() ([]byte, error) { return key, nil }
	reused := newDare("minio/sio, one key (unsafe)", same, same)
	reused.misused = true
	return []*contestant{reused, newDerived(key), newMinIO(key)}
}

// newDare returns minio/sio with the keys that the two functions return for an object. It
// has nothing to prepare. DecryptBuffer is not for streams but is the fastest form for an
// object in memory, so it takes part with a buffer that it keeps.
func newDare(name string, encryptKey, decryptKey func() ([]byte, error)) *contestant {
	var buf []byte
	return &contestant{
		name: name,
		encrypt: []way{
			push("EncryptWriter", func(dst io.Writer) (io.WriteCloser, error) {
				key, err := encryptKey()
				if err != nil {
					return nil, err
				}
				return dare.EncryptWriter(dst, dareConfig(key))
			}),
			pull("EncryptReader", func(src io.Reader) (io.Reader, error) {
				key, err := encryptKey()
				if err != nil {
					return nil, err
				}
				return dare.EncryptReader(src, dareConfig(key))
			}),
		},
		decrypt: []way{
			push("DecryptWriter", func(dst io.Writer) (io.WriteCloser, error) {
				key, err := decryptKey()
				if err != nil {
					return nil, err
				}
				return dare.DecryptWriter(dst, dareConfig(key))
			}),
			pull("DecryptReader", func(src io.Reader) (io.Reader, error) {
				key, err := decryptKey()
				if err != nil {
					return nil, err
				}
				return dare.DecryptReader(src, dareConfig(key))
			}),
			{"DecryptBuffer", func(dst io.Writer, src []byte) error {
				key, err := decryptKey()
				if err != nil {
					return err
				}
				if cap(buf) < len(src) {
					buf = make([]byte, 0, len(src))
				}
				out, err := dare.DecryptBuffer(buf[:0], src, dareConfig(key))
				if err != nil {
					return err
				}
				_, err = dst.Write(out)
				return err
			}},
		},
		open: func(sealed []byte) (io.ReaderAt, error) {
			key, err := decryptKey()
			if err != nil {
				return nil, err
			}
			return dare.DecryptReaderAt(bytes.NewReader(sealed), dareConfig(key))
		},
	}
}

// newDerived derives each object's key from a master key and a random value by
// HKDF-SHA-256, as the examples of minio/sio do. That is the minimum that separates
// objects: their keys cannot be rewrapped and are bound to no name.
func newDerived(master []byte) *contestant {
	nonce := make([]byte, 32) // a service stores it apart from the object
	derive := func() ([]byte, error) { return hkdf.Key(sha256.New, master, nonce, "", 32) }
	return newDare("minio/sio, HKDF per object", func() ([]byte, error) {
		rand.Read(nonce)
		return derive()
	}, derive)
}

// newMinIO makes and seals a key for each object as MinIO does for SSE-C and SSE-S3. An
// HMAC of the caller's key and a nonce is the object's key. DARE seals it under a second
// HMAC, of the object's name.
func newMinIO(key []byte) *contestant {
	var iv, sealedKey []byte // what MinIO keeps in the object's metadata
	sealing := func() dare.Config {
		mac := hmac.New(sha256.New, key)
		mac.Write(iv)
		mac.Write([]byte("SSE-C"))
		mac.Write([]byte("DAREv2-HMAC-SHA256"))
		mac.Write([]byte(path.Join(objectBucket, objectKey)))
		return dareConfig(mac.Sum(nil))
	}
	return newDare("minio/sio, as in MinIO", func() ([]byte, error) {
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte("object-encryption-key generation"))
		mac.Write(randomBytes(32))
		objectKey := mac.Sum(nil)
		iv = randomBytes(32)
		var sealed bytes.Buffer
		w, err := dare.EncryptWriter(&sealed, sealing()) // MinIO's dare.Encrypt allocates 64 KiB
		if err != nil {
			return nil, err
		}
		if _, err := w.Write(objectKey); err != nil {
			return nil, err
		}
		err = w.Close()
		sealedKey = sealed.Bytes()
		return objectKey, err
	}, func() ([]byte, error) { return dare.DecryptBuffer(nil, sealedKey, sealing()) })
}

// newSioGo returns secure-io/sio-go with AES-256-GCM and its recommended chunks of 16 KiB.
// It makes one Stream for a key, and writes a random nonce of 64 bits in front of each
// object. Its documentation asks for no more.
func newSioGo() (*contestant, error) {
	stream, err := siogo.AES_256_GCM.Stream(randomBytes(32))
	if err != nil {
		return nil, err
	}
	size := stream.NonceSize()
	return &contestant{
		name: "sio-go, one key",
		encrypt: []way{
			push("EncryptWriter", func(dst io.Writer) (io.WriteCloser, error) {
				nonce := randomBytes(size)
				if _, err := dst.Write(nonce); err != nil {
					return nil, err
				}
				return stream.EncryptWriter(dst, nonce, nil), nil
			}),
			{"EncryptReader.WriteTo", func(dst io.Writer, src []byte) error {
				nonce := randomBytes(size)
				if _, err := dst.Write(nonce); err != nil {
					return err
				}
				_, err := stream.EncryptReader(bytes.NewReader(src), nonce, nil).WriteTo(dst)
				return err
			}},
		},
		decrypt: []way{
			{"DecryptWriter", func(dst io.Writer, src []byte) error {
				w := stream.DecryptWriter(dst, src[:size], nil)
				if _, err := w.Write(src[size:]); err != nil {
					return err
				}
				return w.Close()
			}},
			{"DecryptReader.WriteTo", func(dst io.Writer, src []byte) error {
				_, err := stream.DecryptReader(bytes.NewReader(src[size:]), src[:size], nil).WriteTo(dst)
				return err
			}},
		},
		open: func(sealed []byte) (io.ReaderAt, error) {
			return stream.DecryptReaderAt(bytes.NewReader(sealed[size:]), sealed[:size], nil), nil
		},
	}, nil
}

// newTink returns Tink's streaming AEAD, AES256-GCM-HKDF, from a keyset handle. Tink has
// templates for segments of 4 KiB and 1 MiB; these parameters differ from the latter only
// in the segment size. Its only form is a Writer that encrypts and a Reader that decrypts,
// without random access.
func newTink(name string, segment int32) (*contestant, error) {
	params, err := aesgcmhkdf.NewParameters(aesgcmhkdf.ParametersOpts{
		KeySizeInBytes: 32, DerivedKeySizeInBytes: 32,
		HKDFHashType: aesgcmhkdf.SHA256, SegmentSizeInBytes: segment,
	})
	if err != nil {
		return nil, err
	}
	manager := keyset.NewManager()
	id, err := manager.AddNewKeyFromParameters(params)
	if err != nil {
		return nil, err
	}
	if err := manager.SetPrimary(id); err != nil {
		return nil, err
	}
	handle, err := manager.Handle()
	if err != nil {
		return nil, err
	}
	primitive, err := streamingaead.New(handle)
	if err != nil {
		return nil, err
	}
	return &contestant{
		name: name,
		encrypt: []way{push("Writer", func(dst io.Writer) (io.WriteCloser, error) {
			return primitive.NewEncryptingWriter(dst, nil)
		})},
		decrypt: []way{pull("Reader", func(src io.Reader) (io.Reader, error) {
			return primitive.NewDecryptingReader(src, nil)
		})},
	}, nil
}

// newAge returns age: ChaCha20-Poly1305 over chunks of 64 KiB. Its own recipients cost a
// scalar multiplication or a password hash for each object. Here it has the cheapest
// recipient that its API allows, which seals the file key with one symmetric AEAD.
func newAge() (*contestant, error) {
	aead, err := chacha20poly1305.New(randomBytes(32))
	if err != nil {
		return nil, err
	}
	key := symmetric{aead}
	return &contestant{
		name: "age",
		encrypt: []way{
			push("Encrypt", func(dst io.Writer) (io.WriteCloser, error) { return age.Encrypt(dst, key) }),
			pull("EncryptReader", func(src io.Reader) (io.Reader, error) { return age.EncryptReader(src, key) }),
		},
		decrypt: []way{
			pull("Decrypt", func(src io.Reader) (io.Reader, error) { return age.Decrypt(src, key) }),
		},
		open: func(sealed []byte) (io.ReaderAt, error) {
			r, _, err := age.DecryptReaderAt(bytes.NewReader(sealed), int64(len(sealed)), key)
			return r, err
		},
	}, nil
}

// symmetric is an age recipient and identity.
type symmetric struct{ aead cipher.AEAD }

func (s symmetric) Wrap(fileKey []byte) ([]*age.Stanza, error) {
	nonce := make([]byte, s.aead.NonceSize(), s.aead.NonceSize()+len(fileKey)+s.aead.Overhead())
	rand.Read(nonce)
	return []*age.Stanza{{Type: "symmetric", Body: s.aead.Seal(nonce, nonce, fileKey, nil)}}, nil
}

func (s symmetric) Unwrap(stanzas []*age.Stanza) ([]byte, error) {
	for _, stanza := range stanzas {
		n := s.aead.NonceSize()
		if stanza.Type == "symmetric" && len(stanza.Body) > n {
			if key, err := s.aead.Open(nil, stanza.Body[:n], stanza.Body[n:], nil); err == nil {
				return key, nil
			}
		}
	}
	return nil, age.ErrIncorrectIdentity
}
