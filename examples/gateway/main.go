// Gateway is an S3 server that encrypts what it stores in a directory. It brings
// everything that it needs: a key ring, a key service, a certificate and one user.
//
//	cd examples/gateway
//	GOWORK=off go run . --dir /srv/gateway
//
// In a new directory it makes all that, and prints the lines that aws-cli needs.
// Several gateways act as one service. Other S3 servers, PostgreSQL, etcd and vendors'
// key services can take what the directory holds: README.md says how, and how to back up,
// rotate and rewrap.
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
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms/audit"
	"github.com/blobseal/blobseal/kms/cache"
	"github.com/blobseal/blobseal/sse"
	"github.com/blobseal/blobseal/sse/s3wire"
)

// config is what the flags say.
type config struct {
	dir, listen, audit, inner   string
	ring, keyService            string
	rootKeyFile, passphraseFile string
	rootKMSKey                  string
	anyKey, allowPlain          bool
	create, rotate              bool
}

func (c config) path(name string) string { return filepath.Join(c.dir, name) }

func main() {
	log.SetFlags(0)
	var c config
	flag.StringVar(&c.dir, "dir", "gateway", "`directory` of objects, keys and accounts")
	flag.StringVar(&c.listen, "listen", "127.0.0.1:7070", "`address` of the server")
	flag.StringVar(&c.audit, "audit", "", "`file` of the audit trail; audit.jsonl in the directory if not given")
	flag.StringVar(&c.inner, "inner", "", "`URL` of another S3 server that takes the objects in place of the directory; its keys are in INNER_ACCESS_KEY_ID and INNER_SECRET_ACCESS_KEY, its region in INNER_REGION")
	flag.StringVar(&c.ring, "ring", "", "key `ring`: "+documentsHelp+"; objects.ring in the directory if not given")
	flag.StringVar(&c.keyService, "key-service", "", "key `service`: "+documentsHelp+" of the embedded one, or the URL of the default key at a vendor's, such as awskms:///alias/photos, gcpkms://, azurekeyvault:// or hashivault://; kms in the directory if not given")
	flag.BoolVar(&c.anyKey, "any-kms-key", false, "let objects be under every key that a vendor's key service lets the gateway use: only if nobody else who can write to the store has such a key")
	flag.StringVar(&c.rootKeyFile, "root-key-file", "", "`file` with the root key of ring and key service; root.key in the directory if not given")
	flag.StringVar(&c.passphraseFile, "passphrase-file", "", "`file` with a passphrase in place of the root key; or set BLOBSEAL_PASSPHRASE")
	flag.StringVar(&c.rootKMSKey, "root-kms-key", "", "`URL` of a key at a vendor's key service in place of the root key")
	flag.BoolVar(&c.allowPlain, "allow-plain", false, "serve objects that are not encrypted, such as older ones")
	flag.BoolVar(&c.create, "create", false, "create ring and key service where they are missing: for the first gateway of a store; needless for those in a new directory")
	flag.BoolVar(&c.rotate, "rotate", false, "add a version to the ring, and end")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, c); err != nil { // none if ctx ends the server
		log.Fatal(err)
	}
}

// run does what the flags say.
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
	if flag.NArg() > 0 {
		return fmt.Errorf("%s: not a flag (see --help)", flag.Arg(0))
	}
	switch {
	case c.rotate && c.create:
		return errors.New("--rotate creates nothing: give no --create with it")
	case c.rotate:
		return rotate(ctx, c)
	}
	return serve(ctx, c)
}

// serve makes what is missing, and serves until ctx ends.
func serve(ctx context.Context, c config) error {
	ringAt, keysAt, err := findDocuments(ctx, c)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return err
	}
	root, err := openRoot(ctx, c, ringAt.missing && (keysAt.missing || !c.embedded()))
	if err != nil {
		return err
	}
	admin, err := adminOf(c)
	if err != nil {
		return err
	}
	if err := certificate(c); err != nil {
		return err
	}
	trail, err := audit.OpenFileSink(c.audit, nil)
	if err != nil {
		return fmt.Errorf("--audit: %w", err)
	}
	defer func() { // writes the last records
		if err := trail.Close(); err != nil {
			log.Print(err)
		}
	}()
	ring, err := ringOf(ctx, ringAt, root)
	if err != nil {
		return err
	}
	service, err := keyServiceOf(ctx, c, keysAt, root, trail)
	if err != nil {
		return err
	}
	for _, name := range []string{"accounts", "versions", "objects"} { // objects last: see findDocuments
		if err := os.MkdirAll(c.path(name), 0o700); err != nil {
			return err
		}
	}
	gateway, err := open(ctx, c, ring, s3wire.KeysOptions{
		DefaultKey: service.defaultKey, Accept: service.accept,
		// The cache serves objects with a bucket key. The trail is in front of it, so
		// that it has every use of a key.
		KMS: audit.NewClient(cache.New(service.client, nil), trail),
	})
	if err != nil {
		return err
	}
	go ring.Run(ctx)
	go service.run(ctx)
	return gateway.Run(ctx, embedgw.Config{
		RootUserAccess: admin.Access, RootUserSecret: admin.Secret, IAMDir: c.path("accounts"),
		Ports: []string{c.listen}, CertFile: c.path("tls.crt"), KeyFile: c.path("tls.key"), Quiet: true,
		S3Options: []s3api.Option{s3api.WithOnListen(func() { greet(c, admin) })},
	})
}

// open opens the objects, which the ring and the keys of opts encrypt.
func open(ctx context.Context, c config, ring *keyring.Ring, opts s3wire.KeysOptions) (*s3gateway.Gateway, error) {
	managed := sse.NewManaged(ring)
	opts.Managed = managed
	keys, err := s3wire.NewKeys(opts)
	if err != nil {
		return nil, err
	}
	store, err := storeOf(ctx, c)
	if err != nil {
		return nil, err
	}
	return s3gateway.New(ctx, store, keys, managed, &s3gateway.Options{AllowPlain: c.allowPlain})
}

// rotate adds a version to the ring, and seals the configurations of buckets under it.
// Running gateways use the version from then on. Objects stay as they are. It creates no
// ring, and rotates only what it could open with the objects.
func rotate(ctx context.Context, c config) error {
	needs := []string{c.dir}
	if c.inner == "" {
		needs = append(needs, c.path("objects"))
	}
	for _, dir := range needs {
		if _, err := os.Stat(dir); err != nil {
			return fmt.Errorf("--dir: %w (start the gateway once, or check --dir)", err)
		}
	}
	ringAt, err := ringDocument(ctx, c)
	if err != nil {
		return err
	}
	if ringAt.missing {
		return fmt.Errorf("--ring: no such ring: %s (start the gateway once, or check --dir and --ring)", ringAt.at)
	}
	root, err := openRoot(ctx, c, false)
	if err != nil {
		return err
	}
	ring, err := ringOf(ctx, ringAt, root)
	if err != nil {
		return err
	}
	gateway, err := open(ctx, c, ring, s3wire.KeysOptions{})
	if err != nil {
		return err
	}
	version, err := ring.Rotate(ctx)
	if err != nil {
		return fmt.Errorf("--ring: %w", err)
	}
	fmt.Println("The newest version is", version.ID)
	if err := gateway.RewrapConfigurations(ctx); err != nil {
		return fmt.Errorf("the ring is rotated, but some configurations of buckets are not under its newest version (give --rotate again): %w", err)
	}
	return nil
}

// greet prints how to use the gateway. Its log gets the secret once.
func greet(c config, admin account) {
	secret := "export AWS_SECRET_ACCESS_KEY=" + admin.Secret
	if info, err := os.Stdout.Stat(); !admin.isNew && (err != nil || info.Mode()&os.ModeCharDevice == 0) {
		secret = "# AWS_SECRET_ACCESS_KEY is Secret in " + c.path("admin.json")
	}
	fmt.Printf(`The gateway serves https://%s. For aws-cli:

export AWS_ENDPOINT_URL=https://%s
export AWS_CA_BUNDLE=%s
export AWS_ACCESS_KEY_ID=%s
%s
export AWS_DEFAULT_REGION=us-east-1

aws s3 mb s3://photos
aws s3 cp cat.jpg s3://photos/cat.jpg                    # SSE-S3
aws s3 cp cat.jpg s3://photos/cat.jpg --sse aws:kms      # SSE-KMS; see %s
aws s3 cp s3://photos/cat.jpg copy.jpg

Until a client knows AWS_ENDPOINT_URL: --endpoint-url https://%s
`, c.listen, c.listen, c.path("tls.crt"), admin.Access, secret, c.audit, c.listen)
}
