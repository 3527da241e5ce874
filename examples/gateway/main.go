// Gateway is an S3 server that encrypts what it stores in a directory. It brings
// everything that it needs: a key ring, a key service, a certificate and one user.
//
//	cd examples/gateway
//	GOWORK=off go run . --dir /srv/gateway
//
// It makes what is missing in the directory, and prints the lines that aws-cli needs.
// Several gateways on one directory act as one service: give each of the others
// another --listen and --audit. With --inner, another S3 server takes the objects.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/versity/versitygw/embedgw"
	"github.com/versity/versitygw/s3api"

	"github.com/blobseal/blobseal/blob/s3gateway"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/audit"
	"github.com/blobseal/blobseal/kms/localkms"
	"github.com/blobseal/blobseal/sse"
	"github.com/blobseal/blobseal/sse/s3wire"
)

// config is what the flags say.
type config struct {
	dir, listen, audit, inner string
	allowPlain                bool
}

func (c config) path(name string) string { return filepath.Join(c.dir, name) }

func main() {
	log.SetFlags(0)
	var c config
	flag.StringVar(&c.dir, "dir", "gateway", "`directory` of objects, keys and accounts")
	flag.StringVar(&c.listen, "listen", "127.0.0.1:7070", "`address` of the server")
	flag.StringVar(&c.audit, "audit", "", "`file` of the audit trail; audit.jsonl in the directory if not given")
	flag.StringVar(&c.inner, "inner", "", "`URL` of another S3 server that takes the objects in place of the directory; its keys are in INNER_ACCESS_KEY_ID and INNER_SECRET_ACCESS_KEY")
	flag.BoolVar(&c.allowPlain, "allow-plain", false, "serve objects that are not encrypted, such as older ones")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, c); err != nil && ctx.Err() == nil {
		log.Fatal(err)
	}
}

// run prepares the directory and serves until ctx ends.
func run(ctx context.Context, c config) error {
	dir, err := filepath.Abs(c.dir) // the engine changes the working directory
	if err != nil {
		return err
	}
	c.dir = dir
	if c.audit == "" {
		c.audit = c.path("audit.jsonl")
	} else if c.audit, err = filepath.Abs(c.audit); err != nil {
		return err
	}
	for _, name := range []string{"objects", "versions", "accounts"} {
		if err := os.MkdirAll(c.path(name), 0o700); err != nil {
			return err
		}
	}
	admin, err := adminOf(c)
	if err != nil {
		return err
	}
	if err := certificate(c); err != nil {
		return err
	}
	gateway, closeTrail, err := open(ctx, c)
	if err != nil {
		return err
	}
	defer closeTrail()
	return gateway.Run(ctx, embedgw.Config{
		RootUserAccess: admin.Access, RootUserSecret: admin.Secret, IAMDir: c.path("accounts"),
		Ports: []string{c.listen}, CertFile: c.path("tls.crt"), KeyFile: c.path("tls.key"), Quiet: true,
		S3Options: []s3api.Option{s3api.WithOnListen(func() { greet(c, admin) })},
	})
}

// open opens the keys and the objects. The caller calls closeTrail in the end, so
// that the last records of the audit trail are written.
func open(ctx context.Context, c config) (gateway *s3gateway.Gateway, closeTrail func(), err error) {
	root, err := rootOf(c)
	if err != nil {
		return nil, nil, err
	}
	ring, err := ringOf(ctx, c, root)
	if err != nil {
		return nil, nil, err
	}
	sink, err := audit.OpenFileSink(c.audit, nil)
	if err != nil {
		return nil, nil, err
	}
	closeTrail = func() {
		if err := sink.Close(); err != nil {
			log.Print(err)
		}
	}
	service, err := serviceOf(ctx, c, root, sink)
	if err != nil {
		return nil, nil, errors.Join(err, sink.Close())
	}
	client, err := service.Client("", "")
	if err != nil {
		return nil, nil, errors.Join(err, sink.Close())
	}
	// The cache serves objects with a bucket key. The trail is in front of it, so that
	// it has every use of a key.
	keyService := audit.NewClient(kms.NewCache(client, nil), sink)
	managed := sse.NewManaged(ring)
	keys, err := s3wire.NewKeys(s3wire.KeysOptions{
		Managed: managed, KMS: keyService, DefaultKey: localkms.DefaultAlias, Accept: sse.AnyKey,
	})
	if err != nil {
		return nil, nil, errors.Join(err, sink.Close())
	}
	store, err := storeOf(ctx, c)
	if err != nil {
		return nil, nil, errors.Join(err, sink.Close())
	}
	gateway, err = s3gateway.New(ctx, store, keys, managed, &s3gateway.Options{AllowPlain: c.allowPlain})
	if err != nil {
		return nil, nil, errors.Join(err, sink.Close())
	}
	go ring.Run(ctx)
	go service.Run(ctx)
	return gateway, closeTrail, nil
}

// greet prints how to use the gateway.
func greet(c config, admin account) {
	fmt.Printf(`The gateway serves https://%s. For aws-cli:

export AWS_ENDPOINT_URL=https://%s
export AWS_CA_BUNDLE=%s
export AWS_ACCESS_KEY_ID=%s
export AWS_SECRET_ACCESS_KEY=%s
export AWS_DEFAULT_REGION=us-east-1

aws s3 mb s3://photos
aws s3 cp cat.jpg s3://photos/cat.jpg                    # SSE-S3
aws s3 cp cat.jpg s3://photos/cat.jpg --sse aws:kms      # SSE-KMS; see %s
aws s3 cp s3://photos/cat.jpg copy.jpg

Until a client knows AWS_ENDPOINT_URL: --endpoint-url https://%s
`, c.listen, c.listen, c.path("tls.crt"), admin.Access, admin.Secret, c.audit, c.listen)
}
