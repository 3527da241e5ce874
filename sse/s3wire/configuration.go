package s3wire

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
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
	if c.Algorithm == "" {
		return AES256
	}
	return c.Algorithm
}

const configurationNamespace = "http://s3.amazonaws.com/doc/2006-03-01/"

type configurationXML struct {
	XMLName xml.Name
	Rules   []ruleXML `xml:"Rule"`
	Unknown []anyXML  `xml:",any"`
}

type ruleXML struct {
	Default   []defaultXML `xml:"ApplyServerSideEncryptionByDefault"`
	Blocked   []blockedXML `xml:"BlockedEncryptionTypes"`
	BucketKey []string     `xml:"BucketKeyEnabled"`
	Unknown   []anyXML     `xml:",any"`
}

type defaultXML struct {
	Algorithm []Algorithm `xml:"SSEAlgorithm"`
	KeyID     []string    `xml:"KMSMasterKeyID"`
	Unknown   []anyXML    `xml:",any"`
}

type blockedXML struct {
	Types   []string `xml:"EncryptionType"`
	Unknown []anyXML `xml:",any"`
}

type anyXML struct{ XMLName xml.Name }

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
		return nil, &Error{Code: codeMalformedXML, Err: errors.New("s3wire: configuration exceeds 16 KiB")}
	}
	var parsed configurationXML
	if err := decodeStrictly(data, &parsed); err != nil {
		return nil, &Error{Code: codeMalformedXML, Err: err}
	}
	if parsed.XMLName.Local != "ServerSideEncryptionConfiguration" ||
		parsed.XMLName.Space != "" && parsed.XMLName.Space != configurationNamespace ||
		len(parsed.Unknown) > 0 || len(parsed.Rules) != 1 {
		return nil, malformed("not one ServerSideEncryptionConfiguration with one Rule")
	}
	return parsed.Rules[0].configuration()
}

// decodeStrictly decodes data, which is one element and nothing else but comments
// and declarations.
func decodeStrictly(data []byte, v any) error {
	d := xml.NewDecoder(bytes.NewReader(data))
	if err := d.Decode(v); err != nil {
		return err
	}
	for {
		token, err := d.Token()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		switch token := token.(type) {
		case xml.Comment:
		case xml.CharData:
			if len(bytes.TrimSpace(token)) > 0 {
				return errors.New("s3wire: text follows the configuration")
			}
		default:
			return errors.New("s3wire: more follows the configuration")
		}
	}
}

func malformed(reason string) error {
	return &Error{Code: codeMalformedXML, Err: errors.New("s3wire: configuration: " + reason)}
}

// configuration returns what a rule says, or why it cannot be followed. A rule has
// each of its three elements at most once.
func (r *ruleXML) configuration() (*Configuration, error) {
	c := &Configuration{Algorithm: AES256}
	switch {
	case len(r.Unknown) > 0:
		return nil, malformed("unknown element in Rule: " + r.Unknown[0].XMLName.Local)
	case len(r.Default)+len(r.Blocked)+len(r.BucketKey) == 0:
		return nil, malformed("the Rule is empty")
	case len(r.Default) > 1 || len(r.Blocked) > 1 || len(r.BucketKey) > 1:
		return nil, malformed("an element of the Rule is there twice")
	}
	for _, d := range r.Default {
		if err := d.apply(c); err != nil {
			return nil, err
		}
	}
	for _, b := range r.Blocked {
		if len(b.Unknown) > 0 || len(b.Types) != 1 || b.Types[0] != "NONE" && b.Types[0] != "SSE-C" {
			return nil, malformed("BlockedEncryptionTypes is not one EncryptionType, NONE or SSE-C")
		}
		c.AllowCustomerKeys = b.Types[0] == "NONE"
	}
	for _, value := range r.BucketKey {
		if value != "true" && value != "false" {
			return nil, malformed("BucketKeyEnabled is neither true nor false")
		}
		c.BucketKeyEnabled = value == "true"
	}
	return c, nil
}

// apply sets what the element ApplyServerSideEncryptionByDefault says.
func (d *defaultXML) apply(c *Configuration) error {
	if len(d.Unknown) > 0 || len(d.Algorithm) != 1 || len(d.KeyID) > 1 {
		return malformed("ApplyServerSideEncryptionByDefault does not have one SSEAlgorithm and at most one KMSMasterKeyID")
	}
	c.Algorithm = d.Algorithm[0]
	if !c.Algorithm.known() {
		return malformed("unknown SSEAlgorithm")
	}
	for _, keyID := range d.KeyID {
		if !c.Algorithm.kms() {
			return &Error{Code: codeInvalidArgument, Message: "A KMSMasterKeyID needs the SSEAlgorithm aws:kms."}
		}
		if keyID == "" || len(keyID) > maxKeyID {
			return malformed("KMSMasterKeyID is empty or too long")
		}
		c.KeyID = keyID
	}
	if c.Algorithm == awsKMSDSSE {
		return notImplementedDSSE()
	}
	return nil
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
	var b bytes.Buffer
	b.WriteString(xml.Header)
	err := xml.NewEncoder(&b).Encode(struct {
		XMLName   xml.Name  `xml:"http://s3.amazonaws.com/doc/2006-03-01/ ServerSideEncryptionConfiguration"`
		Default   byDefault `xml:"Rule>ApplyServerSideEncryptionByDefault"`
		Blocked   string    `xml:"Rule>BlockedEncryptionTypes>EncryptionType"`
		BucketKey bool      `xml:"Rule>BucketKeyEnabled"`
	}{Default: byDefault{c.algorithm(), c.KeyID}, Blocked: blocked, BucketKey: c.BucketKeyEnabled})
	if err != nil {
		return nil, FromError(err)
	}
	return b.Bytes(), nil
}
