package signedurl

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"strings"

	gcblob "gocloud.dev/blob"
	"gocloud.dev/gcerrors"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/audit"
	"github.com/blobseal/blobseal/sse"
)

// DefaultMaxSize is the largest body of a PUT unless [HandlerOptions] says
// otherwise: 5 GiB, as on S3.
const DefaultMaxSize = 5 << 30

// maxRanges is how many ranges of an object one GET may ask for. Each of them is a
// read of its own in the bucket, so a request with more gets the whole object.
const maxRanges = 16

// maxAttempts is how often a GET starts anew because the object was replaced
// between the look at its attributes and the first read.
const maxAttempts = 3

// Handler serves the signed URLs of a bucket; see [NewHandler].
type Handler struct {
	bucket *gcblob.Bucket
	signer *Signer
	opts   HandlerOptions
}

// HandlerOptions are for [NewHandler]. The zero value is right for most.
type HandlerOptions struct {
	// MaxSize is the largest body of a PUT in bytes. Zero means [DefaultMaxSize];
	// below zero, there is no limit.
	MaxSize int64

	// Header holds headers for answers that carry an object, in place of what the
	// handler or the object would give them. A header without values is left out.
	Header http.Header

	// Principal says who asks, for a key service's permissions and its audit trail;
	// see [kms.WithPrincipal]. Without it, or where it returns the zero Principal,
	// that is the one bound in the URL, if any (see [SignerOptions]), and otherwise
	// that of the request's ctx.
	Principal func(*http.Request) kms.Principal

	// Logger gets what went wrong here, and at level Debug what clients were
	// refused for, never with the URL. nil means [slog.Default].
	Logger *slog.Logger
}

// NewHandler returns a handler of the URLs that signer makes, for any gocloud
// bucket, one that encrypts or a plain one. Give it the bucket that has the signer
// among its options: a gocloud.dev/blob.PrefixedBucket of that signs whole keys.
//
// GET and HEAD serve ranges and conditional requests; HEAD reads attributes only.
// PUT stores the body, with its Content-Type, Content-Encoding, Content-Language,
// Content-Disposition and Cache-Control, once the whole of it has come and fits
// its Content-Length and Content-MD5; otherwise it stores nothing. With
// If-None-Match: * it replaces nothing. Other conditions cannot be kept for a PUT
// or a DELETE, and are refused with 501.
//
// Requests that no signed URL allows get one and the same answer, 403. Answers
// with an object say Cache-Control: private, no-cache, unless the object has one
// of its own, and keep a browser from taking it for a page of the site: nosniff,
// and a Content-Security-Policy with sandbox.
//
// No byte is sent that the bucket has not released, so none that is not authentic
// if the bucket encrypts. An error before the first byte has a status of its own.
// Later, and if the object does not prove to be whole at its end, the handler
// panics with [http.ErrAbortHandler] before the last byte is sent, so that the
// client sees a broken answer and not a short object.
//
// Errors have the status that S3 has for them: 400 for a key of a key service that
// is unknown, disabled or to be deleted, 403 for one that may not be used, 503 for a
// key service that is down. Customer keys do not come with a signed URL: an object of
// SSE-C is 400, and one that its key does not open is no fault of a request, but
// harm to what is stored: 500, as damage is, which is logged as an error.
func NewHandler(bucket *gcblob.Bucket, signer *Signer, opts *HandlerOptions) *Handler {
	h := &Handler{bucket: bucket, signer: signer}
	if opts != nil {
		h.opts = *opts
		h.opts.Header = opts.Header.Clone()
	}
	if h.opts.MaxSize == 0 {
		h.opts.MaxSize = DefaultMaxSize
	}
	if h.opts.Logger == nil {
		h.opts.Logger = slog.Default()
	}
	return h
}

// ServeHTTP implements [http.Handler].
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var serve func(w http.ResponseWriter, r *http.Request, key string) error
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		serve = h.get
	case http.MethodPut:
		serve = h.put
	case http.MethodDelete:
		serve = h.delete
	default:
		w.Header().Set("Allow", "GET, HEAD, PUT, DELETE")
		h.fail(w, r, "", &statusError{http.StatusMethodNotAllowed, errors.New("signedurl: method not allowed")})
		return
	}
	p, err := h.signer.Verify(r)
	if err != nil {
		h.fail(w, r, "", err)
		return
	}
	ctx := r.Context()
	if who := h.principal(r, p); who != (kms.Principal{}) {
		ctx = kms.WithPrincipal(ctx, who)
	}
	if err := serve(w, r.WithContext(ctx), p.Key); err != nil {
		h.fail(w, r, p.Key, err)
	}
}

func (h *Handler) principal(r *http.Request, p *Permit) kms.Principal {
	if h.opts.Principal != nil {
		if who := h.opts.Principal(r); who != (kms.Principal{}) {
			return who
		}
	}
	return p.Principal
}

// get serves GET and HEAD.
func (h *Handler) get(w http.ResponseWriter, r *http.Request, key string) error {
	if strings.Count(r.Header.Get("Range"), ",") >= maxRanges {
		r = withoutRange(r)
	}
	for attempt := 1; ; attempt++ {
		err := h.getOnce(w, r, key)
		if !errors.Is(err, blob.ErrChanged) || errors.Is(err, http.ErrAbortHandler) || attempt == maxAttempts {
			return err
		}
	}
}

// getOnce is get for the version of the object that is there. If it fails, nothing
// was sent, or the error is [http.ErrAbortHandler] too.
func (h *Handler) getOnce(w http.ResponseWriter, r *http.Request, key string) error {
	attrs, err := h.bucket.Attributes(r.Context(), key)
	if err != nil {
		return err
	}
	if attrs.Size == 0 { // of which "the last five bytes" would be a range, and none
		r = withoutRange(r)
	}
	ctx, cancel := context.WithCancel(r.Context())
	c := &content{ctx: ctx, bucket: h.bucket, key: key, attrs: attrs, rangeHeader: r.Header.Get("Range")}
	defer c.close() // after cancel, since it waits for a read under way
	defer cancel()
	resp := &response{w: w, header: w.Header().Clone(), content: c}
	h.setHeader(resp.header, attrs)
	http.ServeContent(resp, r, "", attrs.ModTime, c)
	return resp.finish(r.Method)
}

func withoutRange(r *http.Request) *http.Request {
	r = r.Clone(r.Context())
	r.Header.Del("Range")
	return r
}

// setHeader sets the headers that answers with an object have, but for those of
// [http.ServeContent].
func (h *Handler) setHeader(header http.Header, attrs *gcblob.Attributes) {
	contentType := attrs.ContentType
	if contentType == "" { // ServeContent would look into the object for one
		contentType = "application/octet-stream"
	}
	cacheControl := attrs.CacheControl
	if cacheControl == "" {
		cacheControl = "private, no-cache"
	}
	for name, value := range map[string]string{
		"Content-Type":            contentType,
		"Content-Encoding":        attrs.ContentEncoding,
		"Content-Language":        attrs.ContentLanguage,
		"Content-Disposition":     attrs.ContentDisposition,
		"Etag":                    attrs.ETag,
		"Cache-Control":           cacheControl,
		"Content-Security-Policy": "default-src 'none'; sandbox",
		"Referrer-Policy":         "no-referrer",
		"X-Content-Type-Options":  "nosniff",
	} {
		if value != "" {
			header.Set(name, value)
		}
	}
	for name, values := range h.opts.Header {
		header.Del(name)
		for _, value := range values {
			header.Add(name, value)
		}
	}
}

// errDigest: the body is not the one that its Content-MD5 is of.
var errDigest = errors.New("signedurl: body does not match its Content-MD5")

// errLength: the body is not as long as its Content-Length.
var errLength = errors.New("signedurl: body does not match its Content-Length")

// put stores the request's body.
func (h *Handler) put(w http.ResponseWriter, r *http.Request, key string) error {
	opts, err := writerOptions(r)
	if err != nil {
		return err
	}
	src := &upload{r: r.Body}
	if h.opts.MaxSize > 0 {
		if r.ContentLength > h.opts.MaxSize {
			return &http.MaxBytesError{Limit: h.opts.MaxSize}
		}
		src.r = http.MaxBytesReader(w, r.Body, h.opts.MaxSize)
	}
	if opts.ContentMD5 != nil {
		src.md5 = md5.New()
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	dst, err := h.bucket.NewWriter(ctx, key, opts)
	if err != nil {
		return err
	}
	n, err := io.Copy(dst, src)
	switch {
	case src.err != nil:
		err = src.err // which the bucket may have wrapped
	case err == nil && r.ContentLength >= 0 && n != r.ContentLength: // as net/http sees to, but others may not
		err = &statusError{http.StatusBadRequest, errLength}
	case err == nil && src.md5 != nil && !bytes.Equal(src.md5.Sum(nil), opts.ContentMD5):
		err = &statusError{http.StatusBadRequest, errDigest}
	}
	if err != nil {
		cancel() // so that Close stores nothing
		_ = dst.Close()
		return err
	}
	if err := dst.Close(); err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

// upload is the body of a PUT. It remembers its own error, to tell it from one of
// the bucket.
type upload struct {
	r   io.Reader
	md5 hash.Hash
	err error
}

func (u *upload) Read(p []byte) (int, error) {
	n, err := u.r.Read(p)
	if u.md5 != nil {
		u.md5.Write(p[:n])
	}
	if err != nil && err != io.EOF {
		u.err = err
		if tooLarge := (*http.MaxBytesError)(nil); !errors.As(err, &tooLarge) {
			u.err = &statusError{http.StatusBadRequest, fmt.Errorf("signedurl: body of the request: %w", err)}
		}
		return n, u.err
	}
	return n, err
}

// writerOptions returns what a PUT asks for, with the client's errors.
func writerOptions(r *http.Request) (*gcblob.WriterOptions, error) {
	if err := noConditions(r, "If-None-Match"); err != nil {
		return nil, err
	}
	opts := &gcblob.WriterOptions{
		ContentType:        r.Header.Get("Content-Type"),
		ContentEncoding:    r.Header.Get("Content-Encoding"),
		ContentLanguage:    r.Header.Get("Content-Language"),
		ContentDisposition: r.Header.Get("Content-Disposition"),
		CacheControl:       r.Header.Get("Cache-Control"),
	}
	switch values := r.Header["If-None-Match"]; {
	case len(values) == 1 && strings.TrimSpace(values[0]) == "*":
		opts.IfNotExist = true
	case len(values) != 0:
		return nil, &statusError{http.StatusNotImplemented, errors.New("signedurl: If-None-Match of a PUT must be *")}
	}
	if r.Header.Get("Content-Range") != "" {
		return nil, &statusError{http.StatusBadRequest, errors.New("signedurl: PUT of a part of an object")}
	}
	if opts.ContentType != "" {
		if _, _, err := mime.ParseMediaType(opts.ContentType); err != nil {
			return nil, &statusError{http.StatusBadRequest, fmt.Errorf("signedurl: Content-Type of the request: %w", err)}
		}
	}
	if digest, ok := r.Header["Content-Md5"]; ok {
		sum, err := base64.StdEncoding.Strict().DecodeString(digest[0])
		if err != nil || len(sum) != md5.Size || len(digest) != 1 {
			return nil, &statusError{http.StatusBadRequest, errors.New("signedurl: Content-MD5 of the request is malformed")}
		}
		opts.ContentMD5 = sum
	}
	return opts, nil
}

// delete deletes the object.
func (h *Handler) delete(w http.ResponseWriter, r *http.Request, key string) error {
	if err := noConditions(r, ""); err != nil {
		return err
	}
	if err := h.bucket.Delete(r.Context(), key); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// noConditions refuses a conditional request, since between a look at the object
// and the change it might be replaced.
func noConditions(r *http.Request, except string) error {
	for _, name := range []string{"If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since"} {
		if _, ok := r.Header[name]; ok && name != except {
			return &statusError{http.StatusNotImplemented, fmt.Errorf("signedurl: %s of a %s is not supported", name, r.Method)}
		}
	}
	return nil
}

// fail answers with the status that err has, or breaks off if an answer was begun.
func (h *Handler) fail(w http.ResponseWriter, r *http.Request, key string, err error) {
	status := statusOf(err)
	level := slog.LevelDebug
	if status >= 500 && status != http.StatusNotImplemented && r.Context().Err() == nil {
		level = slog.LevelError
	}
	h.opts.Logger.LogAttrs(r.Context(), level, "signed URL failed",
		slog.String("method", r.Method), slog.String("key", key), slog.Int("status", status), slog.Any("error", err))
	if errors.Is(err, http.ErrAbortHandler) {
		panic(http.ErrAbortHandler)
	}
	w.Header().Set("Cache-Control", "no-store")
	http.Error(w, http.StatusText(status), status)
}

// statusError is an error with a status of its own.
type statusError struct {
	status int
	err    error
}

func (e *statusError) Error() string { return e.err.Error() }
func (e *statusError) Unwrap() error { return e.err }

// statusOf returns the status for an error: that of S3 where it has one. The first
// that fits decides, since an error may be of several kinds.
func statusOf(err error) int {
	if e := (*statusError)(nil); errors.As(err, &e) {
		return e.status
	}
	if e := (*http.MaxBytesError)(nil); errors.As(err, &e) {
		return http.StatusRequestEntityTooLarge
	}
	for _, row := range []struct {
		target error
		status int
	}{
		{ErrForbidden, http.StatusForbidden},
		{blob.ErrPolicy, http.StatusForbidden},
		// What may work later.
		{kms.ErrUnavailable, http.StatusServiceUnavailable},
		{audit.ErrNotRecorded, http.StatusServiceUnavailable},
		{keyring.ErrStore, http.StatusServiceUnavailable},
		{keyring.ErrRootUnavailable, http.StatusServiceUnavailable},
		{blob.ErrChanged, http.StatusServiceUnavailable},
		// Keys that are not to be used.
		{kms.ErrDenied, http.StatusForbidden},
		{kms.ErrNotFound, http.StatusBadRequest},
		{kms.ErrDisabled, http.StatusBadRequest},
		{kms.ErrPendingDeletion, http.StatusBadRequest},
		{kms.ErrInvalid, http.StatusBadRequest},
		{keyring.ErrDisabled, http.StatusForbidden},
		{keyring.ErrDestroyed, http.StatusForbidden},
		{keyring.ErrUnknownKey, http.StatusInternalServerError},
		// Objects that do not open.
		{sse.ErrMode, http.StatusBadRequest},
		{sse.ErrKey, http.StatusInternalServerError}, // no request brought a key
		{sse.ErrCorrupt, http.StatusInternalServerError},
		{sse.ErrFormat, http.StatusInternalServerError},
		{sse.ErrVersion, http.StatusInternalServerError},
		{sse.ErrTooLarge, http.StatusRequestEntityTooLarge},
		{sse.ErrInvalid, http.StatusBadRequest},
	} {
		if errors.Is(err, row.target) {
			return row.status
		}
	}
	switch gcerrors.Code(err) {
	case gcerrors.NotFound:
		return http.StatusNotFound
	case gcerrors.InvalidArgument:
		return http.StatusBadRequest
	case gcerrors.FailedPrecondition, gcerrors.AlreadyExists:
		return http.StatusPreconditionFailed
	case gcerrors.PermissionDenied:
		return http.StatusForbidden
	case gcerrors.Unimplemented:
		return http.StatusNotImplemented
	case gcerrors.ResourceExhausted, gcerrors.Canceled, gcerrors.DeadlineExceeded:
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}
