package bucket

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"time"
	"unicode/utf8"

	"github.com/blobseal/blobseal/blob/signedurl"

	"gocloud.dev/blob/driver"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/examples/blobseal/internal/console"
	"github.com/blobseal/blobseal/examples/blobseal/internal/keys"
	"github.com/blobseal/blobseal/examples/blobseal/internal/message"
)

// signerFlags are what a signer and its server agree on.
type signerFlags struct {
	SecretFile string `required:"" group:"urls" placeholder:"FILE" help:"Secret that signs URLs, 32 random bytes; keygen makes one. Whoever has it can sign."`
}

func (f signerFlags) signer(ctx context.Context, base string, accept []string) (*signedurl.Signer, error) {
	u, err := url.Parse(base)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return nil, message.Usagef("--base-url %q: want an http or https URL without a query", base)
	}
	secret, err := keys.ReadKey(ctx, f.SecretFile)
	if err != nil {
		return nil, err
	}
	defer clear(secret)
	opts := new(signedurl.SignerOptions)
	for _, name := range accept {
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
	BaseURL     string        `required:"" group:"urls" name:"base-url" placeholder:"URL" help:"Where the URLs are served: exactly what serve has."`
	Method      string        `enum:"GET,PUT,DELETE" default:"GET" placeholder:"METHOD" help:"What it allows: GET, which is the default and good for HEAD too, PUT or DELETE."`
	Expiry      time.Duration `default:"1h" placeholder:"DURATION" help:"How long it is good for, at most seven days; by default 1h."`
	ContentType string        `placeholder:"TYPE" help:"With PUT: the content type that the request must have; without it, any."`
	Key         string        `arg:"" help:"Object, which need not exist."`
}

func (signCmd) Help() string {
	return `Whoever has the URL may do that one thing with that object, until it expires; it cannot be called back. It needs neither the bucket nor its keys.

    blobseal bucket sign --secret-file url.key --base-url https://photos.example.com/ 2026/cat.jpg
    blobseal bucket sign --secret-file url.key --base-url https://photos.example.com/ --method PUT --content-type image/jpeg --expiry 10m 2026/dog.jpg`
}

func (cmd signCmd) Run(ctx context.Context, c *console.Console) error {
	switch {
	case cmd.Key == "" || !utf8.ValidString(cmd.Key):
		return message.Usagef("%q is no object's key", cmd.Key)
	case cmd.Expiry <= 0 || cmd.Expiry > signedurl.DefaultMaxExpiry:
		return message.Usagef("--expiry %v: want more than 0, and at most %v", cmd.Expiry, signedurl.DefaultMaxExpiry)
	case cmd.ContentType != "" && cmd.Method != http.MethodPut:
		return message.Usagef("--content-type: give --method PUT with it")
	}
	signer, err := cmd.signer(ctx, cmd.BaseURL, nil)
	if err != nil {
		return err
	}
	signed, err := signer.SignedURL(ctx, cmd.Key, &driver.SignedURLOptions{Method: cmd.Method, Expiry: cmd.Expiry, ContentType: cmd.ContentType})
	if err != nil {
		return message.Problemf(err, "%s: %s", cmd.Key, message.Plain(err))
	}
	return c.Printf("%s\n", signed)
}

type serveCmd struct {
	bucketFlags
	keys.Flags
	BucketKey  bool `group:"keys" help:"With --kms: bind the service's data key to the bucket; see encrypt."`
	AllowPlain bool `help:"Serve objects that are not encrypted as they are."`
	signerFlags
	AcceptSecretFile []string      `group:"urls" sep:"none" placeholder:"FILE" help:"Earlier secret, whose URLs are still good; may be repeated."`
	BaseURL          string        `group:"urls" name:"base-url" placeholder:"URL" help:"Where clients reach the server; by default http://ADDR/ of --listen."`
	Listen           string        `default:"127.0.0.1:8080" placeholder:"ADDR" help:"Address to listen on; by default 127.0.0.1:8080. Port 0 is a free one."`
	MaxSize          int64         `default:"5368709120" placeholder:"BYTES" help:"Largest object that is accepted; by default 5 GiB."`
	Grace            time.Duration `default:"30s" placeholder:"DURATION" help:"How long requests may take to end, when the server is interrupted; by default 30s."`
	JSON             bool          `name:"json" help:"Write the log as JSON, one object a line."`
}

func (serveCmd) Help() string {
	return `Clients read with GET and HEAD, with ranges and conditions, write with PUT and remove with DELETE: what each URL allows, and nothing else. What they get and send is plaintext, so put a server with TLS in front, and give its address as --base-url. Objects under customer keys are not served.

A bucket with objects of several modes takes a ring and a key service, as check does; new objects are sealed under the ring.

The log goes to standard output, a line for each request; it never holds a URL's signature. An interrupt ends the server when the requests under way are through, with exit code 0.

    blobseal keygen url.key
    blobseal bucket serve --bucket file:///srv/photos --ring my.ring --root-key-file root.key --secret-file url.key
    curl "$(blobseal bucket sign --secret-file url.key --base-url http://127.0.0.1:8080/ 2026/cat.jpg)"`
}

func (cmd serveCmd) Run(ctx context.Context, c *console.Console) error {
	sources := cmd.Sources()
	switch {
	case cmd.CustomerKeyFile != "":
		return message.Usagef("customer keys do not come with a URL: give --ring or --kms")
	case cmd.BucketKey && cmd.KMS == "":
		return message.Usagef("--bucket-key: give --kms with it")
	case cmd.MaxSize <= 0:
		return message.Usagef("--max-size %d: want 1 or more", cmd.MaxSize)
	case cmd.Grace < 0:
		return message.Usagef("--grace %v: want 0 or more", cmd.Grace)
	}
	for i := range sources {
		sources[i].BucketKey = cmd.BucketKey && sources[i].KMS != ""
	}
	if err := keys.CheckAll(sources); err != nil {
		return err
	}
	if _, _, err := net.SplitHostPort(cmd.Listen); err != nil {
		return message.Usagef("--listen %q: want HOST:PORT", cmd.Listen)
	}
	serving := context.WithoutCancel(keys.AsPrincipal(ctx, cmd.Principal)) // requests end by themselves
	all, err := keys.OpenAll(serving, c, sources)
	if err != nil {
		return err
	}
	defer keys.CloseAll(all)
	b, err := cmd.bucketFlags.open(serving, blob.Options{AllowPlain: cmd.AllowPlain}, all...)
	if err != nil {
		return err
	}
	defer b.Close()
	listener, err := net.Listen("tcp", cmd.Listen)
	if err != nil {
		reason := err
		if op := new(net.OpError); errors.As(err, &op) {
			reason = op.Err
		}
		return message.Problemf(err, "--listen %s: %s", cmd.Listen, message.Plain(reason))
	}
	defer listener.Close()
	base := cmd.BaseURL
	if base == "" {
		base = "http://" + listener.Addr().String() + "/"
	}
	signer, err := cmd.signer(ctx, base, cmd.AcceptSecretFile)
	if err != nil {
		return err
	}
	opts := &slog.HandlerOptions{ReplaceAttr: errorText}
	var logs slog.Handler = slog.NewTextHandler(c.Stdout, opts)
	if cmd.JSON {
		logs = slog.NewJSONHandler(console.PlainJSON(c.Stdout), opts)
	}
	logger := slog.New(logs)
	server := &http.Server{
		Handler:           accessLog(logger, signer, signedurl.NewHandler(b.Bucket.Bucket, signer, &signedurl.HandlerOptions{MaxSize: cmd.MaxSize, Logger: logger})),
		BaseContext:       func(net.Listener) context.Context { return serving },
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		ErrorLog:          slog.NewLogLogger(logs, slog.LevelWarn),
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	logger.Info("serving", "bucket", b.shown, "name", b.Name(), "base_url", base, "listen", listener.Addr().String())
	select {
	case err := <-ended:
		return message.Problemf(err, "--listen %s: %s", cmd.Listen, message.Plain(err))
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(serving, cmd.Grace)
	defer cancel()
	if err := server.Shutdown(grace); err != nil {
		server.Close()
		return message.Problemf(err, "requests did not end within %v, and were cut off", cmd.Grace)
	}
	logger.Info("stopped")
	return nil
}

// errorText makes an error its text, as it would be for %v: slog would use %+v, for
// which gocloud's errors list calls and source files.
func errorText(_ []string, a slog.Attr) slog.Attr {
	if err, is := a.Value.Any().(error); is {
		a.Value = slog.StringValue(err.Error())
	}
	return a
}

// accessLog logs each request, without its URL: whoever has that may use it.
func accessLog(logger *slog.Logger, signer *signedurl.Signer, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		begin := time.Now()
		seen := &answer{ResponseWriter: w}
		key := ""
		if permit, err := signer.Verify(r); err == nil {
			key = permit.Key
		}
		cut := true
		defer func() {
			logger.Info("request", "method", r.Method, "key", key, "status", seen.status, "code", w.Header().Get(signedurl.ErrorCodeHeader), "bytes", seen.bytes, "cut", cut,
				"duration", time.Since(begin).Round(time.Microsecond).String(), "remote", r.RemoteAddr)
		}()
		next.ServeHTTP(seen, r)
		cut = false // it did not panic, as it does when an object proves to be damaged
		if seen.status == 0 {
			seen.status = http.StatusOK
		}
	})
}

// answer takes note of what is answered.
type answer struct {
	http.ResponseWriter
	status int
	bytes  int64
}

func (a *answer) WriteHeader(status int) {
	if a.status == 0 || a.status < 200 {
		a.status = status
	}
	a.ResponseWriter.WriteHeader(status)
}

func (a *answer) Write(p []byte) (int, error) {
	if a.status == 0 {
		a.status = http.StatusOK
	}
	n, err := a.ResponseWriter.Write(p)
	a.bytes += int64(n)
	return n, err
}

// Unwrap lets [http.ResponseController] reach what is below.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }
