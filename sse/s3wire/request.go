package s3wire

import (
	"encoding/base64"
	"strings"

	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/sse"
)

// Algorithm is a value of [HeaderEncryption] and of SSEAlgorithm in a bucket's
// configuration. Customer keys have none.
type Algorithm string

// The algorithms of a [Keys].
const (
	AES256 Algorithm = "AES256"  // SSE-S3
	AWSKMS Algorithm = "aws:kms" // SSE-KMS
)

// awsKMSDSSE, two layers of SSE-KMS, is parsed and not implemented.
const awsKMSDSSE Algorithm = "aws:kms:dsse"

func (a Algorithm) known() bool { return a == AES256 || a.kms() }
func (a Algorithm) kms() bool   { return a == AWSKMS || a == awsKMSDSSE }

// Write is what a request that stores an object says about its encryption. If it
// says nothing, the zero Write, the bucket's configuration decides.
type Write struct {
	Algorithm Algorithm   // empty if the request names none
	KeyID     string      // id, ARN or alias of a KMS key; empty for the default key
	Context   kms.Context // the pairs that the request adds; nil without the header
	BucketKey *bool       // nil without the header

	// Customer has the customer's key, which it does not print. The other fields
	// are then empty.
	Customer *sse.Customer
}

// Read is what a request that reads an object, or stores a part of one, says about
// its encryption. The zero Read brings no customer key.
type Read struct {
	// Customer has the customer's key, which it does not print, or is nil.
	Customer *sse.Customer

	// SelfCopy says that this is the source of a copy onto itself, for which S3
	// has an error code of its own. Set it after ParseCopySource.
	SelfCopy bool

	part bool // made by ParsePart
}

// ParseWrite parses the headers of PutObject, POST Object (from its form fields),
// CreateMultipartUpload, and of the destination of CopyObject. tls says whether the
// connection is encrypted: without TLS, a customer key is refused. Every error is an
// [*Error], and shows no value of the request.
func ParseWrite(get Values, tls bool) (*Write, error) {
	p := &parser{get: get}
	w := &Write{Customer: p.customer(HeaderCustomerAlgorithm, HeaderCustomerKey, HeaderCustomerKeyMD5, tls)}
	if w.Customer != nil {
		p.refuse(messageIncompatible, HeaderEncryption, HeaderKeyID, HeaderContext, HeaderBucketKey)
	} else {
		p.method(w)
	}
	if p.err != nil {
		return nil, p.err
	}
	return w, nil
}

// method parses the headers of SSE-S3 and SSE-KMS.
func (p *parser) method(w *Write) {
	algorithm, present := p.single(HeaderEncryption)
	w.Algorithm = Algorithm(algorithm)
	if present && !w.Algorithm.known() {
		p.fail(codeInvalidArgument, messageUnknownMethod)
	}
	var named bool
	if w.KeyID, named = p.single(HeaderKeyID); named {
		p.needKMS(w.Algorithm, "a key id")
		if w.KeyID == "" || len(w.KeyID) > maxKeyID {
			p.fail(codeInvalidArgument, "The KMS key id is empty or too long.")
		}
	}
	if encoded, ok := p.single(HeaderContext); ok {
		p.needKMS(w.Algorithm, "an encryption context")
		var complaint string
		if w.Context, complaint = parseContext(encoded); complaint != "" {
			p.fail(codeInvalidArgument, complaint)
		}
	}
	if value, ok := p.single(HeaderBucketKey); ok {
		enabled := strings.EqualFold(value, "true")
		if !enabled && !strings.EqualFold(value, "false") {
			p.fail(codeInvalidArgument, "The header "+HeaderBucketKey+" is neither true nor false.")
		}
		if enabled && w.Algorithm == AES256 {
			p.fail(codeInvalidArgument, messageBucketKey)
		}
		w.BucketKey = &enabled
	}
}

// maxKeyID bounds the name of a key, in bytes. The ARN of an alias has at most 300.
const maxKeyID = 2048

// ParseRead parses the headers of GetObject, HeadObject, GetObjectAttributes and
// CompleteMultipartUpload, as ParseWrite does. The headers of SSE-S3 and SSE-KMS do
// not belong there, and are refused.
func ParseRead(get Values, tls bool) (*Read, error) {
	p := &parser{get: get}
	for _, name := range []string{HeaderEncryption, HeaderKeyID, HeaderContext, HeaderBucketKey} {
		p.refuse(name+" header is not supported for this operation.", name)
	}
	return p.read(HeaderCustomerAlgorithm, HeaderCustomerKey, HeaderCustomerKeyMD5, tls)
}

// ParsePart parses the headers of UploadPart, and of the destination of
// UploadPartCopy, as ParseRead does. [Keys.ForRead] of the result opens the upload,
// with [sse.OpenMultipart], and checks that the part has the upload's key.
func ParsePart(get Values, tls bool) (*Read, error) {
	q, err := ParseRead(get, tls)
	if err != nil {
		return nil, err
	}
	q.part = true
	return q, nil
}

// ParseCopySource parses the headers about the source of CopyObject and
// UploadPartCopy, as ParseRead does.
func ParseCopySource(get Values, tls bool) (*Read, error) {
	p := &parser{get: get}
	return p.read(HeaderSourceAlgorithm, HeaderSourceKey, HeaderSourceKeyMD5, tls)
}

// read parses the three headers of a customer key.
func (p *parser) read(algorithm, key, keyMD5 string, tls bool) (*Read, error) {
	customer := p.customer(algorithm, key, keyMD5, tls)
	if p.err != nil {
		return nil, p.err
	}
	return &Read{Customer: customer}, nil
}

// CheckSelfCopy returns InvalidRequest for a copy of an object onto itself that
// changes nothing. w is of the destination. changed says whether the request changes
// something else, such as the metadata. A request that names an encryption changes the
// object even if the object has that encryption, since it gets a new envelope.
func CheckSelfCopy(w *Write, changed bool) error {
	if changed || w != nil && (w.Algorithm != "" || w.Customer != nil) {
		return nil
	}
	return &Error{Code: codeInvalidRequest, Message: "This copy request is illegal because it is trying to copy an object to itself " +
		"without changing the object's metadata, storage class, website redirect location or encryption attributes."}
}

// needKMS fails unless the algorithm is one of a key service.
func (p *parser) needKMS(algorithm Algorithm, what string) {
	if !algorithm.kms() {
		p.fail(codeInvalidArgument, "The request has "+what+", which needs the encryption method aws:kms.")
	}
}

// customer parses the three headers of a customer key. It returns nil if there are
// none, or if p has an error.
func (p *parser) customer(algorithmName, keyName, md5Name string, tls bool) *sse.Customer {
	algorithm, hasAlgorithm := p.single(algorithmName)
	key, hasKey := p.single(keyName)
	sum, hasSum := p.single(md5Name)
	if !hasAlgorithm && !hasKey && !hasSum {
		return nil
	}
	const requests = "Requests specifying Server Side Encryption with Customer provided keys must "
	switch {
	case !tls:
		p.fail(codeInvalidRequest, requests+"be made over a secure connection.")
	case algorithm != string(AES256):
		p.fail(codeInvalidArgument, requests+"provide a valid encryption algorithm.")
	case key == "":
		p.fail(codeInvalidArgument, requests+"provide an appropriate secret key.")
	case sum == "":
		p.fail(codeInvalidArgument, requests+"provide the client calculated MD5 of the secret key.")
	}
	if p.err != nil {
		return nil
	}
	customer, err := sse.ParseCustomerKey(algorithm, key, sum)
	if err != nil {
		p.fail(codeInvalidArgument, customerMessage(key, sum))
		return nil
	}
	return customer
}

// customerMessage says why a customer's key was refused.
func customerMessage(key, sum string) string {
	raw, err := base64.StdEncoding.DecodeString(key)
	defer clear(raw)
	customer, invalid := sse.NewCustomer(raw)
	if err == nil && invalid == nil && customer.KeyMD5() != sum {
		return "The calculated MD5 hash of the key did not match the hash that was provided."
	}
	return "The secret key was invalid for the specified algorithm."
}
