package azurekms

import (
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"
	"golang.org/x/crypto/cryptobyte"
)

// ciphertext is what GenerateDataKey returns in one piece:
//
//	format     uint8 = 1
//	algorithm  uint8, 1 RSA-OAEP-256, 2 A256KW
//	version    opaque<1..64>, of Azure's key
//	wrapped    opaque<1..1024>, the wrapping key under Azure's key
//	sealed     opaque[104], the data key under the wrapping key
type ciphertext struct {
	algorithm azkeys.EncryptionAlgorithm
	version   string
	wrapped   []byte
	sealed    []byte
}

const (
	format     = 1
	maxWrapped = 1024
	sealedSize = 56 + 32 + 16 // head, data key and tag
)

// algorithms are by their numbers in ciphertexts. A number is not authentic, but each
// algorithm refuses what another one wrapped.
var algorithms = map[uint8]azkeys.EncryptionAlgorithm{
	1: azkeys.EncryptionAlgorithmRSAOAEP256,
	2: azkeys.EncryptionAlgorithmA256KW,
}

func numberOf(algorithm azkeys.EncryptionAlgorithm) (uint8, bool) {
	for number, a := range algorithms {
		if a == algorithm {
			return number, true
		}
	}
	return 0, false
}

func (c ciphertext) marshal() ([]byte, error) {
	number, _ := numberOf(c.algorithm)
	var b cryptobyte.Builder
	b.AddUint8(format)
	b.AddUint8(number)
	b.AddUint8LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes([]byte(c.version)) })
	b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(c.wrapped) })
	b.AddBytes(c.sealed)
	return b.Bytes()
}

// parseCiphertext is the inverse of marshal. It returns false for anything else.
func parseCiphertext(data []byte) (c ciphertext, ok bool) {
	s := cryptobyte.String(data)
	var (
		form, number     uint8
		version, wrapped cryptobyte.String
	)
	ok = s.ReadUint8(&form) && form == format &&
		s.ReadUint8(&number) &&
		s.ReadUint8LengthPrefixed(&version) &&
		s.ReadUint16LengthPrefixed(&wrapped) && len(wrapped) > 0 && len(wrapped) <= maxWrapped &&
		len(s) == sealedSize
	if !ok {
		return c, false
	}
	id, ok := parseKeyID("x/" + string(version))
	c = ciphertext{algorithms[number], id.version, wrapped, s}
	return c, ok && c.algorithm != ""
}
