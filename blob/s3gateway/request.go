package s3gateway

import (
	"context"
	"io"
	"strings"
	"time"

	"github.com/gofiber/fiber/v3"
	"github.com/valyala/fasthttp"
	"github.com/versity/versitygw/auth"
	"github.com/versity/versitygw/s3api/middlewares"
	"github.com/versity/versitygw/s3api/utils"

	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/sse/s3wire"
)

// request holds what the input of a backend's method lacks: the engine passes on neither
// the headers of encryption nor the user.
type request struct {
	ctx  context.Context
	http *fasthttp.RequestCtx // nil if a program calls the Gateway itself
	form map[string]string    // fields of POST Object; nil in other requests
	tls  bool

	replaces bool // it replaces the object that it reads
}

func (g *Gateway) request(ctx context.Context) *request {
	r := &request{ctx: ctx}
	r.http, _ = ctx.(*fasthttp.RequestCtx)
	if r.http == nil {
		return r
	}
	r.tls = g.opts.BehindTLS || r.http.IsTLS()
	if post, ok := ctx.Value(string(utils.ContextKeyObjectPostResult)).(middlewares.PostObjectResult); ok {
		r.form = post.Fields
		if r.form == nil {
			r.form = map[string]string{}
		}
	}
	return r
}

// values returns the values of a header, or of a form's field. It is an
// [s3wire.Values].
func (r *request) values(name string) []string {
	if r.form != nil {
		for field, value := range r.form {
			if strings.EqualFold(field, name) {
				return []string{value}
			}
		}
		return nil
	}
	if r.http == nil {
		return nil
	}
	var values []string
	for _, value := range r.http.Request.Header.PeekAll(name) {
		values = append(values, string(value))
	}
	return values
}

// condition returns the ETag of a conditional header as the engine does: without quotes,
// or nil if the request lacks the header.
func (r *request) condition(name string) *string {
	values := r.values(name)
	if len(values) == 0 || values[0] == "" {
		return nil
	}
	return ptr(unquote(&values[0]))
}

// setHeader sets a header of the response.
func (r *request) setHeader(name, value string) {
	if r.http != nil {
		r.http.Response.Header.Set(name, value)
	}
}

// keyContext returns a context for calls of the key service. The principal is the
// authenticated user. The call has a time limit, since the engine's own context ends only
// when the server does.
func (g *Gateway) keyContext(r *request) (context.Context, context.CancelFunc) {
	var ctx context.Context = valueless{r.ctx}
	if account, ok := r.ctx.Value(string(utils.ContextKeyAccount)).(auth.Account); ok && account.Access != "" {
		ctx = kms.WithPrincipal(ctx, kms.Principal{ID: account.Access, Type: "User"})
	}
	return context.WithTimeout(ctx, g.opts.KeyTimeout)
}

// drainBody answers a request and then reads the rest of its body, up to a bound. A client
// that still sends when the connection closes sees a reset instead of the answer. The
// engine itself drains 256 KiB.
func drainBody(ctx fiber.Ctx) error {
	err := ctx.Next()
	body := ctx.Request().BodyStream()
	if body == nil || ctx.Request().Header.ContentLength() <= 0 {
		return err
	}
	conn := ctx.RequestCtx().Conn()
	conn.SetReadDeadline(time.Now().Add(drainTime))
	defer conn.SetReadDeadline(time.Time{})
	io.CopyN(io.Discard, body, drainSize)
	return err
}

const (
	drainSize = 16 << 20
	drainTime = 10 * time.Second
)

// valueless hides the values of a context. The engine's values must not be read after a
// request has ended, and the gateway's own calls have no account.
type valueless struct{ context.Context }

func (valueless) Value(any) any { return nil }

// defaultKeyTimeout bounds a call of the key service if Options do not.
const defaultKeyTimeout = 15 * time.Second

var _ s3wire.Values = (&request{}).values
