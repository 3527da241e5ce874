package signedurl

import (
	"bytes"
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"

	gcblob "gocloud.dev/blob"
	"gocloud.dev/blob/driver"

	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/sse"
)

// DefaultMaxExpiry is the longest lifetime of a URL unless [SignerOptions] sets
// another: seven days, as on S3.
const DefaultMaxExpiry = 7 * 24 * time.Hour

// secretSize is the length of a secret in bytes.
const secretSize = 32

// Labels of the messages authenticated under a secret.
const (
	labelURL      = "blobseal signed url v2"
	labelSecretID = "blobseal signed url secret id v1"
)

// Signer makes and verifies the signed URLs of one bucket.
//
// A URL consists of the signer's base URL, the last element of the object's key,
// and a query that names the key, what is allowed, and an HMAC-SHA-256 over all
// of that. The HMAC covers decoded values, so a client may encode or order the
// query as it likes. A parameter that was changed, added or repeated makes the
// URL invalid, and so does another last element of the path, under which clients
// save the object. The HMAC also covers the base URL, so signers with different
// base URLs refuse each other's URLs even if they share a secret. The host and the
// rest of a request's path are not checked, because proxies change them.
//
// A signed URL cannot be revoked. Keep its lifetime short, or replace the secret.
//
// Signer implements blob.URLSigner. It replaces gocloud's fileblob.URLSignerHMAC, which
// drops EnforceAbsentContentType, does not cover the base URL, accepts unknown
// parameters, accepts a secret of one byte, prints it, and cannot rotate it. For a
// bucket that does not encrypt, call [Signer.Sign].
//
// A Signer is immutable, safe for concurrent use, and does not print its secrets.
type Signer struct {
	base      url.URL // without a slash at the end
	baseText  string
	secrets   map[string]macFunc // by their ids in URLs
	signing   string             // id of the secret that signs
	maxExpiry time.Duration
	principal bool
	now       func() time.Time
}

// macFunc authenticates messages under a secret. It is a closure, so that fmt and
// reflect find no secret.
type macFunc func(msg []byte) []byte

// SignerOptions are options for [NewSigner]. Most services leave them nil.
type SignerOptions struct {
	// Accept holds other secrets whose URLs are still valid. To replace a secret
	// on several servers: add the new one to Accept on all of them, then sign with
	// it, and drop the old one once its last URL has expired.
	Accept [][]byte

	// MaxExpiry is the longest lifetime of a URL. Zero means [DefaultMaxExpiry].
	MaxExpiry time.Duration

	// BindPrincipal makes SignedURL put the principal of its ctx into the URL, see
	// [kms.WithPrincipal]. The Handler then acts for that principal, as S3 does
	// for presigned URLs: the principal needs permission to use the key when the
	// URL is used, and appears in the audit trail. The URL shows its ID and type.
	BindPrincipal bool

	// Now is the clock. Nil means [time.Now].
	Now func() time.Time
}

// NewSigner returns a signer for the bucket whose [Handler] clients reach at base,
// an absolute http or https URL without a query. A slash at the end of base makes
// no difference. The secret and each of opts.Accept are 32 random bytes. NewSigner
// copies them.
func NewSigner(base *url.URL, secret []byte, opts *SignerOptions) (*Signer, error) {
	if opts == nil {
		opts = new(SignerOptions)
	}
	if base == nil || base.Scheme != "http" && base.Scheme != "https" || base.Host == "" || base.User != nil ||
		base.RawQuery != "" || base.ForceQuery || base.Fragment != "" {
		return nil, fmt.Errorf("signedurl: %w: base must be an absolute http or https URL without user, query or fragment", sse.ErrInvalid)
	}
	if opts.MaxExpiry < 0 {
		return nil, fmt.Errorf("signedurl: %w: negative MaxExpiry", sse.ErrInvalid)
	}
	s := &Signer{
		base:      *base,
		secrets:   make(map[string]macFunc),
		maxExpiry: cmp.Or(opts.MaxExpiry, DefaultMaxExpiry),
		principal: opts.BindPrincipal,
		now:       opts.Now,
	}
	s.base.Path, s.base.RawPath = strings.TrimRight(base.Path, "/"), strings.TrimRight(base.RawPath, "/")
	s.baseText = s.base.String()
	if s.now == nil {
		s.now = time.Now
	}
	var err error
	if s.signing, err = s.accept(secret); err != nil {
		return nil, err
	}
	for _, b := range opts.Accept {
		if _, err := s.accept(b); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// accept adds a secret to those of s and returns its id, which is derived from it.
func (s *Signer) accept(secret []byte) (id string, err error) {
	if len(secret) != secretSize {
		return "", fmt.Errorf("signedurl: %w: secret has %d bytes, want %d", sse.ErrInvalid, len(secret), secretSize)
	}
	if bytes.Equal(secret, make([]byte, secretSize)) {
		return "", fmt.Errorf("signedurl: %w: secret is all zeros (fill it from crypto/rand)", sse.ErrInvalid)
	}
	key := bytes.Clone(secret)
	mac := func(msg []byte) []byte {
		h := hmac.New(sha256.New, key)
		h.Write(msg)
		return h.Sum(nil)
	}
	id = base64.RawURLEncoding.EncodeToString(mac([]byte(labelSecretID))[:6])
	s.secrets[id] = mac
	return id, nil
}

// Sign returns a URL that allows what p says. The object need not exist. An empty
// Method means GET, and a zero Expires one hour from now. Sign rounds Expires up
// to a whole second. A Permit that makes no sense is [sse.ErrInvalid].
func (s *Signer) Sign(p *Permit) (*url.URL, error) { return s.sign(p, s.now()) }

func (s *Signer) sign(p *Permit, now time.Time) (*url.URL, error) {
	complete := *p
	complete.Method = cmp.Or(p.Method, http.MethodGet)
	if complete.Expires.IsZero() {
		complete.Expires = now.Add(gcblob.DefaultSignedURLExpiry)
	}
	if left := complete.Expires.Sub(now); left <= 0 || left > s.maxExpiry {
		return nil, fmt.Errorf("signedurl: %w: lifetime of %v, want more than 0 and at most %v", sse.ErrInvalid, left, s.maxExpiry)
	}
	complete.Expires = time.Unix(complete.Expires.Add(time.Second-1).Unix(), 0)
	if err := complete.check(); err != nil {
		return nil, fmt.Errorf("signedurl: %w: %w", sse.ErrInvalid, err)
	}
	fields := complete.fields()
	fields[paramSecret] = s.signing
	fields[paramSignature] = s.signature(s.secrets[s.signing], fields)
	u := s.base
	name := fileName(p.Key)
	u.Path, u.RawPath = s.base.Path+"/"+name, s.base.EscapedPath()+"/"+url.PathEscape(name)
	u.RawQuery = encodeQuery(fields)
	return &u, nil
}

// SignedURL implements blob.URLSigner. It is [Signer.Sign] with the options of
// gocloud's Bucket.SignedURL: nil opts and zero fields mean GET for an hour. It
// does not call opts.BeforeSign, because the bucket does.
func (s *Signer) SignedURL(ctx context.Context, key string, opts *driver.SignedURLOptions) (string, error) {
	if opts == nil {
		opts = new(driver.SignedURLOptions)
	}
	now := s.now()
	p := &Permit{
		Key:                      key,
		Method:                   opts.Method,
		ContentType:              opts.ContentType,
		EnforceAbsentContentType: opts.EnforceAbsentContentType && opts.ContentType == "",
	}
	if opts.Expiry != 0 {
		p.Expires = now.Add(opts.Expiry)
	}
	if s.principal {
		p.Principal = kms.PrincipalFrom(ctx)
	}
	u, err := s.sign(p, now)
	if err != nil {
		return "", err
	}
	return u.String(), nil
}

// Verify returns what the request's signed URL allows. The request's method and
// content type must be allowed; the Handler checks the rest. Any other request is
// a [RefusedError].
func (s *Signer) Verify(r *http.Request) (*Permit, error) {
	p, err := s.verify(r.URL)
	if err != nil {
		return nil, err
	}
	if p.Method != r.Method && !(p.Method == http.MethodGet && r.Method == http.MethodHead) {
		return nil, &RefusedError{Code: CodeMethod, reason: fmt.Sprintf("URL is for %s", p.Method), key: p.Key}
	}
	types := r.Header["Content-Type"]
	switch {
	case p.EnforceAbsentContentType && len(types) != 0:
		return nil, &RefusedError{Code: CodeContentType, reason: "URL is for a request without Content-Type", key: p.Key}
	case p.ContentType != "" && (len(types) != 1 || types[0] != p.ContentType):
		return nil, &RefusedError{Code: CodeContentType, reason: fmt.Sprintf("URL is for Content-Type %q", p.ContentType), key: p.Key}
	}
	return p, nil
}

// verify returns the Permit of an authentic URL that has not expired.
func (s *Signer) verify(u *url.URL) (*Permit, error) {
	fields, err := s.authenticate(u.RawQuery)
	if err != nil {
		return nil, err
	}
	p, err := parsePermit(fields)
	if err != nil {
		return nil, err
	}
	if !strings.HasSuffix(u.Path, "/"+fileName(p.Key)) {
		return nil, &RefusedError{Code: CodeSignature, reason: "path of the URL does not end with the object's file name", key: p.Key}
	}
	if !s.now().Before(p.Expires) {
		return nil, &RefusedError{Code: CodeExpired, reason: fmt.Sprintf("URL expired at %v", p.Expires.UTC()), key: p.Key}
	}
	return p, nil
}

// authenticate returns the decoded parameters of a query with a valid signature,
// without those that only serve the signature.
//
// In a query, "+" is a space to HTML forms and URLSearchParams, and a plus to
// those who follow RFC 3986, such as Java's URI, which also decodes %2B to "+". We
// never write "+". If a client did, the signature decides what it meant.
func (s *Signer) authenticate(query string) (map[string]string, error) {
	refused := &RefusedError{Code: CodeSignature, reason: "URL is not signed"}
	for _, unescape := range []func(string) (string, error){url.QueryUnescape, url.PathUnescape} {
		fields, err := parseQuery(query, unescape)
		if err != nil {
			return nil, err
		}
		if fields[paramSignature] == "" {
			return nil, refused
		}
		mac := s.secrets[fields[paramSecret]]
		if mac == nil {
			refused.reason = "URL is signed under an unknown secret"
			return nil, refused
		}
		if hmac.Equal([]byte(fields[paramSignature]), []byte(s.signature(mac, fields))) {
			delete(fields, paramSignature)
			delete(fields, paramSecret)
			return fields, nil
		}
		refused.reason = "URL was changed, or signed for another base URL"
	}
	return nil, refused
}

// signature returns the signature of fields, which may hold one already.
func (s *Signer) signature(mac macFunc, fields map[string]string) string {
	msg := append(make([]byte, 0, 512), labelURL...)
	frame := func(field string) {
		msg = binary.BigEndian.AppendUint64(msg, uint64(len(field)))
		msg = append(msg, field...)
	}
	frame(s.baseText)
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		if name != paramSignature {
			frame(name)
			frame(fields[name])
		}
	}
	return base64.RawURLEncoding.EncodeToString(mac(msg))
}

// fileName returns the last element of the path of a URL for key. Clients save the
// object under that name.
func fileName(key string) string {
	key = strings.TrimRight(key, "/")
	name := strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == '\\' { // refused, or taken for a slash
			return '_'
		}
		return r
	}, key[strings.LastIndex(key, "/")+1:])
	if name == "" || name == "." || name == ".." { // clients resolve these
		return "object"
	}
	return name
}
