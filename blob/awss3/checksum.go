package awss3

import (
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"fmt"
	"hash"
	"hash/crc32"
	"hash/crc64"
	"reflect"
	"strings"

	"github.com/blobseal/blobseal/sse"
)

// checksum is a checksum of the plaintext that the caller stated.
type checksum struct {
	name string // of the input's field
	hash hash.Hash
	want string // in base64
}

func (c *checksum) matches() bool {
	return base64.StdEncoding.EncodeToString(c.hash.Sum(nil)) == c.want
}

// hashes are those that an input can state, by field.
var hashes = map[string]func() hash.Hash{
	"ContentMD5":        md5.New,
	"ChecksumMD5":       md5.New,
	"ChecksumCRC32":     func() hash.Hash { return crc32.NewIEEE() },
	"ChecksumCRC32C":    func() hash.Hash { return crc32.New(crc32.MakeTable(crc32.Castagnoli)) },
	"ChecksumCRC64NVME": func() hash.Hash { return crc64.New(crc64.MakeTable(0x9a6c9329ac4bc9b5)) },
	"ChecksumSHA1":      sha1.New,
	"ChecksumSHA256":    sha256.New,
	"ChecksumSHA512":    sha512.New,
}

// takeChecksums takes the checksums of the plaintext out of an input, a pointer to a
// struct. A checksum that cannot be checked is [sse.ErrInvalid].
func takeChecksums(in any) ([]*checksum, error) {
	var sums []*checksum
	v := reflect.ValueOf(in).Elem()
	for i := range v.NumField() {
		field := v.Type().Field(i)
		if !field.IsExported() {
			continue
		}
		name := field.Name
		value, ok := v.Field(i).Interface().(*string)
		if !ok || value == nil || !strings.HasPrefix(name, "Checksum") && name != "ContentMD5" {
			continue
		}
		newHash := hashes[name]
		if newHash == nil {
			return nil, fmt.Errorf("%w: %s cannot be checked (state another checksum)", sse.ErrInvalid, name)
		}
		sums = append(sums, &checksum{name: name, hash: newHash(), want: *value})
		v.Field(i).SetZero()
	}
	return sums, nil
}
