package s3gateway

import (
	"io"
	"reflect"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/versity/versitygw/s3api/middlewares"
	"github.com/versity/versitygw/s3api/utils"
	"github.com/versity/versitygw/s3response"
)

type checksumAlgorithm = types.ChecksumAlgorithm

// checksumFields names the field of each algorithm in the inputs and outputs of
// the engine and of the AWS SDK, all of which use the same names.
var checksumFields = map[types.ChecksumAlgorithm]string{
	types.ChecksumAlgorithmCrc32:     "ChecksumCRC32",
	types.ChecksumAlgorithmCrc32c:    "ChecksumCRC32C",
	types.ChecksumAlgorithmCrc64nvme: "ChecksumCRC64NVME",
	types.ChecksumAlgorithmSha1:      "ChecksumSHA1",
	types.ChecksumAlgorithmSha256:    "ChecksumSHA256",
	types.ChecksumAlgorithmSha512:    "ChecksumSHA512",
	types.ChecksumAlgorithmMd5:       "ChecksumMD5",
	types.ChecksumAlgorithmXxhash64:  "ChecksumXXHASH64",
	types.ChecksumAlgorithmXxhash3:   "ChecksumXXHASH3",
	types.ChecksumAlgorithmXxhash128: "ChecksumXXHASH128",
}

// checksum is a checksum of plaintext.
type checksum struct {
	Algorithm types.ChecksumAlgorithm `json:"algorithm,omitempty"`
	Value     string                  `json:"value,omitempty"`
}

// checksumField returns the field of in, a pointer to an input or output, for an algorithm.
func checksumField(in any, algorithm checksumAlgorithm) *string {
	value, _ := reflect.ValueOf(in).Elem().FieldByName(checksumFields[algorithm]).Interface().(*string)
	return value
}

// checksumOf returns the checksum in in, a pointer to an input or output.
func checksumOf(in any) checksum {
	for algorithm := range checksumFields {
		if value := checksumField(in, algorithm); value != nil {
			return checksum{algorithm, *value}
		}
	}
	return checksum{}
}

// set makes sum the only checksum of out, a pointer to an input or output.
func (sum checksum) set(out any) {
	v := reflect.ValueOf(out).Elem()
	for algorithm, name := range checksumFields {
		var value *string
		if algorithm == sum.Algorithm && sum.Value != "" {
			value = &sum.Value
		}
		v.FieldByName(name).Set(reflect.ValueOf(value))
	}
}

// hashed reads the plaintext of an upload and computes its checksum. It fails at the end if
// the checksum is not the one that the client states.
type hashed struct {
	io.Reader
	algorithm types.ChecksumAlgorithm
	sum       func() string
}

// newHashed returns a reader of body that computes a checksum. want has the
// checksum or the algorithm that the client states, if it does. A body with a
// trailing checksum computes and verifies its own.
func newHashed(body io.Reader, want checksum) (*hashed, error) {
	if trailing, ok := body.(middlewares.ChecksumReader); ok && trailing.Algorithm() != "" {
		algorithm := types.ChecksumAlgorithm(strings.ToUpper(trailing.Algorithm()))
		return &hashed{body, algorithm, trailing.Checksum}, nil
	}
	if want.Algorithm == "" {
		want.Algorithm = types.ChecksumAlgorithmCrc64nvme
	}
	h, err := utils.NewHashReader(body, want.Value, utils.HashType(strings.ToLower(string(want.Algorithm))))
	if err != nil {
		return nil, err
	}
	return &hashed{h, want.Algorithm, h.Sum}, nil
}

func (h *hashed) checksum() checksum { return checksum{h.algorithm, h.sum()} }

// forEngine returns the checksum as the engine stores it.
func (sum checksum) forEngine(kind types.ChecksumType) s3response.Checksum {
	c := s3response.Checksum{Type: kind, Algorithm: sum.Algorithm}
	var fields struct {
		ChecksumCRC32, ChecksumCRC32C, ChecksumCRC64NVME, ChecksumSHA1, ChecksumSHA256, ChecksumSHA512,
		ChecksumMD5, ChecksumXXHASH64, ChecksumXXHASH3, ChecksumXXHASH128 *string
	}
	sum.set(&fields)
	c.CRC32, c.CRC32C, c.CRC64NVME = fields.ChecksumCRC32, fields.ChecksumCRC32C, fields.ChecksumCRC64NVME
	c.SHA1, c.SHA256, c.SHA512, c.MD5 = fields.ChecksumSHA1, fields.ChecksumSHA256, fields.ChecksumSHA512, fields.ChecksumMD5
	c.XXHASH64, c.XXHASH3, c.XXHASH128 = fields.ChecksumXXHASH64, fields.ChecksumXXHASH3, fields.ChecksumXXHASH128
	return c
}
