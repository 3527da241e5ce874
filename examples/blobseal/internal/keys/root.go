package keys

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/blobseal/blobseal/examples/blobseal/internal/console"
	"github.com/blobseal/blobseal/examples/blobseal/internal/message"
	"github.com/blobseal/blobseal/examples/blobseal/kmsurl"
	"github.com/blobseal/blobseal/keyring"
)

// RootFlags name the root of a ring or of a key service.
type RootFlags struct {
	RootKeyFile      string `group:"root" placeholder:"FILE" help:"Root key: 32 bytes, raw or in hex or base64."`
	PassphraseFile   string `group:"root" placeholder:"FILE" help:"Passphrase. Or set BLOBSEAL_PASSPHRASE."`
	PassphraseEnv    string `group:"root" placeholder:"VARIABLE" help:"Variable that holds the passphrase, instead of BLOBSEAL_PASSPHRASE."`
	PassphrasePrompt bool   `group:"root" help:"Ask for the passphrase on the terminal."`
	RootKMSKey       string `name:"root-kms-key" group:"root" placeholder:"URL" help:"Root in a key service, such as awskms:///alias/rings (see ring)."`
}

func (f RootFlags) Source() RootSource {
	return RootSource{
		KeyFile: f.RootKeyFile, PassphraseFile: f.PassphraseFile, PassphraseEnv: f.PassphraseEnv, PassphrasePrompt: f.PassphrasePrompt,
		KMSKey: f.RootKMSKey, Variable: "BLOBSEAL_PASSPHRASE",
	}
}

// NewRootFlags name the root that replaces another.
type NewRootFlags struct {
	NewRootKeyFile      string `placeholder:"FILE" help:"New root key."`
	NewPassphraseFile   string `placeholder:"FILE" help:"New passphrase. Or set BLOBSEAL_NEW_PASSPHRASE."`
	NewPassphraseEnv    string `placeholder:"VARIABLE" help:"Variable that holds the new passphrase."`
	NewPassphrasePrompt bool   `help:"Ask for the new passphrase on the terminal."`
	NewRootKMSKey       string `name:"new-root-kms-key" placeholder:"URL" help:"New root key in a key service (see ring)."`
}

// NewSource returns the source of the new root. Its name is not that of RootFlags'
// method, since commands embed both.
func (f NewRootFlags) NewSource() RootSource {
	return RootSource{
		KeyFile: f.NewRootKeyFile, PassphraseFile: f.NewPassphraseFile, PassphraseEnv: f.NewPassphraseEnv, PassphrasePrompt: f.NewPassphrasePrompt,
		KMSKey: f.NewRootKMSKey, Prefix: "new-", Variable: "BLOBSEAL_NEW_PASSPHRASE", New: true,
	}
}

// RootSource says where a root comes from: a key file, a passphrase, or a key of a key
// service. If that is a service in a directory, the key file or the passphrase is the
// service's own root. Prefix begins the names of the flags, after the dashes.
type RootSource struct {
	KeyFile          string
	PassphraseFile   string
	PassphraseEnv    string // the variable that holds the passphrase, if the user named one
	PassphrasePrompt bool
	KMSKey           string
	Prefix           string
	Variable         string // that holds the passphrase otherwise
	New              bool   // a prompt asks twice, and refuses what is easy to guess
}

// serviceRoot returns the source of the service's own root.
func (s RootSource) serviceRoot() RootSource {
	s.KMSKey = ""
	return s
}

// isNamed reports whether a flag names the root.
func (s RootSource) isNamed() bool {
	return s.KeyFile != "" || s.PassphraseFile != "" || s.PassphraseEnv != "" || s.PassphrasePrompt || s.KMSKey != ""
}

// Local reports whether the root is a key of a service in a directory.
func (s RootSource) Local() bool { return strings.HasPrefix(s.KMSKey, kmsurl.Local+"://") }

// Directory returns the directory of the service of a local root, or "".
func (s RootSource) Directory() string {
	u, err := parseRootURL(s.kmsFlag(), s.KMSKey)
	if err != nil || u.Scheme != kmsurl.Local {
		return ""
	}
	return u.Key
}

func (s RootSource) kmsFlag() string { return "--" + s.Prefix + "root-kms-key" }

// Args returns the flags of the root, for commands in hints. They have no prefix: a
// hint is about one ring or key service. BLOBSEAL_PASSPHRASE needs no flag.
func (s RootSource) Args() (args []string) {
	for _, flag := range []struct{ name, value string }{
		{"--root-kms-key", s.KMSKey}, {"--root-key-file", s.KeyFile}, {"--passphrase-file", s.PassphraseFile}, {"--passphrase-env", s.PassphraseEnv},
	} {
		if flag.value != "" {
			args = append(args, flag.name, flag.value)
		}
	}
	if s.PassphrasePrompt {
		args = append(args, "--passphrase-prompt")
	}
	if len(args) == 0 && s.Prefix != "" {
		args = append(args, "--passphrase-env", s.Variable)
	}
	return args
}

func (s RootSource) Flags() string {
	text := fmt.Sprintf("--%sroot-key-file, --%[1]spassphrase-file", s.Prefix)
	if s.KMSKey == "" {
		text += ", " + s.kmsFlag()
	}
	return text + " or " + s.Variable
}

// Given returns the flags and variables that the user set.
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
	if s.PassphraseEnv != "" {
		names = append(names, "--"+s.Prefix+"passphrase-env")
	} else if os.Getenv(s.Variable) != "" && !s.PassphrasePrompt {
		names = append(names, s.Variable)
	}
	if s.PassphrasePrompt {
		names = append(names, "--"+s.Prefix+"passphrase-prompt")
	}
	return names
}

// Check returns a usage error unless the user named exactly one root.
func (s RootSource) Check(what string) error {
	given := s.Given()
	if s.KMSKey != "" {
		if _, err := parseRootURL(s.kmsFlag(), s.KMSKey); err != nil {
			return err
		}
	}
	if s.Local() {
		what, given = "key service of "+s.kmsFlag(), s.serviceRoot().Given()
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

// Open opens the root. One in a key service asks as the principal in ctx. Errors show no
// part of a key or passphrase.
func (s RootSource) Open(ctx context.Context, c *console.Console) (tink.AEADWithContext, error) {
	if s.KMSKey != "" {
		return openRootKey(ctx, c, s)
	}
	if s.KeyFile != "" {
		c.WarnIfPublic(s.KeyFile)
		key, err := ReadKey(ctx, s.KeyFile)
		if err != nil {
			return nil, err
		}
		defer clear(key)
		return keyring.NewKeyRoot(key)
	}
	passphrase, err := s.passphrase(ctx, c)
	if err != nil {
		return nil, err
	}
	defer clear(passphrase)
	return keyring.NewPassphraseRoot(passphrase, nil)
}

func (s RootSource) passphrase(ctx context.Context, c *console.Console) ([]byte, error) {
	switch {
	case s.PassphrasePrompt && s.New:
		return c.NewPassphrase(ctx)
	case s.PassphrasePrompt:
		return c.Passphrase(ctx, "Passphrase: ")
	case s.PassphraseEnv != "":
		text := os.Getenv(s.PassphraseEnv)
		if text == "" {
			return nil, message.Usagef("--%spassphrase-env: the variable %s is not set", s.Prefix, s.PassphraseEnv)
		}
		return []byte(text), nil
	case s.PassphraseFile == "":
		return []byte(os.Getenv(s.Variable)), nil
	}
	c.WarnIfPublic(s.PassphraseFile)
	text, err := readSmall(ctx, s.PassphraseFile)
	if err != nil {
		return nil, err
	}
	passphrase, err := keyring.ParsePassphrase(text)
	if err != nil {
		return nil, message.Problemf(err, s.PassphraseFile, "the passphrase is empty")
	}
	return passphrase, nil
}
