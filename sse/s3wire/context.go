package s3wire

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/blobseal/blobseal/kms"
)

// contextARN is the name of the pair that the service adds to every context.
const contextARN = "aws:s3:arn"

// maxContext bounds the header of a context, in bytes. Servers allow that much for
// all headers, and an envelope stores no more than 8,192 bytes of pairs.
const maxContext = 8192

// parseContext parses the header of a context: a JSON object of strings in base64.
// If it cannot, complaint says why. A repeated name is refused, since parsers differ
// in which value they choose.
func parseContext(encoded string) (ec kms.Context, complaint string) {
	const malformed = "The encryption context is not a JSON object of strings in base64."
	if len(encoded) > maxContext {
		return nil, "The encryption context is too long."
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if err != nil || !utf8.Valid(raw) {
		return nil, malformed
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	if token, err := d.Token(); err != nil || token != json.Delim('{') {
		return nil, malformed
	}
	ec = make(kms.Context)
	for d.More() {
		name, ok := stringToken(d)
		value, ok2 := stringToken(d)
		if !ok || !ok2 {
			return nil, malformed
		}
		if _, twice := ec[name]; twice {
			return nil, "The encryption context has a name twice."
		}
		if reserved(name) {
			return nil, "The encryption context has a name that is reserved."
		}
		ec[name] = value
	}
	if _, err := d.Token(); err != nil {
		return nil, malformed
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, malformed
	}
	return ec, ""
}

// stringToken returns the decoder's next token if it is a string.
func stringToken(d *json.Decoder) (string, bool) {
	token, err := d.Token()
	if err != nil {
		return "", false
	}
	s, ok := token.(string)
	return s, ok
}

// reserved reports whether only the service may state the pair of that name. Case does
// not matter, since it does not in the constraints of grants.
func reserved(name string) bool {
	name = strings.ToLower(name)
	return name == contextARN || strings.HasPrefix(name, "blobseal:")
}

// encodeContext is the inverse of parseContext.
func encodeContext(ec kms.Context) string {
	raw, err := json.Marshal(ec) // sorted by name
	if err != nil {
		panic(err) // a map of strings has an encoding
	}
	return base64.StdEncoding.EncodeToString(raw)
}

// objectARN returns the value of "aws:s3:arn" for an object.
func objectARN(bucket, key string, bucketKey bool) string {
	if bucketKey {
		return "arn:aws:s3:::" + bucket
	}
	return "arn:aws:s3:::" + bucket + "/" + key
}
