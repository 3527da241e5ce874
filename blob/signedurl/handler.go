package signedurl

import (
	"cmp"
	"log/slog"
	"net/http"
	"time"

	"github.com/rs/cors"
	gcblob "gocloud.dev/blob"

	"github.com/blobseal/blobseal/kms"
)

// DefaultMaxSize is the largest body of a PUT unless [HandlerOptions] sets
// another limit: 5 GiB, as on S3.
const DefaultMaxSize = 5 << 30

// DefaultIdleTimeout is how long a Handler waits for a client that neither sends
// nor receives: 20 seconds, as S3 does.
const DefaultIdleTimeout = 20 * time.Second

// Handler serves the signed URLs of a bucket. See [NewHandler].
type Handler struct {
	bucket *gcblob.Bucket
	signer *Signer
	opts   HandlerOptions
	cors   *cors.Cors // nil without Origins
}

// HandlerOptions are options for [NewHandler]. Most services leave them nil.
type HandlerOptions struct {
	// MaxSize is the largest body of a PUT in bytes. Zero means [DefaultMaxSize];
	// a negative value means no limit.
	MaxSize int64

	// IdleTimeout is how long the Handler waits for the next bytes of a body, and
	// for the client to receive the next bytes of an object. Zero means
	// [DefaultIdleTimeout]; a negative value means no limit. It replaces the
	// ReadTimeout and WriteTimeout of the server, and needs a ResponseWriter whose
	// deadlines [http.ResponseController] can set.
	IdleTimeout time.Duration

	// Origins are the origins whose scripts may use signed URLs in browsers, such
	// as "https://app.example"; "https://*.app.example" and "*" work too. Nil means
	// none. The Handler then answers preflight requests, and lets scripts read its
	// responses, error responses included.
	Origins []string

	// Principal returns who the request acts for, see [kms.WithPrincipal]. If it
	// is nil or returns the zero Principal, that is the Principal in the URL, if
	// there is one, and else that of the request's ctx.
	Principal func(*http.Request) kms.Principal

	// Logger receives errors of the service at level Error, refused requests at
	// Info, and other failures at Debug. No record contains a URL or a signature.
	// Nil means [slog.Default].
	Logger *slog.Logger
}

// NewHandler returns a handler for the URLs that signer makes. The bucket may be
// any gocloud bucket, encrypted or not; if its objects have encryption contexts,
// pass the view of a [blob.Bucket] that its method With returns. Route base and
// everything under it to the Handler, since the last element of a URL's path is the
// object's file name. Each GET holds a buffer of 256 KiB while it sends, so bound
// the connections of your server, as golang.org/x/net/netutil does.
//
// GET and HEAD support conditional requests and a Range of one part; a request for
// several parts gets the whole object, as on S3. An encrypted object's ETag
// belongs to its content and survives a rewrap. A GET proves where the object ends
// before it sends the last byte, and before it says that a range lies beyond the
// end. HEAD and a 304 report what the store says, and prove nothing.
//
// PUT stores the body once all of it has arrived and fits Content-Length and
// Content-MD5; otherwise it stores nothing. The response of an encrypted bucket has
// the ETag of what was stored. It keeps Content-Type,
// Content-Encoding, Content-Language, Content-Disposition and Cache-Control, and
// honours If-None-Match: *. It refuses, with 501, what it cannot honour: other
// conditions, aws-chunked, and headers such as X-Amz-Meta-* and X-Amz-Checksum-*.
// DELETE of a missing object succeeds.
//
// Responses with an object carry Cache-Control: private, no-cache, no-transform;
// if the object or the URL has a Cache-Control, it replaces the first two. A
// Content-Security-Policy lets browsers show media and SVG, and run no scripts.
//
// A request that no signed URL allows gets 403. Error responses have S3's XML form;
// their code is in [ErrorCodeHeader] too. A key that a key service disabled or
// does not know is 400, one that may not be used 403, and a key service that is
// down 503. A signed URL brings no customer key: SSE-C objects are 400. Damage is
// 500, and is logged as an error.
//
// If an error occurs after the first byte, the Handler panics with
// [http.ErrAbortHandler], so that the client sees a broken response and not a
// short object. Before that it makes further writes fail where the ResponseWriter
// supports deadlines, since some middleware recovers from every panic.
func NewHandler(bucket *gcblob.Bucket, signer *Signer, opts *HandlerOptions) *Handler {
	h := &Handler{bucket: bucket, signer: signer}
	if opts != nil {
		h.opts = *opts
	}
	h.opts.MaxSize = cmp.Or(h.opts.MaxSize, DefaultMaxSize)
	h.opts.IdleTimeout = cmp.Or(h.opts.IdleTimeout, DefaultIdleTimeout)
	if h.opts.Logger == nil {
		h.opts.Logger = slog.Default()
	}
	if len(h.opts.Origins) > 0 {
		h.cors = cors.New(cors.Options{
			AllowedOrigins: h.opts.Origins,
			AllowedMethods: []string{http.MethodGet, http.MethodHead, http.MethodPut, http.MethodDelete},
			AllowedHeaders: []string{"*"},
			ExposedHeaders: []string{
				"Accept-Ranges", "Content-Disposition", "Content-Encoding", "Content-Range", "Etag", ErrorCodeHeader,
			},
			MaxAge: int((10 * time.Minute).Seconds()),
		})
	}
	return h
}

// ServeHTTP implements [http.Handler].
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if h.cors != nil {
		h.cors.HandlerFunc(w, r)
		if r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != "" {
			return // a preflight request
		}
	}
	if key, err := h.serve(w, r); err != nil {
		h.fail(w, r, key, err)
	}
	if h.opts.IdleTimeout > 0 { // for what the server still has in its buffers
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(h.opts.IdleTimeout))
	}
}

// serve responds to the request, or returns an error and the key it is about.
func (h *Handler) serve(w http.ResponseWriter, r *http.Request) (string, error) {
	p, err := h.signer.Verify(r)
	if err != nil {
		return "", err
	}
	r = r.WithContext(kms.WithPrincipal(r.Context(), h.principal(r, p)))
	switch p.Method {
	case http.MethodGet:
		err = h.get(w, r, p)
	case http.MethodPut:
		err = h.put(w, r, p)
	case http.MethodDelete:
		err = h.delete(w, r, p)
	}
	return p.Key, err
}

func (h *Handler) principal(r *http.Request, p *Permit) kms.Principal {
	who := kms.Principal{}
	if h.opts.Principal != nil {
		who = h.opts.Principal(r)
	}
	return cmp.Or(who, p.Principal, kms.PrincipalFrom(r.Context()))
}
