// Package localkms lets URLs of package bloburl name keys of the embedded key service.
// Import it for that effect. The URL of a key is
//
//	localkms:///DIR?key=KEY
//
// DIR holds the service's document in the file "keys". KEY is an id, an ARN or an alias,
// by default alias/blobseal/default. The service's root is the key in
// BLOBSEAL_KMS_ROOT_KEY_FILE, or the passphrase in BLOBSEAL_KMS_PASSPHRASE. The principal of each request
// comes from its ctx. Uses are not recorded: where there must be an audit trail,
// register an opener of your own.
package localkms

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/blobseal/blobseal/blob/bloburl"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/localkms"
)

// Scheme is the scheme of the URLs.
const Scheme = "localkms"

func init() { bloburl.RegisterKeyService(Scheme, open) }

func open(ctx context.Context, u *url.URL) (kms.Client, string, error) {
	for name := range u.Query() {
		if name != "key" {
			return nil, "", fmt.Errorf("%w: localkms:// has no parameter %q (known: key)", kms.ErrInvalid, name)
		}
	}
	root, err := openRoot()
	if err != nil {
		return nil, "", err
	}
	store, err := keyring.NewFileStore(filepath.Join(filepath.FromSlash(u.Host+u.Path), "keys"))
	if err != nil {
		return nil, "", err
	}
	service, err := localkms.Open(ctx, store, root, nil)
	if err != nil {
		return nil, "", err
	}
	client, err := service.Client("", "")
	if err != nil {
		return nil, "", err
	}
	if key := strings.TrimSpace(u.Query().Get("key")); key != "" {
		return client, key, nil
	}
	return client, localkms.DefaultAlias, nil
}

func openRoot() (keyring.Root, error) {
	if file := os.Getenv("BLOBSEAL_KMS_ROOT_KEY_FILE"); file != "" {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		defer clear(text)
		key, err := keyring.ParseKey(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		defer clear(key)
		return keyring.NewKeyRoot(key)
	}
	passphrase := os.Getenv("BLOBSEAL_KMS_PASSPHRASE")
	if passphrase == "" {
		return nil, fmt.Errorf("%w: the key service needs its root (set BLOBSEAL_KMS_ROOT_KEY_FILE or BLOBSEAL_KMS_PASSPHRASE)", kms.ErrInvalid)
	}
	return keyring.NewPassphraseRoot([]byte(passphrase), nil)
}
