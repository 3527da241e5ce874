package signedurl

import (
	"errors"
	"fmt"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/blobseal/blobseal/kms"
)

// Permit says what a signed URL allows.
type Permit struct {
	Key     string
	Method  string    // GET, which allows HEAD too, PUT or DELETE
	Expires time.Time // the first moment at which it allows nothing

	// ContentType is the Content-Type that a PUT must have. If it is empty, a PUT
	// may have any, or must have none if EnforceAbsentContentType is set.
	ContentType              string
	EnforceAbsentContentType bool

	// MaxSize limits the body of a PUT, in bytes. Zero means the limit of the
	// Handler, which cannot be exceeded.
	MaxSize int64

	// IfMatch is the ETag that the object of a GET must have.
	IfMatch string

	// Headers of the response to a GET, in place of the object's own.
	ResponseContentType        string
	ResponseContentDisposition string
	ResponseCacheControl       string

	// Principal is who the request acts for, see [SignerOptions].BindPrincipal.
	Principal kms.Principal
}

// Parameters of a signed URL. The first five are those of gocloud's own signer,
// the last three those of S3's presigned URLs.
const (
	paramKey         = "obj"
	paramMethod      = "method"
	paramExpiry      = "expiry"
	paramContentType = "contentType"
	paramSignature   = "signature"

	paramSecret        = "kid"
	paramPrincipal     = "by"
	paramPrincipalType = "byType"
	paramMaxSize       = "maxSize"
	paramIfMatch       = "ifMatch"

	paramResponseContentType        = "response-content-type"
	paramResponseContentDisposition = "response-content-disposition"
	paramResponseCacheControl       = "response-cache-control"
)

// check refuses a permit that makes no sense.
func (p *Permit) check() error {
	ofGet := []string{p.IfMatch, p.ResponseContentType, p.ResponseContentDisposition, p.ResponseCacheControl}
	switch {
	case p.Method != http.MethodGet && p.Method != http.MethodPut && p.Method != http.MethodDelete:
		return fmt.Errorf("method %q, want GET, PUT or DELETE", p.Method)
	case p.Key == "" || !utf8.ValidString(p.Key):
		return errors.New("key must be UTF-8 and not empty")
	case p.Method != http.MethodPut && (p.ContentType != "" || p.EnforceAbsentContentType || p.MaxSize != 0):
		return errors.New("a content type or size can be set for PUT only")
	case p.ContentType != "" && p.EnforceAbsentContentType || p.MaxSize < 0:
		return errors.New("content type both set and absent, or negative size")
	case p.Method != http.MethodGet && strings.Join(ofGet, "") != "":
		return errors.New("If-Match and headers of the response can be set for GET only")
	}
	for _, value := range append(ofGet, p.ContentType) {
		if strings.ContainsFunc(value, unicode.IsControl) {
			return fmt.Errorf("%q cannot be the value of a header", value)
		}
	}
	for _, mediaType := range []string{p.ContentType, p.ResponseContentType} {
		if _, _, err := mime.ParseMediaType(mediaType); err != nil && mediaType != "" {
			return fmt.Errorf("content type %q: %w", mediaType, err)
		}
	}
	return nil
}

// texts returns the fields of p that are parameters as they are, unless they are empty.
func (p *Permit) texts() map[string]*string {
	return map[string]*string{
		paramKey:                        &p.Key,
		paramMethod:                     &p.Method,
		paramContentType:                &p.ContentType,
		paramIfMatch:                    &p.IfMatch,
		paramPrincipal:                  &p.Principal.ID,
		paramPrincipalType:              &p.Principal.Type,
		paramResponseContentType:        &p.ResponseContentType,
		paramResponseContentDisposition: &p.ResponseContentDisposition,
		paramResponseCacheControl:       &p.ResponseCacheControl,
	}
}

// fields returns the parameters of a URL for p, without those of the signature.
func (p *Permit) fields() map[string]string {
	fields := map[string]string{paramExpiry: strconv.FormatInt(p.Expires.Unix(), 10)}
	for name, value := range p.texts() {
		if *value != "" {
			fields[name] = *value
		}
	}
	if p.EnforceAbsentContentType {
		fields[paramContentType] = ""
	}
	if p.MaxSize > 0 {
		fields[paramMaxSize] = strconv.FormatInt(p.MaxSize, 10)
	}
	return fields
}

// parsePermit is the inverse of fields, for fields that are authentic. It refuses
// what a later version may have signed: a restriction that we do not know.
func parsePermit(fields map[string]string) (*Permit, error) {
	contentType, typed := fields[paramContentType]
	expiry, _ := strconv.ParseInt(fields[paramExpiry], 10, 64)
	maxSize, _ := strconv.ParseInt(fields[paramMaxSize], 10, 64)
	p := &Permit{Expires: time.Unix(expiry, 0), EnforceAbsentContentType: typed && contentType == "", MaxSize: maxSize}
	for name, value := range p.texts() {
		*value = fields[name]
	}
	if !maps.Equal(p.fields(), fields) {
		return nil, &RefusedError{Code: CodeSignature, reason: "URL is signed by a later version", key: p.Key}
	}
	return p, nil
}

// encodeQuery writes parameters as a query, sorted by name. It escapes everything
// but letters, digits and "-_.~", so that all clients read the same.
func encodeQuery(fields map[string]string) string {
	var params []string
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		params = append(params, name+"="+strings.ReplaceAll(url.QueryEscape(fields[name]), "+", "%20"))
	}
	return strings.Join(params, "&")
}

// parseQuery reads a query whose parameters occur once each. Unlike
// [url.ParseQuery], it takes a semicolon for data, since clients that encode a
// query again leave it as it is.
func parseQuery(query string, unescape func(string) (string, error)) (map[string]string, error) {
	fields := make(map[string]string)
	for param := range strings.SplitSeq(query, "&") {
		if param == "" {
			continue
		}
		escapedName, escapedValue, _ := strings.Cut(param, "=")
		name, err := unescape(escapedName)
		value, valueErr := unescape(escapedValue)
		if err != nil || valueErr != nil {
			return nil, &RefusedError{Code: CodeSignature, reason: "query of the URL is malformed"}
		}
		if _, repeated := fields[name]; repeated {
			return nil, &RefusedError{Code: CodeSignature, reason: "query of the URL repeats a parameter"}
		}
		fields[name] = value
	}
	return fields, nil
}
