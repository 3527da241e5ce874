package main

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"os"
	"strings"

	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/localkms"
	"github.com/blobseal/blobseal/sse"
)

const keySize = 32

type keygenCmd struct {
	File string `arg:"" help:"File to make; an existing one is never overwritten."`
}

func (keygenCmd) Help() string {
	return `A key file is the root of a ring or a key service (--root-key-file) or a customer key (--customer-key-file). Whoever has it can open what it seals, and without it nobody can: keep a copy in a safe place.

    blobseal keygen root.key`
}

func (cmd keygenCmd) Run(ctx context.Context, c *console) error {
	return generateKey(ctx, c, cmd.File)
}

// generateKey makes a key file. An error leaves none behind.
func generateKey(ctx context.Context, c *console, name string) error {
	if name == "-" {
		return usagef("a key goes to a file, not to standard output")
	}
	out, err := c.create(ctx, name, 0o600, false)
	if err != nil {
		return err
	}
	defer out.discard()
	if !out.atomic() {
		return problemf(nil, "%s: not a regular file", name)
	}
	key := make([]byte, keySize)
	rand.Read(key)
	if _, err := out.Write(key); err != nil {
		return err
	}
	return out.commit()
}

// keyFlags name the keys of a file: a ring, a key service, or a customer key.
type keyFlags struct {
	Ring            string `group:"keys" placeholder:"FILE" help:"Key ring (SSE-S3)."`
	KMS             string `name:"kms" group:"keys" placeholder:"DIR" help:"Key service (SSE-KMS)."`
	KMSKey          string `name:"kms-key" group:"keys" placeholder:"KEY" help:"The service's key, as its id, ARN or alias: to encrypt under, by default alias/blobseal/default; otherwise the one that files must be under."`
	Principal       string `group:"keys" placeholder:"ID" help:"Who asks the service, for its policies and its audit trail; by default user:NAME, the user that you are."`
	RootKeyFile     string `group:"keys" placeholder:"FILE" help:"Root key of the ring or the service: 32 bytes, as they are or in hex or base64."`
	PassphraseFile  string `group:"keys" placeholder:"FILE" help:"Passphrase of the ring or the service, without its line end. Or set BLOBSEAL_PASSPHRASE."`
	RootKMSKey      string `name:"root-kms-key" group:"keys" placeholder:"URL" help:"Root key of the ring or the service in a key service, such as awskms:///alias/rings; see ring."`
	CustomerKeyFile string `group:"keys" placeholder:"FILE" help:"Customer key (SSE-C): 32 bytes, as they are or in hex or base64."`
}

func (f keyFlags) source() keySource {
	return keySource{
		ring:      f.Ring,
		kms:       f.KMS,
		kmsKey:    f.KMSKey,
		principal: f.Principal,
		root:      rootSource{f.RootKeyFile, f.PassphraseFile, f.RootKMSKey, "", "BLOBSEAL_PASSPHRASE"},
		customer:  f.CustomerKeyFile,
	}
}

// readSmall reads a file that holds one key or passphrase.
func readSmall(ctx context.Context, name string) ([]byte, error) {
	const limit = 4096
	text, err := abandon(ctx, func() ([]byte, error) {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		return io.ReadAll(io.LimitReader(f, limit+1))
	})
	if err != nil {
		return nil, about(name, err)
	}
	if len(text) > limit {
		return nil, problemf(nil, "%s: more than %d bytes, too long for a key or a passphrase", name, limit)
	}
	return text, nil
}

// readKey reads a key file.
func readKey(ctx context.Context, name string) ([]byte, error) {
	text, err := readSmall(ctx, name)
	if err != nil {
		return nil, err
	}
	defer clear(text)
	key, err := keyring.ParseKey(text)
	switch {
	case err == nil:
		return key, nil
	case len(text) == keySize:
		return nil, problemf(err, "%s: not a key: its %d bytes are text, and a key is random; make one with: blobseal keygen FILE", name, keySize)
	}
	return nil, problemf(err, "%s: not a key: it holds %d bytes, and a key is %d, or these in hex or base64", name, len(text), keySize)
}

// keySource is where a file's key comes from. The prefix of its flags is root's.
type keySource struct {
	ring        string
	kms, kmsKey string
	bucketKey   bool
	principal   string
	root        rootSource
	customer    string
}

func (s keySource) check() error {
	prefix := s.root.prefix
	var given []string
	for _, source := range []struct{ flag, value string }{{"ring", s.ring}, {"kms", s.kms}, {"customer-key-file", s.customer}} {
		if source.value != "" {
			given = append(given, "--"+prefix+source.flag)
		}
	}
	switch {
	case len(given) > 1:
		return usagef("%s: give one of them only", strings.Join(given, " and "))
	case s.kms == "" && s.kmsKey != "":
		return usagef("--%skms-key: give --%[1]skms with it", prefix)
	case s.kms == "" && s.bucketKey:
		return usagef("--%sbucket-key: give --%[1]skms with it", prefix)
	case s.kms == "" && !s.root.local() && s.principal != "":
		return usagef("--principal: give --kms with it")
	case s.ring != "":
		return s.root.check("ring")
	case s.kms != "":
		return s.root.check("key service")
	case s.root.keyFile != "" || s.root.passphraseFile != "" || s.root.kmsKey != "":
		return usagef("%s: give --%sring or --%[2]skms with it", s.root.given()[0], prefix)
	case s.customer == "":
		return usagef("no key: give --%sring or --%[1]skms and its root, or --%[1]scustomer-key-file", prefix)
	}
	return nil
}

// keys are what opens and seals files.
type keys struct {
	sse.Cipher
	ring       *keyring.Ring // nil unless it is a ring
	ringPath   string
	service    *keyService // nil unless it is a key service
	serviceKey string      // as it was given; may be empty
}

// Close gives up what the keys hold.
func (k *keys) Close() { k.service.Close() }

// open opens the keys, for the principal in ctx. The caller closes them.
func (s keySource) open(ctx context.Context, c *console) (*keys, error) {
	switch {
	case s.customer != "":
		key, err := readKey(ctx, s.customer)
		if err != nil {
			return nil, err
		}
		defer clear(key)
		cipher, err := sse.NewCustomer(key)
		if err != nil {
			return nil, about(s.customer, err)
		}
		return &keys{Cipher: cipher}, nil
	case s.kms != "":
		service, err := c.openService(ctx, s.kms, s.root)
		if err != nil {
			return nil, err
		}
		return service.keys(s.kmsKey, s.bucketKey)
	}
	root, err := s.root.open(ctx, c)
	if err != nil {
		return nil, err
	}
	ring, err := openRing(ctx, s.ring, root, nil)
	if err != nil {
		return nil, err
	}
	return &keys{Cipher: sse.NewManaged(ring), ring: ring, ringPath: s.ring}, nil
}

// keys are those of a key service; no key is its default key.
func (s *keyService) keys(key string, bucketKey bool) (*keys, error) {
	seal := key
	if seal == "" {
		seal = localkms.DefaultAlias
	}
	client := s.uses
	if bucketKey { // which is for many files; without, each has a data key of its own
		client = s.cached
	}
	cipher, err := sse.NewKMS(client, seal, &sse.KMSOptions{BucketKey: bucketKey})
	return &keys{Cipher: cipher, service: s, serviceKey: key}, err
}

// accept refuses what is under another key of the service than was asked for.
func (k *keys) accept(ctx context.Context, name string, mode sse.Mode, keyID string) error {
	if k.service == nil || k.serviceKey == "" || mode != sse.ModeKMS {
		return nil
	}
	want, err := k.service.resolve(ctx, k.serviceKey)
	switch {
	case err != nil:
		return k.service.about(kms.OpDecrypt, k.serviceKey, err)
	case want != keyID:
		return problemf(nil, "%s: sealed under key %s, not under %s", name, keyID, k.serviceKey)
	}
	return nil
}

// aboutSealing puts an error of the key phase of sealing into words.
func (k *keys) aboutSealing(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, sse.ErrTooLarge), errors.Is(err, sse.ErrInvalid):
		return problemf(err, "%s", plain(err))
	case k.ring != nil:
		return aboutRing(k.ringPath, err)
	case k.service != nil:
		key := k.serviceKey
		if key == "" {
			key = localkms.DefaultAlias
		}
		return k.service.about(kms.OpGenerateDataKey, key, err)
	}
	return err
}

// openRing opens the ring in a file.
func openRing(ctx context.Context, path string, root tink.AEADWithContext, wrap func(keyring.Store) keyring.Store) (*keyring.Ring, error) {
	file, err := keyring.NewFileStore(path)
	if err != nil {
		return nil, aboutRing(path, err)
	}
	var store keyring.Store = file
	opts := &keyring.Options{Logger: slog.New(slog.DiscardHandler)}
	if wrap != nil {
		store, opts.Create = wrap(store), true
	}
	ring, err := keyring.Open(ctx, store, root, opts)
	if err != nil {
		return nil, aboutRing(path, err)
	}
	return ring, nil
}
