package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/blobseal/blobseal/examples/blobseal/kmsurl"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/audit"
	"github.com/blobseal/blobseal/kms/localkms"
	"github.com/blobseal/blobseal/sse"
)

// rootOf returns the root, which encrypts the ring and the embedded key service. Keep a
// copy of it: the objects depend on it. Gateways that share a ring have the same root.
// If no flag names a root and root.key is missing, create says whether to make one.
func rootOf(c config, create bool) (keyring.Root, error) {
	switch {
	case c.rootKeyFile != "" && c.passphraseFile != "":
		return nil, errors.New("--root-key-file and --passphrase-file: give one of them only")
	case c.rootKeyFile != "":
		text, err := os.ReadFile(c.rootKeyFile)
		if err != nil {
			return nil, fmt.Errorf("--root-key-file: %w", err)
		}
		return keyRoot("--root-key-file "+c.rootKeyFile, text)
	case c.passphraseFile != "":
		text, err := os.ReadFile(c.passphraseFile)
		if err != nil {
			return nil, fmt.Errorf("--passphrase-file: %w", err)
		}
		passphrase, err := keyring.ParsePassphrase(text)
		if err != nil {
			return nil, fmt.Errorf("--passphrase-file %s: %w", c.passphraseFile, err)
		}
		return keyring.NewPassphraseRoot(passphrase, nil)
	}
	file := c.path("root.key")
	_, err := os.Stat(file)
	switch passphrase := os.Getenv("BLOBSEAL_PASSPHRASE"); {
	case passphrase != "" && err == nil:
		return nil, fmt.Errorf("BLOBSEAL_PASSPHRASE is set and %s exists: only one of them is the root (unset the variable, or move the file away if the passphrase is)", file)
	case passphrase != "":
		return keyring.NewPassphraseRoot([]byte(passphrase), nil)
	case errors.Is(err, fs.ErrNotExist) && !create:
		return nil, fmt.Errorf("%s: no such file, and ring or key service need it (restore it from your backup, or give the flag of another root: see --help)", file)
	}
	text, err := readOrMake(c, "root.key", func() ([]byte, error) {
		key := make([]byte, 32)
		rand.Read(key)
		return key, nil
	})
	if err != nil {
		return nil, err
	}
	return keyRoot(file, text)
}

// keyRoot returns the root of a key, which source names in errors.
func keyRoot(source string, text []byte) (keyring.Root, error) {
	key, err := keyring.ParseKey(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", source, err)
	}
	return keyring.NewKeyRoot(key)
}

// ringOf opens the ring, and creates it if it is missing.
func ringOf(ctx context.Context, d document, root keyring.Root) (*keyring.Ring, error) {
	// The embedded key service looks at its document as often.
	return openOrCreate(ctx, d, root, &keyring.Options{RefreshInterval: time.Second}, keyring.Open, keyring.Create)
}

// serviceOf opens the embedded key service, and creates it if it is missing. One in a
// directory is one of blobseal kms, which makes and disables keys.
func serviceOf(ctx context.Context, d document, root keyring.Root, sink audit.Sink) (*localkms.Service, error) {
	return openOrCreate(ctx, d, root, &localkms.Options{Audit: sink}, localkms.Open, localkms.Create)
}

// keyService is what encrypts the objects of SSE-KMS.
type keyService struct {
	client     kms.Client
	defaultKey string
	accept     func(keyID string) bool         // other keys; nil for none
	run        func(ctx context.Context) error // until ctx ends
}

// embedded reports whether the key service is the embedded one.
func (c config) embedded() bool {
	return !strings.Contains(c.keyService, "://") || isDatabase(c.keyService)
}

// keyServiceOf opens the key service: the embedded one, or a vendor's.
func keyServiceOf(ctx context.Context, c config, d document, root keyring.Root, trail audit.Sink) (*keyService, error) {
	if c.embedded() {
		service, err := serviceOf(ctx, d, root, trail)
		if err != nil {
			return nil, err
		}
		client, err := service.Client("", "")
		return &keyService{client, localkms.DefaultAlias, sse.AnyKey, service.Run}, err
	}
	key, err := vendorKey(ctx, "--key-service", c.keyService)
	if err != nil {
		return nil, err
	}
	k := &keyService{client: key.Client, defaultKey: key.ID, run: func(context.Context) error { return nil }}
	if c.anyKey {
		k.accept = sse.AnyKey
	}
	return k, nil
}

// vendorKey opens the key of a vendor's key service that a flag names. It stays open
// until the process ends. Its credentials are those of the vendor's own tools.
func vendorKey(ctx context.Context, flag, text string) (*kmsurl.Key, error) {
	u, err := parseVendorKey(flag, text)
	if err != nil {
		return nil, err
	}
	key, err := u.Open(ctx, nil)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", flag, u, err)
	}
	if key.Hint != "" {
		log.Printf("%s %s: %s", flag, u, key.Hint)
	}
	return key, nil
}

// parseVendorKey parses the URL of a key at a vendor's. --key-service takes more than that.
func parseVendorKey(flag, text string) (*kmsurl.URL, error) {
	want := "awskms://, gcpkms://, azurekeyvault:// or hashivault://"
	if flag == "--key-service" {
		want = "a directory, postgres://, etcd://, etcds://, " + want
	}
	scheme, _, isURL := strings.Cut(text, "://")
	switch {
	case !isURL:
		return nil, fmt.Errorf("%s %q: want a URL: %s", flag, text, want)
	case !slices.Contains([]string{"awskms", "gcpkms", "azurekeyvault", "hashivault"}, scheme):
		return nil, fmt.Errorf("%s: %s:// is unknown; want %s", flag, scheme, want)
	}
	return kmsurl.Parse(flag, text)
}

// openRoot opens the root: a key of a vendor's key service, or what rootOf returns.
func openRoot(ctx context.Context, c config, create bool) (keyring.Root, error) {
	switch {
	case c.rootKMSKey == "":
		return rootOf(c, create)
	case c.rootKeyFile != "" || c.passphraseFile != "":
		return nil, errors.New("--root-kms-key: give no --root-key-file and no --passphrase-file with it")
	}
	key, err := vendorKey(ctx, "--root-kms-key", c.rootKMSKey)
	if err != nil {
		return nil, err
	}
	return keyring.NewKMSRoot(key.Client, key.ID, nil)
}
