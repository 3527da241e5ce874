package s3wire

// Headers of requests and responses, and fields of POST forms. [http.Header]'s
// methods accept them as they are.
//
// [http.Header]: https://pkg.go.dev/net/http#Header
const (
	HeaderEncryption = "x-amz-server-side-encryption"
	HeaderKeyID      = HeaderEncryption + "-aws-kms-key-id"
	HeaderContext    = HeaderEncryption + "-context"
	HeaderBucketKey  = HeaderEncryption + "-bucket-key-enabled"

	HeaderCustomerAlgorithm = HeaderEncryption + "-customer-algorithm"
	HeaderCustomerKey       = HeaderEncryption + "-customer-key"
	HeaderCustomerKeyMD5    = HeaderEncryption + "-customer-key-MD5"

	HeaderSourceAlgorithm = "x-amz-copy-source-server-side-encryption-customer-algorithm"
	HeaderSourceKey       = "x-amz-copy-source-server-side-encryption-customer-key"
	HeaderSourceKeyMD5    = "x-amz-copy-source-server-side-encryption-customer-key-MD5"
)

// Values returns all values of the header or form field with this name, and none if
// the request lacks it. Names are the constants above, and case does not matter. The
// method Values of an http.Header is a Values.
type Values func(name string) []string

// Conditions returns the values of the condition keys of bucket policies that are
// about encryption, by their names: "s3:" and [HeaderEncryption], [HeaderKeyID] or
// [HeaderCustomerAlgorithm]. A key whose header the request lacks is missing, as
// the condition operator Null needs it. The values are the request's own words and
// unchecked: parse the request, too.
func Conditions(get Values) map[string][]string {
	conditions := make(map[string][]string)
	for _, name := range []string{HeaderEncryption, HeaderKeyID, HeaderCustomerAlgorithm} {
		if values := get(name); len(values) > 0 {
			conditions["s3:"+name] = values
		}
	}
	return conditions
}

// parser reads headers and remembers the first error.
type parser struct {
	get Values
	err error
}

// single returns the only value of a header. Two values are an error: a proxy, a
// policy and the service could each choose a different one.
func (p *parser) single(name string) (value string, present bool) {
	values := p.get(name)
	if len(values) > 1 {
		p.fail(codeInvalidArgument, "The header "+name+" was sent more than once.")
	}
	if len(values) == 0 {
		return "", false
	}
	return values[0], true
}

func (p *parser) fail(code, message string) {
	if p.err == nil {
		p.err = &Error{Code: code, Message: message}
	}
}

// refuse fails if the request has one of these headers.
func (p *parser) refuse(message string, names ...string) {
	for _, name := range names {
		if len(p.get(name)) > 0 {
			p.fail(codeInvalidArgument, message)
		}
	}
}
