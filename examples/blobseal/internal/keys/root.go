package keys

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/blobseal/blobseal/examples/blobseal/internal/console"
	"github.com/blobseal/blobseal/examples/blobseal/internal/message"
	"github.com/blobseal/blobseal/keyring"
)

// RootFlags name the source of a root: of a ring, or of a key service.
type RootFlags struct {
	RootKeyFile    string `group:"root" placeholder:"FILE" help:"Root key: 32 bytes, raw or in hex or base64."`
	PassphraseFile string `group:"root" placeholder:"FILE" help:"Passphrase. Or set BLOBSEAL_PASSPHRASE."`
	RootKMSKey     string `name:"root-kms-key" group:"root" placeholder:"URL" help:"Root in a key service, such as awskms:///alias/rings (see ring)."`
}

func (f RootFlags) Source() RootSource {
	return RootSource{f.RootKeyFile, f.PassphraseFile, f.RootKMSKey, "", "BLOBSEAL_PASSPHRASE"}
}

// RootSource is where a root comes from: a key file, a passphrase, or a key of a
// key service. A service in a directory has a root of its own, which is then what
// the others give. Prefix begins the names of the flags, after the dashes.
type RootSource struct{ KeyFile, PassphraseFile, KMSKey, Prefix, Variable string }

// own is the source without the key service.
func (s RootSource) own() RootSource {
	s.KMSKey = ""
	return s
}

// Local tells whether the root is a key of a service in a directory.
func (s RootSource) Local() bool { return strings.HasPrefix(s.KMSKey, localScheme+"://") }

// Directory is that of the service of a local root; it is empty for others.
func (s RootSource) Directory() string {
	u, err := parseRootURL(s.kmsFlag(), s.KMSKey)
	if err != nil || u.scheme != localScheme {
		return ""
	}
	return u.key
}

func (s RootSource) kmsFlag() string { return "--" + s.Prefix + "root-kms-key" }

func (s RootSource) Flags() string {
	text := fmt.Sprintf("--%sroot-key-file, --%[1]spassphrase-file", s.Prefix)
	if s.KMSKey == "" {
		text += ", " + s.kmsFlag()
	}
	return text + " or " + s.Variable
}

// Given lists the sources that were given.
func (s RootSource) Given() (names []string) {
	if s.KeyFile != "" {
		names = append(names, "--"+s.Prefix+"root-key-file")
	}
	if s.PassphraseFile != "" {
		names = append(names, "--"+s.Prefix+"passphrase-file")
	}
	if s.KMSKey != "" {
		names = append(names, s.kmsFlag())
	}
	if os.Getenv(s.Variable) != "" {
		names = append(names, s.Variable)
	}
	return names
}

// Check is a usage error unless there is exactly one source of the root of what.
func (s RootSource) Check(what string) error {
	given := s.Given()
	if s.KMSKey != "" {
		if _, err := parseRootURL(s.kmsFlag(), s.KMSKey); err != nil {
			return err
		}
	}
	if s.Local() {
		what, given = "key service of "+s.kmsFlag(), s.own().Given()
	}
	switch len(given) {
	case 1:
		return nil
	case 0:
		return message.Usagef("the %s needs its root: give %s", what, s.Flags())
	default:
		return message.Usagef("%s: give one of them only", strings.Join(given, " and "))
	}
}

// Open reads the root, or makes one that asks its key service, as the principal in
// ctx. Errors show no part of it.
func (s RootSource) Open(ctx context.Context, c *console.Console) (tink.AEADWithContext, error) {
	if s.KMSKey != "" {
		return openRootKey(ctx, c, s)
	}
	if s.KeyFile != "" {
		key, err := ReadKey(ctx, s.KeyFile)
		if err != nil {
			return nil, err
		}
		defer clear(key)
		return keyring.NewKeyRoot(key)
	}
	passphrase := []byte(os.Getenv(s.Variable))
	if s.PassphraseFile != "" {
		text, err := readSmall(ctx, s.PassphraseFile)
		if err != nil {
			return nil, err
		}
		if passphrase, err = keyring.ParsePassphrase(text); err != nil {
			return nil, message.Problemf(err, s.PassphraseFile, "the passphrase is empty")
		}
	}
	defer clear(passphrase)
	return keyring.NewPassphraseRoot(passphrase, nil)
}
