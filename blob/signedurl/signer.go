package signedurl

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"time"
	"unicode/utf8"

	gcblob "gocloud.dev/blob"
	"gocloud.dev/blob/driver"

	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/sse"
)

// ErrForbidden: the request is not one that a signed URL allows. Its text says
// why, for a log; a client is told nothing but that.
var ErrForbidden = errors.New("signedurl: not allowed by a signed URL")

// DefaultMaxExpiry is how long a signed URL may be valid unless
// [SignerOptions] says otherwise: seven days, as on S3.
const DefaultMaxExpiry = 7 * 24 * time.Hour

// secretSize is the length of a secret in bytes.
const secretSize = 32

// The parameters of a signed URL, of which the first five are named as those of
// gocloud's own signer.
const (
	paramKey         = "obj"
	paramMethod      = "method"
	paramExpiry      = "expiry"
	paramContentType = "contentType"
	paramSignature   = "signature"

	paramSecret        = "kid"
	paramPrincipal     = "by"
	paramPrincipalType = "byType"
)

// Labels of what is authenticated under a signer's secret.
const (
	labelURL      = "blobseal signed url v1"
	labelSecretID = "blobseal signed url secret id v1"
)

// Signer makes signed URLs for one bucket and verifies them. Whoever has such a
// URL may do one thing with one object for some time: read, write or delete it.
// A [Handler] serves them.
//
// A URL is the signer's base URL and a query of the object's key and what is
// allowed, with an HMAC-SHA-256 over all of that and the base URL. It is verified
// as a whole, so that there is no second spelling of it: a parameter that was
// added, repeated, moved or encoded otherwise is refused like an edited one.
// The host and the path of the request are not looked at, since proxies change
// them; the base URL is bound as the name of the bucket. URLs of two signers with
// different base URLs are not good for each other, even with the same secret.
//
// A signed URL cannot be called back: keep its time short, or give up the secret.
//
// gocloud's own fileblob.URLSignerHMAC would serve if a handler could trust it
// with these, which is why this package has a signer of its own: it does not
// carry EnforceAbsentContentType; does not bind the base URL; accepts many
// spellings of one URL; leaves the method and the content type to the handler;
// takes a secret of one byte, shows it to fmt, and has one only, so that it cannot
// be replaced without breaking every URL. Signer is a fileblob.URLSigner, for
// plain buckets, and its URLs suit handlers written for gocloud's.
//
// It is immutable, safe for concurrent use, and does not print its secrets.
type Signer struct {
	base      url.URL
	scope     string
	secrets   []signingSecret // the first signs
	maxExpiry time.Duration
	principal bool
	now       func() time.Time
}

// signingSecret is a secret and its name in URLs, which is a PRF of it.
type signingSecret struct {
	id  string
	mac func(msg []byte) []byte // a closure, so that fmt and reflect find no key
}

// SignerOptions are for [NewSigner]. The zero value is right for most.
type SignerOptions struct {
	// Accept holds earlier secrets, whose URLs are still good. To replace a secret
	// on several servers, first let all accept the new one, then sign with it, and
	// drop the old one when the last of its URLs has expired.
	Accept [][]byte

	// MaxExpiry is the longest time that a URL may be asked to be valid for; zero
	// means [DefaultMaxExpiry].
	MaxExpiry time.Duration

	// BindPrincipal has a URL act for the principal in whose ctx it was signed, see
	// [kms.WithPrincipal], as presigned URLs of S3 do: that principal needs the
	// permission to use the key when the URL is used, and stands in the audit
	// trail. Its ID and type can be read in the URL.
	BindPrincipal bool

	// Now is the clock; nil means [time.Now].
	Now func() time.Time
}

// NewSigner returns a signer for the bucket whose [Handler] is reached at base, an
// absolute http or https URL without a query. The secret, and each of
// opts.Accept, is 32 random bytes, and is copied.
func NewSigner(base *url.URL, secret []byte, opts *SignerOptions) (*Signer, error) {
	if opts == nil {
		opts = new(SignerOptions)
	}
	if base == nil || base.Scheme != "http" && base.Scheme != "https" || base.Host == "" || base.User != nil ||
		base.RawQuery != "" || base.ForceQuery || base.Fragment != "" {
		return nil, fmt.Errorf("signedurl: %w: the base of signed URLs must be an absolute http or https URL without a query", sse.ErrInvalid)
	}
	if opts.MaxExpiry < 0 {
		return nil, fmt.Errorf("signedurl: %w: negative MaxExpiry of signed URLs", sse.ErrInvalid)
	}
	s := &Signer{
		base:      *base,
		scope:     base.String(),
		maxExpiry: opts.MaxExpiry,
		principal: opts.BindPrincipal,
		now:       opts.Now,
	}
	if s.maxExpiry == 0 {
		s.maxExpiry = DefaultMaxExpiry
	}
	if s.now == nil {
		s.now = time.Now
	}
	for _, b := range append([][]byte{secret}, opts.Accept...) {
		sec, err := newSigningSecret(b)
		if err != nil {
			return nil, err
		}
		if s.secret(sec.id) == nil {
			s.secrets = append(s.secrets, sec)
		}
	}
	return s, nil
}

func newSigningSecret(b []byte) (signingSecret, error) {
	if len(b) != secretSize {
		return signingSecret{}, fmt.Errorf("signedurl: %w: secret has %d bytes, want %d", sse.ErrInvalid, len(b), secretSize)
	}
	key := bytes.Clone(b)
	mac := func(msg []byte) []byte {
		h := hmac.New(sha256.New, key)
		h.Write(msg)
		return h.Sum(nil)
	}
	id := mac([]byte(labelSecretID))
	return signingSecret{id: base64.RawURLEncoding.EncodeToString(id[:6]), mac: mac}, nil
}

// secret returns the secret that a URL names, or nil.
func (s *Signer) secret(id string) *signingSecret {
	for i := range s.secrets {
		if s.secrets[i].id == id {
			return &s.secrets[i]
		}
	}
	return nil
}

// Permit is what a signed URL allows.
type Permit struct {
	Key     string
	Method  string    // GET, which is good for HEAD too, PUT or DELETE
	Expires time.Time // the first moment at which it is no longer allowed

	// ContentType and EnforceAbsentContentType are as in gocloud's
	// SignedURLOptions. If neither is set, a PUT may be of any content type.
	ContentType              string
	EnforceAbsentContentType bool

	// Principal is who signed, where that is bound; see [SignerOptions].
	Principal kms.Principal
}

// SignedURL returns a URL for the object with this key, which need not exist. nil
// opts and zero fields mean what they mean to gocloud's Bucket.SignedURL: GET,
// for an hour. A URL is valid for at least opts.Expiry, and less than a second
// longer. opts.BeforeSign is for the bucket that has the signer, and not called.
// Options that make no sense are [sse.ErrInvalid].
func (s *Signer) SignedURL(ctx context.Context, key string, opts *driver.SignedURLOptions) (string, error) {
	u, err := s.URLFromKey(ctx, key, opts)
	if err != nil {
		return "", err
	}
	return u.String(), nil
}

// URLFromKey is [Signer.SignedURL] for fileblob.Options, which takes the signer as
// its URLSigner.
func (s *Signer) URLFromKey(ctx context.Context, key string, opts *driver.SignedURLOptions) (*url.URL, error) {
	p, err := s.permit(ctx, key, opts)
	if err != nil {
		return nil, fmt.Errorf("signedurl: %w: %w", sse.ErrInvalid, err)
	}
	u := s.base
	u.RawQuery = s.query(p, &s.secrets[0])
	return &u, nil
}

// permit returns what opts ask for.
func (s *Signer) permit(ctx context.Context, key string, opts *driver.SignedURLOptions) (*Permit, error) {
	if opts == nil {
		opts = new(driver.SignedURLOptions)
	}
	p := &Permit{
		Key:                      key,
		Method:                   opts.Method,
		ContentType:              opts.ContentType,
		EnforceAbsentContentType: opts.EnforceAbsentContentType && opts.ContentType == "",
	}
	if key == "" || !utf8.ValidString(key) {
		return nil, errors.New("the key of a signed URL must be valid UTF-8 and not empty")
	}
	switch p.Method {
	case http.MethodPut, http.MethodDelete, http.MethodGet:
	case "":
		p.Method = http.MethodGet
	default:
		return nil, fmt.Errorf("a signed URL cannot be for method %q", p.Method)
	}
	if p.Method != http.MethodPut && (opts.ContentType != "" || opts.EnforceAbsentContentType) {
		return nil, errors.New("a content type can be enforced for PUT alone")
	}
	if p.ContentType != "" {
		if _, _, err := mime.ParseMediaType(p.ContentType); err != nil {
			return nil, fmt.Errorf("content type %q: %w", p.ContentType, err)
		}
	}
	expiry := opts.Expiry
	if expiry == 0 {
		expiry = gcblob.DefaultSignedURLExpiry
	}
	if expiry < 0 || expiry > s.maxExpiry {
		return nil, fmt.Errorf("a signed URL cannot be valid for %v, but for %v at most", expiry, s.maxExpiry)
	}
	// Up to whole seconds.
	p.Expires = time.Unix(s.now().Add(expiry).Add(time.Second-1).Unix(), 0)
	if s.principal {
		p.Principal = kms.PrincipalFrom(ctx)
	}
	return p, nil
}

// Verify returns what the request's signed URL allows, which covers the request's
// method and content type. Any other request is [ErrForbidden].
func (s *Signer) Verify(r *http.Request) (*Permit, error) {
	p, err := s.verify(r.URL)
	if err != nil {
		return nil, err
	}
	if p.Method != r.Method && !(p.Method == http.MethodGet && r.Method == http.MethodHead) {
		return nil, fmt.Errorf("%w: it is for %s", ErrForbidden, p.Method)
	}
	types := r.Header["Content-Type"]
	switch {
	case p.EnforceAbsentContentType && len(types) != 0,
		p.ContentType != "" && (len(types) != 1 || types[0] != p.ContentType):
		return nil, fmt.Errorf("%w: it is for another content type", ErrForbidden)
	}
	return p, nil
}

// KeyFromURL returns the key of a signed URL that is authentic and has not
// expired, whatever it allows: it makes the signer a fileblob.URLSigner. A server
// uses [Signer.Verify] instead, which knows the request.
func (s *Signer) KeyFromURL(_ context.Context, u *url.URL) (string, error) {
	p, err := s.verify(u)
	if err != nil {
		return "", err
	}
	return p.Key, nil
}

// verify reads the query without trust, makes the URL that the signer would have
// made of it, and compares.
func (s *Signer) verify(u *url.URL) (*Permit, error) {
	q, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, fmt.Errorf("%w: malformed query", ErrForbidden)
	}
	sec := s.secret(q.Get(paramSecret))
	if sec == nil {
		return nil, fmt.Errorf("%w: no signature, or one of an unknown secret", ErrForbidden)
	}
	expiry, err := strconv.ParseInt(q.Get(paramExpiry), 10, 64)
	if err != nil {
		return nil, fmt.Errorf("%w: malformed expiry", ErrForbidden)
	}
	p := &Permit{
		Key:                      q.Get(paramKey),
		Method:                   q.Get(paramMethod),
		Expires:                  time.Unix(expiry, 0),
		ContentType:              q.Get(paramContentType),
		EnforceAbsentContentType: q.Has(paramContentType) && q.Get(paramContentType) == "",
		Principal:                kms.Principal{ID: q.Get(paramPrincipal), Type: q.Get(paramPrincipalType)},
	}
	if !hmac.Equal([]byte(s.query(p, sec)), []byte(u.RawQuery)) {
		return nil, fmt.Errorf("%w: wrong signature", ErrForbidden)
	}
	if !s.now().Before(p.Expires) {
		return nil, fmt.Errorf("%w: it expired at %v", ErrForbidden, p.Expires.UTC())
	}
	return p, nil
}

// query returns the one query that stands for p.
func (s *Signer) query(p *Permit, sec *signingSecret) string {
	expiry := p.Expires.Unix()
	contentRule := byte(0)
	q := url.Values{
		paramKey:    {p.Key},
		paramMethod: {p.Method},
		paramExpiry: {strconv.FormatInt(expiry, 10)},
		paramSecret: {sec.id},
	}
	switch {
	case p.ContentType != "":
		contentRule = 2
		q.Set(paramContentType, p.ContentType)
	case p.EnforceAbsentContentType:
		contentRule = 1
		q.Set(paramContentType, "")
	}
	if p.Principal != (kms.Principal{}) {
		q.Set(paramPrincipal, p.Principal.ID)
		q.Set(paramPrincipalType, p.Principal.Type)
	}
	msg := []byte(labelURL)
	msg = binary.BigEndian.AppendUint64(msg, uint64(expiry))
	msg = append(msg, contentRule)
	for _, field := range []string{s.scope, p.Method, p.Key, p.ContentType, p.Principal.ID, p.Principal.Type} {
		msg = binary.BigEndian.AppendUint64(msg, uint64(len(field)))
		msg = append(msg, field...)
	}
	q.Set(paramSignature, base64.RawURLEncoding.EncodeToString(sec.mac(msg)))
	return q.Encode()
}

// String does not show the secrets.
func (s *Signer) String() string { return "signer of URLs at " + s.scope }

// GoString does not show the secrets.
func (s *Signer) GoString() string { return "signedurl.Signer(" + s.scope + ")" }
