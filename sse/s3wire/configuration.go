package s3wire

import (
	"bytes"
	"cmp"
	"encoding/xml"
	"errors"
	"io"
	"slices"
	"strings"
)

// maxConfiguration bounds the XML of a configuration, in bytes.
const maxConfiguration = 16 << 10

// Configuration is the encryption configuration of a bucket: what happens to new
// objects whose request does not say. Objects that exist stay as they are, and
// readable.
type Configuration struct {
	Algorithm Algorithm // empty means AES256
	KeyID     string    // with AWSKMS: id, ARN or alias; empty means the default key

	// BucketKeyEnabled gives new objects of SSE-KMS a bucket key, unless their
	// request says otherwise.
	BucketKeyEnabled bool

	// AllowCustomerKeys allows new objects in SSE-C. S3 has blocked them in new
	// buckets since April 2026. In XML, BlockedEncryptionTypes is NONE.
	AllowCustomerKeys bool
}

func (c *Configuration) algorithm() Algorithm {
	return cmp.Or(c.Algorithm, AES256)
}

const configurationNamespace = "http://s3.amazonaws.com/doc/2006-03-01/"

// The elements of a configuration. Each occurs at most once.
const (
	pathRoot      = ">ServerSideEncryptionConfiguration"
	pathRule      = pathRoot + ">Rule"
	pathDefault   = pathRule + ">ApplyServerSideEncryptionByDefault"
	pathAlgorithm = pathDefault + ">SSEAlgorithm"
	pathKeyID     = pathDefault + ">KMSMasterKeyID"
	pathBlocked   = pathRule + ">BlockedEncryptionTypes"
	pathType      = pathBlocked + ">EncryptionType"
	pathBucketKey = pathRule + ">BucketKeyEnabled"
)

var paths = []string{pathRoot, pathRule, pathDefault, pathAlgorithm, pathKeyID, pathBlocked, pathType, pathBucketKey}

// ParseConfiguration parses the body of PutBucketEncryption. It reads at most 16 KiB
// of r. Unknown elements are refused: a service must not acknowledge a rule that it
// does not follow. The caller checks that the named key exists. Every error is an
// [*Error], or wraps one of r.
func ParseConfiguration(r io.Reader) (*Configuration, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxConfiguration+1))
	if err != nil {
		return nil, FromError(err)
	}
	if len(data) > maxConfiguration {
		return nil, malformed("exceeds 16 KiB")
	}
	texts, err := elementTexts(data)
	if err != nil {
		return nil, err
	}
	return configurationOf(texts)
}

// elementTexts returns the texts of a configuration's elements by their paths. It
// refuses unknown and repeated elements, and text behind the last one.
func elementTexts(data []byte) (map[string]string, error) {
	texts := make(map[string]string)
	path := ""
	for d := xml.NewDecoder(bytes.NewReader(data)); ; {
		token, err := d.Token()
		if err == io.EOF {
			return texts, nil
		}
		if err != nil {
			return nil, &Error{Code: codeMalformedXML, Err: err}
		}
		switch token := token.(type) {
		case xml.StartElement:
			path += ">" + token.Name.Local
			if _, twice := texts[path]; twice || !slices.Contains(paths, path) {
				return nil, malformed("unknown or repeated element " + path)
			}
			if space := token.Name.Space; space != "" && space != configurationNamespace {
				return nil, malformed("unknown namespace " + space)
			}
			texts[path] = ""
		case xml.EndElement:
			path = strings.TrimSuffix(path, ">"+token.Name.Local)
		case xml.CharData:
			if path == "" && len(bytes.TrimSpace(token)) > 0 {
				return nil, malformed("text outside of the elements")
			}
			texts[path] += string(token)
		}
	}
}

func malformed(reason string) error {
	return &Error{Code: codeMalformedXML, Err: errors.New("s3wire: configuration: " + reason)}
}

// configurationOf returns what the texts of a configuration's elements say, or why
// the service cannot follow them.
func configurationOf(texts map[string]string) (*Configuration, error) {
	_, hasDefault := texts[pathDefault]
	keyID, hasKeyID := texts[pathKeyID]
	_, hasBlocked := texts[pathBlocked]
	blocked := texts[pathType]
	bucketKey, hasBucketKey := texts[pathBucketKey]
	c := &Configuration{
		Algorithm: Algorithm(texts[pathAlgorithm]), KeyID: keyID,
		BucketKeyEnabled: bucketKey == "true", AllowCustomerKeys: blocked == "NONE",
	}
	switch {
	case !hasDefault && !hasBlocked && !hasBucketKey:
		return nil, malformed("Rule is missing or empty")
	case hasBlocked && blocked != "NONE" && blocked != "SSE-C":
		return nil, malformed("EncryptionType is neither NONE nor SSE-C")
	case hasBucketKey && bucketKey != "true" && bucketKey != "false":
		return nil, malformed("BucketKeyEnabled is neither true nor false")
	case !hasDefault:
		c.Algorithm = AES256
	case !c.Algorithm.known():
		return nil, malformed("SSEAlgorithm is missing or unknown")
	case hasKeyID && !c.Algorithm.kms():
		return nil, &Error{Code: codeInvalidArgument, Message: "A KMSMasterKeyID needs the SSEAlgorithm aws:kms."}
	case hasKeyID && (keyID == "" || len(keyID) > maxKeyID):
		return nil, malformed("KMSMasterKeyID is empty or too long")
	case c.Algorithm == awsKMSDSSE:
		return nil, notImplementedDSSE()
	}
	return c, nil
}

// XML returns the body of the response to GetBucketEncryption, which
// ParseConfiguration parses. A nil configuration is
// ServerSideEncryptionConfigurationNotFoundError.
func (c *Configuration) XML() ([]byte, error) {
	if c == nil {
		return nil, &Error{Code: codeNoConfiguration}
	}
	type byDefault struct {
		Algorithm Algorithm `xml:"SSEAlgorithm"`
		KeyID     string    `xml:"KMSMasterKeyID,omitempty"`
	}
	blocked := "SSE-C"
	if c.AllowCustomerKeys {
		blocked = "NONE"
	}
	return encode(struct {
		XMLName   xml.Name  `xml:"http://s3.amazonaws.com/doc/2006-03-01/ ServerSideEncryptionConfiguration"`
		Default   byDefault `xml:"Rule>ApplyServerSideEncryptionByDefault"`
		Blocked   string    `xml:"Rule>BlockedEncryptionTypes>EncryptionType"`
		BucketKey bool      `xml:"Rule>BucketKeyEnabled"`
	}{Default: byDefault{c.algorithm(), c.KeyID}, Blocked: blocked, BucketKey: c.BucketKeyEnabled}), nil
}

// encode returns an XML document.
func encode(v any) []byte {
	body, err := xml.Marshal(v)
	if err != nil {
		panic(err) // structs of strings and booleans have an encoding
	}
	return append([]byte(xml.Header), body...)
}
