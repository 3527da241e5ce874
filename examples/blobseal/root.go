package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/blobseal/blobseal/keyring"
)

// rootFlags name the source of a root: of a ring, or of a key service.
type rootFlags struct {
	RootKeyFile    string `group:"root" placeholder:"FILE" help:"Root key: 32 bytes, as they are or in hex or base64."`
	PassphraseFile string `group:"root" placeholder:"FILE" help:"Passphrase, without its line end. Or set BLOBSEAL_PASSPHRASE."`
	RootKMSKey     string `name:"root-kms-key" group:"root" placeholder:"URL" help:"Root key in a key service, such as awskms:///alias/rings; see ring."`
}

func (f rootFlags) source() rootSource {
	return rootSource{f.RootKeyFile, f.PassphraseFile, f.RootKMSKey, "", "BLOBSEAL_PASSPHRASE"}
}

// rootSource is where a root comes from: a key file, a passphrase, or a key of a
// key service. A service in a directory has a root of its own, which is then what
// the others give. Prefix begins the names of the flags, after the dashes.
type rootSource struct{ keyFile, passphraseFile, kmsKey, prefix, variable string }

// own is the source without the key service.
func (s rootSource) own() rootSource {
	s.kmsKey = ""
	return s
}

// local tells whether the root is a key of a service in a directory.
func (s rootSource) local() bool { return strings.HasPrefix(s.kmsKey, localScheme+"://") }

// directory is that of the service of a local root; it is empty for others.
func (s rootSource) directory() string {
	u, err := parseRootURL(s.kmsFlag(), s.kmsKey)
	if err != nil || u.scheme != localScheme {
		return ""
	}
	return u.key
}

func (s rootSource) kmsFlag() string { return "--" + s.prefix + "root-kms-key" }

func (s rootSource) flags() string {
	text := fmt.Sprintf("--%sroot-key-file, --%[1]spassphrase-file", s.prefix)
	if s.kmsKey == "" {
		text += ", " + s.kmsFlag()
	}
	return text + " or " + s.variable
}

// given lists the sources that were given.
func (s rootSource) given() (names []string) {
	if s.keyFile != "" {
		names = append(names, "--"+s.prefix+"root-key-file")
	}
	if s.passphraseFile != "" {
		names = append(names, "--"+s.prefix+"passphrase-file")
	}
	if s.kmsKey != "" {
		names = append(names, s.kmsFlag())
	}
	if os.Getenv(s.variable) != "" {
		names = append(names, s.variable)
	}
	return names
}

// check is a usage error unless there is exactly one source of the root of what.
func (s rootSource) check(what string) error {
	given := s.given()
	if s.kmsKey != "" {
		if _, err := parseRootURL(s.kmsFlag(), s.kmsKey); err != nil {
			return err
		}
	}
	if s.local() {
		what, given = "key service of "+s.kmsFlag(), s.own().given()
	}
	switch len(given) {
	case 1:
		return nil
	case 0:
		return usagef("the %s needs its root: give %s", what, s.flags())
	default:
		return usagef("%s: give one of them only", strings.Join(given, " and "))
	}
}

// open reads the root, or makes one that asks its key service, as the principal in
// ctx. Errors show no part of it.
func (s rootSource) open(ctx context.Context, c *console) (tink.AEADWithContext, error) {
	if s.kmsKey != "" {
		return c.openRootKey(ctx, s)
	}
	if s.keyFile != "" {
		key, err := readKey(ctx, s.keyFile)
		if err != nil {
			return nil, err
		}
		defer clear(key)
		return keyring.NewKeyRoot(key)
	}
	passphrase := []byte(os.Getenv(s.variable))
	if s.passphraseFile != "" {
		text, err := readSmall(ctx, s.passphraseFile)
		if err != nil {
			return nil, err
		}
		passphrase = bytes.TrimSuffix(text, []byte("\n"))
		passphrase = bytes.TrimSuffix(passphrase, []byte("\r"))
		if len(passphrase) == 0 {
			return nil, problemf(nil, "%s: the passphrase is empty", s.passphraseFile)
		}
	}
	defer clear(passphrase)
	return keyring.NewPassphraseRoot(passphrase, nil)
}

// aboutRoot is an error of a root, in words without its subject; it is empty if
// the error is not about the root of what.
func aboutRoot(what string, err error) string {
	switch {
	case errors.Is(err, context.Canceled):
		return ""
	case errors.Is(err, keyring.ErrRoot):
		why := "another key or passphrase than it was made with"
		if _, claim, found := strings.Cut(err.Error(), "it is under key "); found {
			claim, _, _ = strings.Cut(claim, ", the root is ")
			why = "it is under key " + claim
		}
		return fmt.Sprintf("the root does not open the %s: %s", what, why)
	case errors.Is(err, keyring.ErrRootUnavailable):
		text := plain(err)
		if r := new(refusal); errors.As(err, &r) {
			text = r.text
		}
		return "its root cannot be used: " + text
	}
	return ""
}
