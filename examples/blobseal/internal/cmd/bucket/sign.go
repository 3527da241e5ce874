package bucket

import (
	"context"
	"net/http"
	"net/url"
	"time"
	"unicode/utf8"

	"github.com/blobseal/blobseal/blob/signedurl"

	"github.com/blobseal/blobseal/examples/blobseal/internal/console"
	"github.com/blobseal/blobseal/examples/blobseal/internal/keys"
	"github.com/blobseal/blobseal/examples/blobseal/internal/message"
)

// signerFlags are the flags that sign and serve share.
type signerFlags struct {
	SecretFile string `required:"" group:"urls" placeholder:"FILE" help:"Secret that signs URLs: a key file, as keygen makes it."`
}

func (f signerFlags) signer(ctx context.Context, c *console.Console, base string, accept []string) (*signedurl.Signer, error) {
	u, err := url.Parse(base)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return nil, message.Usagef("--base-url %q: want an http or https URL without a query", base)
	}
	c.WarnIfPublic(f.SecretFile)
	secret, err := keys.ReadKey(ctx, f.SecretFile)
	if err != nil {
		return nil, err
	}
	defer clear(secret)
	opts := new(signedurl.SignerOptions)
	for _, name := range accept {
		c.WarnIfPublic(name)
		old, err := keys.ReadKey(ctx, name)
		if err != nil {
			return nil, err
		}
		defer clear(old)
		opts.Accept = append(opts.Accept, old)
	}
	signer, err := signedurl.NewSigner(u, secret, opts)
	if err != nil {
		return nil, message.Usagef("--base-url %q: %s", base, message.Plain(err))
	}
	return signer, nil
}

type signCmd struct {
	signerFlags
	BaseURL     string        `required:"" group:"urls" name:"base-url" placeholder:"URL" help:"Where clients reach serve: the same as its --base-url."`
	Method      string        `enum:"GET,PUT,DELETE" default:"GET" placeholder:"METHOD" help:"What the URL allows: GET (and HEAD), which is the default, PUT or DELETE."`
	Expiry      time.Duration `default:"1h" placeholder:"DURATION" help:"How long the URL works, at most seven days; by default 1h."`
	ContentType string        `placeholder:"TYPE" help:"With PUT: the content type that the request must have."`
	MaxSize     int64         `placeholder:"BYTES" help:"With PUT: the largest body; without it, the server's limit."`
	IfMatch     string        `placeholder:"ETAG" help:"With GET: serve the object only while it has this ETag."`
	Response    struct {
		ContentType        string `placeholder:"TYPE" help:"With GET: Content-Type of the response."`
		ContentDisposition string `placeholder:"VALUE" help:"With GET: Content-Disposition of the response, such as attachment."`
		CacheControl       string `placeholder:"VALUE" help:"With GET: Cache-Control of the response."`
	} `embed:"" prefix:"response-"`
	Key string `arg:"" help:"Object, which need not exist."`
}

func (cmd signCmd) Run(ctx context.Context, c *console.Console) error {
	switch {
	case cmd.Key == "" || !utf8.ValidString(cmd.Key):
		return message.Usagef("%q is no object's key", cmd.Key)
	case cmd.Expiry <= 0 || cmd.Expiry > signedurl.DefaultMaxExpiry:
		return message.Usagef("--expiry %v: want more than 0, and at most %v", cmd.Expiry, signedurl.DefaultMaxExpiry)
	case (cmd.ContentType != "" || cmd.MaxSize != 0) && cmd.Method != http.MethodPut:
		return message.Usagef("--content-type, --max-size: give --method PUT with them")
	case (cmd.IfMatch != "" || cmd.Response != signCmd{}.Response) && cmd.Method != http.MethodGet:
		return message.Usagef("--if-match, --response-...: these are for --method GET")
	}
	signer, err := cmd.signer(ctx, c, cmd.BaseURL, nil)
	if err != nil {
		return err
	}
	signed, err := signer.Sign(&signedurl.Permit{
		Key:                        cmd.Key,
		Method:                     cmd.Method,
		Expires:                    time.Now().Add(cmd.Expiry),
		ContentType:                cmd.ContentType,
		MaxSize:                    cmd.MaxSize,
		IfMatch:                    cmd.IfMatch,
		ResponseContentType:        cmd.Response.ContentType,
		ResponseContentDisposition: cmd.Response.ContentDisposition,
		ResponseCacheControl:       cmd.Response.CacheControl,
	})
	if err != nil {
		return message.Problemf(err, cmd.Key, "%s", message.Plain(err))
	}
	if c.JSON {
		return c.WriteLine(map[string]string{"url": signed.String()})
	}
	return c.Printf("%s\n", signed)
}
