// Package keys opens rings, key services and customer keys, with their roots and audit
// trails.
package keys

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"time"

	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/blobseal/blobseal/examples/blobseal/internal/console"
	"github.com/blobseal/blobseal/examples/blobseal/internal/message"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms/localkms"
	"github.com/blobseal/blobseal/sse"
)

// Flags name the keys of a command: a ring, a key service, or a customer key.
type Flags struct {
	Ring             string   `group:"keys" placeholder:"FILE" help:"Key ring (SSE-S3)."`
	KMS              string   `name:"kms" group:"keys" placeholder:"DIR" help:"Key service (SSE-KMS)."`
	KMSKey           []string `name:"kms-key" group:"keys" sep:"none" placeholder:"KEY" help:"Key of the service: an id, ARN or alias. To encrypt, by default alias/blobseal/default. To open, the only key that is accepted; may be repeated then."`
	Principal        string   `group:"keys" placeholder:"ID" help:"Who asks the service; by default user:NAME, your user name."`
	RootKeyFile      string   `group:"keys" placeholder:"FILE" help:"Root key of the ring or service: 32 bytes, raw or in hex or base64."`
	PassphraseFile   string   `group:"keys" placeholder:"FILE" help:"Passphrase of the ring or service. Or set BLOBSEAL_PASSPHRASE."`
	PassphraseEnv    string   `group:"keys" placeholder:"VARIABLE" help:"Variable that holds the passphrase, instead of BLOBSEAL_PASSPHRASE."`
	PassphrasePrompt bool     `group:"keys" help:"Ask for the passphrase on the terminal."`
	RootKMSKey       string   `name:"root-kms-key" group:"keys" placeholder:"URL" help:"Root of the ring or service in a key service, such as awskms:///alias/rings (see ring)."`
	CustomerKeyFile  string   `group:"keys" placeholder:"FILE" help:"Customer key (SSE-C): 32 bytes, raw or in hex or base64."`
}

func (f Flags) Source() Source {
	return Source{
		Ring:      f.Ring,
		KMS:       f.KMS,
		KMSKeys:   f.KMSKey,
		Principal: f.Principal,
		Root:      RootFlags{f.RootKeyFile, f.PassphraseFile, f.PassphraseEnv, f.PassphrasePrompt, f.RootKMSKey}.Source(),
		Customer:  f.CustomerKeyFile,
	}
}

// OpenFlags name the keys of a command that opens objects. It opens those of a key
// service only under keys that the user accepts: whoever can write to the files and use
// a key of the service could plant objects.
type OpenFlags struct {
	Flags
	AnyKMSKey bool `name:"any-kms-key" group:"keys" help:"Open objects under any key of the service: only if nobody else can write to the files or make keys."`
}

func (f OpenFlags) Source() Source {
	source := f.Flags.Source()
	source.Opens, source.AnyKey = true, f.AnyKMSKey
	return source
}

// Source says where keys come from. Root has the prefix of the flags.
type Source struct {
	Ring      string
	KMS       string
	KMSKeys   []string // the first one seals; none is the default key
	Opens     bool     // only objects under KMSKeys, or any key
	AnyKey    bool
	BucketKey bool
	Principal string
	Root      RootSource
	Customer  string
}

func (s Source) Check() error {
	prefix := s.Root.Prefix
	var given []string
	for _, source := range []struct{ flag, value string }{{"ring", s.Ring}, {"kms", s.KMS}, {"customer-key-file", s.Customer}} {
		if source.value != "" {
			given = append(given, "--"+prefix+source.flag)
		}
	}
	switch {
	case len(given) > 1:
		return message.Usagef("%s: give one of them only", strings.Join(given, " and "))
	case s.KMS == "" && len(s.KMSKeys) > 0:
		return message.Usagef("--%skms-key: give --%[1]skms with it", prefix)
	case s.KMS == "" && s.AnyKey:
		return message.Usagef("--any-kms-key: give --kms with it")
	case !s.Opens && len(s.KMSKeys) > 1:
		return message.Usagef("--%skms-key: give one of them only", prefix)
	case s.KMS == "" && s.BucketKey:
		return message.Usagef("--%sbucket-key: give --%[1]skms with it", prefix)
	case s.KMS == "" && !s.Root.Local() && s.Principal != "":
		return message.Usagef("--principal: give --kms with it")
	case s.Ring != "":
		return s.Root.Check("ring")
	case s.KMS != "":
		return s.Root.Check("key service")
	case s.Root.isNamed():
		return message.Usagef("%s: give --%sring or --%[2]skms with it", s.Root.Given()[0], prefix)
	case s.Customer == "":
		return message.Usagef("no key: give --%sring or --%[1]skms and its root, or --%[1]scustomer-key-file", prefix)
	}
	return nil
}

// sealingKey is the key of the service that seals; empty for the default key.
func (s Source) sealingKey() string {
	if len(s.KMSKeys) == 0 {
		return ""
	}
	return s.KMSKeys[0]
}

// Keys seal and open files.
type Keys struct {
	sse.Cipher
	Ring       *keyring.Ring // nil for other keys
	RingPath   string
	root       []string // flags of the ring's root
	Service    *Service // nil for other keys
	ServiceKey string   // which seals, as the user wrote it; may be empty
	Accepted   []string // ARNs of the only keys that open; nil for others
}

// Close closes the audit trail of a key service.
func (k *Keys) Close() { k.Service.Close() }

// Open opens the keys, for the principal in ctx. The caller closes them.
func (s Source) Open(ctx context.Context, c *console.Console) (*Keys, error) {
	switch {
	case s.Customer != "":
		c.WarnIfPublic(s.Customer)
		key, err := ReadKey(ctx, s.Customer)
		if err != nil {
			return nil, err
		}
		defer clear(key)
		cipher, err := sse.NewCustomer(key)
		if err != nil {
			return nil, message.About(s.Customer, err)
		}
		return &Keys{Cipher: cipher}, nil
	case s.KMS != "":
		service, err := OpenService(ctx, c, s.KMS, s.Root)
		if err != nil {
			return nil, err
		}
		var k *Keys
		if s.Opens {
			k, err = service.openKeys(ctx, s)
		} else {
			k, err = service.Keys(s.sealingKey(), s.BucketKey)
		}
		if err != nil {
			service.Close()
			return nil, err
		}
		return k, nil
	}
	root, err := s.Root.Open(ctx, c)
	if err != nil {
		return nil, err
	}
	ring, err := OpenRing(ctx, s.Ring, root, s.Root.Args()...)
	if err != nil {
		return nil, err
	}
	return &Keys{Cipher: sse.NewManaged(ring), Ring: ring, RingPath: s.Ring, root: s.Root.Args()}, nil
}

// AboutSealing returns an error of sealing a data key as a [message.Problem].
func (k *Keys) AboutSealing(err error) error {
	a, subject := k.attempt(), k.RingPath
	if k.Service != nil {
		a.Key, subject = k.ServiceKey, k.Service.Dir
		if a.Key == "" {
			a.Key = localkms.DefaultAlias
		}
	}
	if errors.Is(err, sse.ErrTooLarge) || errors.Is(err, sse.ErrInvalid) { // the user's own names
		subject = ""
	}
	return a.About(subject, err)
}

// Attempt returns the attempt to open an object of a mode, sealed under keyID, for
// error messages. Mode 0 is an object whose envelope could not be read. The keys may be
// nil.
func (k *Keys) Attempt(mode sse.Mode, keyID string) message.Attempt {
	a := k.attempt()
	a.Mode, a.KeyID, a.Key = mode, keyID, keyID
	return a
}

func (k *Keys) attempt() message.Attempt {
	switch {
	case k == nil:
	case k.Service != nil:
		return k.Service.attempt("")
	case k.Ring != nil:
		return message.Attempt{Ring: k.RingPath, Root: k.root, RingID: k.Ring.ID()}
	}
	return message.Attempt{}
}

// RingCommand returns a command on the ring that can be pasted into a shell.
func (k *Keys) RingCommand(command string, args ...string) string {
	return k.attempt().Command([]string{"ring", command}, args...)
}

// AboutRing returns an error of the ring as a [message.Problem].
func (k *Keys) AboutRing(err error) error { return message.Ring(k.RingPath, err, k.root...) }

// OpenRing opens the ring in a file. Flags are those of its root.
func OpenRing(ctx context.Context, path string, root tink.AEADWithContext, flags ...string) (*keyring.Ring, error) {
	return withRing(ctx, path, root, keyring.Open, flags...)
}

// CreateRing creates a ring in a file that does not exist. A period of zero is the
// default.
func CreateRing(ctx context.Context, path string, root tink.AEADWithContext, period time.Duration) (*keyring.Ring, error) {
	create := func(ctx context.Context, store keyring.Store, root keyring.Root, opts *keyring.Options) (*keyring.Ring, error) {
		opts.Period = period
		return keyring.Create(ctx, store, root, opts)
	}
	return withRing(ctx, path, root, create)
}

type openRing func(context.Context, keyring.Store, keyring.Root, *keyring.Options) (*keyring.Ring, error)

func withRing(ctx context.Context, path string, root tink.AEADWithContext, open openRing, flags ...string) (*keyring.Ring, error) {
	store, err := keyring.NewFileStore(path)
	if err != nil {
		return nil, message.Ring(path, err, flags...)
	}
	ring, err := open(ctx, store, root, &keyring.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, message.Ring(path, err, flags...)
	}
	return ring, nil
}
