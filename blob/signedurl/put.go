package signedurl

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"

	"github.com/blobseal/blobseal/sse"
	gcblob "gocloud.dev/blob"
	"gocloud.dev/gcerrors"
)

// put stores the body of the request.
func (h *Handler) put(w http.ResponseWriter, r *http.Request, p *Permit) error {
	opts, err := writerOptions(r)
	if err != nil {
		return err
	}
	limit := h.opts.MaxSize
	if p.MaxSize > 0 && (limit < 0 || p.MaxSize < limit) {
		limit = p.MaxSize
	}
	src := &upload{r: &receiver{r.Body, http.NewResponseController(w), h.opts.IdleTimeout}}
	if limit >= 0 {
		if r.ContentLength > limit {
			return &http.MaxBytesError{Limit: limit}
		}
		src.r = http.MaxBytesReader(w, io.NopCloser(src.r), limit)
	}
	body := io.Reader(src)
	sum := md5.New()
	if opts.ContentMD5 != nil {
		body = io.TeeReader(src, sum)
	}
	var env *sse.Envelope // nil if the bucket does not encrypt
	opts.BeforeWrite = func(as func(any) bool) error {
		as(&env)
		return nil
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	dst, err := h.bucket.NewWriter(ctx, p.Key, opts)
	if err != nil {
		return err
	}
	n, err := io.Copy(dst, body)
	switch {
	case src.err != nil:
		err = src.err // which the bucket may have wrapped
	case err == nil && r.ContentLength >= 0 && n != r.ContentLength: // net/http checks this, other servers may not
		err = &httpError{http.StatusBadRequest, "IncompleteBody", errors.New("signedurl: body does not match its Content-Length")}
	case err == nil && opts.ContentMD5 != nil && !bytes.Equal(sum.Sum(nil), opts.ContentMD5):
		err = &httpError{http.StatusBadRequest, "BadDigest", errors.New("signedurl: body does not match its Content-MD5")}
	}
	if err != nil {
		cancel() // Close then stores nothing
		_ = dst.Close()
		return err
	}
	if err := dst.Close(); err != nil {
		return err
	}
	if env != nil {
		w.Header().Set("Etag", etagOf(env.BodyID()))
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

// upload is the body of a PUT. It remembers its own error, to tell it from one of
// the bucket.
type upload struct {
	r   io.Reader
	err error
}

func (u *upload) Read(p []byte) (int, error) {
	n, err := u.r.Read(p)
	if err == nil || err == io.EOF {
		return n, err
	}
	u.err = err
	_, tooLarge := errors.AsType[*http.MaxBytesError](err)
	_, ours := errors.AsType[*httpError](err)
	if !tooLarge && !ours {
		u.err = &httpError{http.StatusBadRequest, "IncompleteBody", &goneError{err}}
	}
	return n, u.err
}

// writerOptions returns what the headers of a PUT ask for.
func writerOptions(r *http.Request) (*gcblob.WriterOptions, error) {
	if err := checkSupported(r); err != nil {
		return nil, err
	}
	opts := &gcblob.WriterOptions{
		ContentType:        r.Header.Get("Content-Type"),
		ContentEncoding:    r.Header.Get("Content-Encoding"),
		ContentLanguage:    r.Header.Get("Content-Language"),
		ContentDisposition: r.Header.Get("Content-Disposition"),
		CacheControl:       r.Header.Get("Cache-Control"),
		IfNotExist:         r.Header.Get("If-None-Match") != "",
	}
	if opts.ContentType == "" {
		opts.ContentType = "application/octet-stream" // the bucket would guess
	} else if _, _, err := mime.ParseMediaType(opts.ContentType); err != nil {
		return nil, &httpError{http.StatusBadRequest, "InvalidArgument", fmt.Errorf("signedurl: Content-Type: %w", err)}
	}
	if digest, ok := r.Header["Content-Md5"]; ok {
		sum, err := base64.StdEncoding.Strict().DecodeString(digest[0])
		if err != nil || len(sum) != md5.Size || len(digest) != 1 {
			return nil, &httpError{http.StatusBadRequest, "InvalidDigest", errors.New("signedurl: malformed Content-MD5")}
		}
		opts.ContentMD5 = sum
	}
	return opts, nil
}

// checkSupported refuses a PUT or DELETE whose headers ask for what the Handler
// cannot do. To ignore such a header would be to lie: the object would be replaced
// although it changed, or would lack its metadata.
func checkSupported(r *http.Request) error {
	refuse := func(status int, code, name string) error {
		return &httpError{status, code, fmt.Errorf("signedurl: %s of a %s is not supported", name, r.Method)}
	}
	for name, values := range r.Header {
		switch name {
		case "If-None-Match":
			if r.Method != http.MethodPut || len(values) != 1 || strings.TrimSpace(values[0]) != "*" {
				return refuse(http.StatusNotImplemented, "NotImplemented", name)
			}
		case "If-Match", "If-Modified-Since", "If-Unmodified-Since":
			return refuse(http.StatusNotImplemented, "NotImplemented", name)
		case "Content-Encoding":
			if strings.Contains(strings.ToLower(strings.Join(values, ",")), "aws-chunked") {
				return refuse(http.StatusNotImplemented, "NotImplemented", "Content-Encoding aws-chunked")
			}
		case "Content-Range":
			return refuse(http.StatusBadRequest, "InvalidArgument", name)
		}
		// S3's headers, apart from one that CloudFront adds to each request.
		if strings.HasPrefix(name, "X-Amz-") && name != "X-Amz-Cf-Id" {
			return refuse(http.StatusNotImplemented, "NotImplemented", name)
		}
	}
	return nil
}

// delete deletes the object. To delete one that does not exist succeeds, as on S3.
func (h *Handler) delete(w http.ResponseWriter, r *http.Request, p *Permit) error {
	if err := checkSupported(r); err != nil {
		return err
	}
	if err := h.deleteKey(r.Context(), p.Key); err != nil && !cannotHold(err) {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// deleteKey deletes an object. It believes the store's "not found" only if the
// listing agrees, since Google's store also says so to a caller who may not delete. A
// listing that shows the object may show one that was stored meanwhile: that one is
// deleted.
func (h *Handler) deleteKey(ctx context.Context, key string) error {
	for attempt := 1; ; attempt++ {
		err := h.bucket.Delete(ctx, key)
		if gcerrors.Code(err) != gcerrors.NotFound {
			return err
		}
		page, _, listErr := h.bucket.ListPage(ctx, gcblob.FirstPageToken, 1, &gcblob.ListOptions{Prefix: key})
		switch {
		case listErr != nil:
			return listErr
		case len(page) == 0 || page[0].Key != key: // listings are sorted, and key sorts first
			return nil
		case attempt == deleteAttempts:
			return &httpError{http.StatusForbidden, "AccessDenied", fmt.Errorf("signedurl: store lists the object that it did not find: %w", err)}
		}
	}
}

// deleteAttempts is how often a store may say "not found" of an object that it lists.
const deleteAttempts = 5
