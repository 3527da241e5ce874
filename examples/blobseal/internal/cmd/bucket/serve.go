package bucket

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"time"

	gcblob "gocloud.dev/blob"

	"golang.org/x/net/netutil"

	"github.com/blobseal/blobseal/blob/signedurl"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/examples/blobseal/internal/console"
	"github.com/blobseal/blobseal/examples/blobseal/internal/keys"
	"github.com/blobseal/blobseal/examples/blobseal/internal/message"
)

type serveCmd struct {
	bucketFlags
	keys.OpenFlags
	BucketKey  bool `group:"keys" help:"With --kms: bind the service's data key to the bucket (see encrypt)."`
	AllowPlain bool `help:"Serve objects that are not encrypted, too."`
	signerFlags
	AcceptSecretFile []string      `group:"urls" sep:"none" placeholder:"FILE" help:"Earlier secret, whose URLs still work. May be repeated."`
	BaseURL          string        `group:"urls" name:"base-url" placeholder:"URL" help:"Where clients reach the server; by default http://ADDR/ of --listen."`
	Listen           string        `default:"127.0.0.1:8080" placeholder:"ADDR" help:"Address to listen on; by default 127.0.0.1:8080. Port 0 picks a free port."`
	StatusListen     string        `placeholder:"ADDR" help:"Address that answers /healthz and /metrics, for monitoring; by default none. Keep it private."`
	MaxSize          int64         `default:"5368709120" placeholder:"BYTES" help:"Largest object to accept; by default 5 GiB."`
	AllowOrigin      []string      `sep:"none" placeholder:"ORIGIN" help:"Origin whose scripts may use URLs, such as https://app.example.com; * is any. May be repeated."`
	MaxConnections   int           `default:"1000" placeholder:"N" help:"Connections at a time, of up to 300 KB each; further clients wait. By default 1000."`
	Grace            time.Duration `default:"30s" placeholder:"DURATION" help:"Time to complete requests after an interrupt; by default 30s."`
}

func (cmd serveCmd) Run(ctx context.Context, c *console.Console) error {
	sources, err := cmd.sources()
	if err != nil {
		return err
	}
	serving := context.WithoutCancel(keys.AsPrincipal(ctx, cmd.Principal)) // requests outlive an interrupt
	state, err := newStatus(c)
	if err != nil {
		return err
	}
	all, err := keys.OpenAll(serving, c, sources)
	if err != nil {
		return err
	}
	defer keys.CloseAll(all)
	state.observe(c.Telemetry, all)
	b, err := cmd.bucketFlags.open(serving, blob.Options{AllowPlain: cmd.AllowPlain}, all...)
	if err != nil {
		return err
	}
	defer b.Close()
	listener, err := listen("--listen", cmd.Listen)
	if err != nil {
		return err
	}
	listener = netutil.LimitListener(listener, cmd.MaxConnections)
	defer listener.Close()
	base := cmp.Or(cmd.BaseURL, "http://"+listener.Addr().String()+"/")
	signer, err := cmd.signer(ctx, c, base, cmd.AcceptSecretFile)
	if err != nil {
		return err
	}
	logger := cmd.logger(c)
	server := cmd.server(serving, b.Bucket.Bucket, signer, logger)
	attrs := []any{"bucket", b.shown, "name", b.Name(), "base_url", base, "listen", listener.Addr().String()}
	if state.bucket = b; cmd.StatusListen != "" {
		stop, address, err := state.serve(cmd.StatusListen, logger)
		if err != nil {
			return err
		}
		defer stop()
		attrs = append(attrs, "status_listen", address)
	}
	defer runKeys(serving, all)()
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	logger.Info("serving", attrs...)
	select {
	case err := <-ended:
		return message.Problemf(err, "", "--listen %s: %s", cmd.Listen, message.Plain(err))
	case <-ctx.Done():
	}
	state.stopping.Store(true) // load balancers send no new requests
	return cmd.stop(server, logger)
}

// stop waits for requests to end, and cuts off those that take too long.
func (cmd serveCmd) stop(server *http.Server, logger *slog.Logger) error {
	grace, cancel := context.WithTimeout(context.Background(), cmd.Grace)
	defer cancel()
	if err := server.Shutdown(grace); err != nil {
		server.Close()
		return message.Problemf(nil, "", "requests did not end within %v, and were cut off", cmd.Grace)
	}
	logger.Info("stopped")
	return nil
}

// sources returns the keys to open.
func (cmd serveCmd) sources() ([]keys.Source, error) {
	sources := cmd.Sources()
	for i := range sources {
		sources[i].BucketKey = cmd.BucketKey && sources[i].KMS != ""
	}
	return sources, cmp.Or(cmd.check(), keys.CheckAll(sources))
}

// check refuses flags that make no sense.
func (cmd serveCmd) check() error {
	switch {
	case cmd.CustomerKeyFile != "":
		return message.Usagef("a URL has no customer key: give --ring or --kms")
	case cmd.KMS != "" && len(cmd.KMSKey) == 0 && !cmd.AnyKMSKey:
		return message.Usagef("--kms: give --kms-key with it, which objects must be under, or --any-kms-key")
	case cmd.BucketKey && cmd.KMS == "":
		return message.Usagef("--bucket-key: give --kms with it")
	case cmd.MaxSize <= 0:
		return message.Usagef("--max-size %d: want 1 or more", cmd.MaxSize)
	case cmd.MaxConnections <= 0:
		return message.Usagef("--max-connections %d: want 1 or more", cmd.MaxConnections)
	case cmd.Grace < 0:
		return message.Usagef("--grace %v: want 0 or more", cmd.Grace)
	}
	for _, origin := range cmd.AllowOrigin {
		if u, err := url.Parse(origin); origin != "*" && (err != nil || u.Host == "" || origin != u.Scheme+"://"+u.Host) {
			return message.Usagef("--allow-origin %q: want * or an origin such as https://app.example.com", origin)
		}
	}
	if _, _, err := net.SplitHostPort(cmd.StatusListen); cmd.StatusListen != "" && err != nil {
		return message.Usagef("--status-listen %q: want HOST:PORT", cmd.StatusListen)
	}
	if _, _, err := net.SplitHostPort(cmd.Listen); err != nil {
		return message.Usagef("--listen %q: want HOST:PORT", cmd.Listen)
	}
	return nil
}

// listen listens on the address that a flag names.
func listen(flag, address string) (net.Listener, error) {
	listener, err := net.Listen("tcp", address)
	if err == nil {
		return listener, nil
	}
	reason := err
	if op, ok := errors.AsType[*net.OpError](err); ok {
		reason = op.Err
	}
	return nil, message.Problemf(err, "", "%s %s: %s", flag, address, message.Plain(reason))
}

// server returns the server, whose requests have the values of ctx. It cuts clients
// that make it wait: the Handler those of bodies, the server all others.
func (cmd serveCmd) server(ctx context.Context, b *gcblob.Bucket, signer *signedurl.Signer, logger *slog.Logger) *http.Server {
	handler := signedurl.NewHandler(b, signer, &signedurl.HandlerOptions{
		MaxSize: cmd.MaxSize,
		Origins: cmd.AllowOrigin,
		Logger:  logger,
	})
	return &http.Server{
		Handler:           accessLog(logger, signer, handler),
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       30 * time.Second,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(logger.Handler(), slog.LevelWarn),
	}
}

func (cmd serveCmd) logger(c *console.Console) *slog.Logger {
	opts := &slog.HandlerOptions{ReplaceAttr: replaceError}
	if c.JSON {
		return slog.New(slog.NewJSONHandler(console.PlainJSON(c.Stdout), opts))
	}
	return slog.New(slog.NewTextHandler(c.Stdout, opts))
}

// replaceError replaces an error by its text. slog would format it with %+v, for which Go
// CDK's errors list calls and source files.
func replaceError(_ []string, a slog.Attr) slog.Attr {
	if err, is := a.Value.Any().(error); is {
		a.Value = slog.StringValue(err.Error())
	}
	return a
}
