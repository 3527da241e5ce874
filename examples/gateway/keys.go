package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
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
func rootOf(c config) (keyring.Root, error) {
	passphrase := []byte(os.Getenv("BLOBSEAL_PASSPHRASE"))
	if c.passphraseFile != "" {
		text, err := os.ReadFile(c.passphraseFile)
		if err != nil {
			return nil, fmt.Errorf("--passphrase-file: %w", err)
		}
		if passphrase, err = keyring.ParsePassphrase(text); err != nil {
			return nil, fmt.Errorf("--passphrase-file %s: %w", c.passphraseFile, err)
		}
	}
	switch {
	case c.rootKeyFile != "" && c.passphraseFile != "":
		return nil, errors.New("--root-key-file and --passphrase-file: give one of them only")
	case c.rootKeyFile != "":
		text, err := os.ReadFile(c.rootKeyFile)
		if err != nil {
			return nil, fmt.Errorf("--root-key-file: %w", err)
		}
		key, err := keyring.ParseKey(text)
		if err != nil {
			return nil, fmt.Errorf("--root-key-file %s: %w", c.rootKeyFile, err)
		}
		return keyring.NewKeyRoot(key)
	case len(passphrase) > 0:
		return keyring.NewPassphraseRoot(passphrase, nil)
	}
	key, err := readOrMake(c, "root.key", func() ([]byte, error) {
		key := make([]byte, 32)
		rand.Read(key)
		return key, nil
	})
	if err != nil {
		return nil, err
	}
	return keyring.NewKeyRoot(key)
}

// ringOf opens the ring, and creates it if it is missing.
func ringOf(ctx context.Context, c config, root keyring.Root) (*keyring.Ring, error) {
	ctx, cancel := context.WithTimeout(ctx, openingTimeout)
	defer cancel()
	store, err := documentStore(ctx, "--ring", cmp.Or(c.ring, c.path("objects.ring")), "gateway/ring")
	if err != nil {
		return nil, err
	}
	// The embedded key service looks at its document as often.
	opts := &keyring.Options{RefreshInterval: time.Second}
	ring, err := keyring.Open(ctx, store, root, opts)
	if errors.Is(err, keyring.ErrNotExist) {
		if ring, err = keyring.Create(ctx, store, root, opts); errors.Is(err, keyring.ErrExist) { // another process was first
			ring, err = keyring.Open(ctx, store, root, opts)
		}
	}
	return ring, explain("--ring", err)
}

// keyService is what encrypts the objects of SSE-KMS.
type keyService struct {
	client     kms.Client
	defaultKey string
	accept     func(keyID string) bool         // other keys; nil for none
	run        func(ctx context.Context) error // until ctx ends
}

// keyServiceOf opens the key service: the embedded one, or a vendor's.
func keyServiceOf(ctx context.Context, c config, root keyring.Root, trail audit.Sink) (*keyService, error) {
	if !strings.Contains(c.keyService, "://") || isDatabase(c.keyService) {
		service, err := serviceOf(ctx, c, root, trail)
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
	u, err := kmsurl.Parse(flag, text)
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

// openRoot opens the root: a key of a vendor's key service, or what rootOf returns.
func openRoot(ctx context.Context, c config) (keyring.Root, error) {
	switch {
	case c.rootKMSKey == "":
		return rootOf(c)
	case c.rootKeyFile != "" || c.passphraseFile != "":
		return nil, errors.New("--root-kms-key: give no --root-key-file and no --passphrase-file with it")
	}
	key, err := vendorKey(ctx, "--root-kms-key", c.rootKMSKey)
	if err != nil {
		return nil, err
	}
	return keyring.NewKMSRoot(key.Client, key.ID, nil)
}

// serviceOf opens the embedded key service, and creates it if it is missing. One in a
// directory is one of blobseal kms, which makes and disables keys.
func serviceOf(ctx context.Context, c config, root keyring.Root, sink audit.Sink) (*localkms.Service, error) {
	ctx, cancel := context.WithTimeout(ctx, openingTimeout)
	defer cancel()
	at := cmp.Or(c.keyService, c.path("kms"))
	if !strings.Contains(at, "://") {
		if err := os.MkdirAll(at, 0o700); err != nil {
			return nil, fmt.Errorf("--key-service: %w", err)
		}
		at = filepath.Join(at, "keys")
	}
	store, err := documentStore(ctx, "--key-service", at, "gateway/keys")
	if err != nil {
		return nil, err
	}
	opts := &localkms.Options{Audit: sink}
	service, err := localkms.Open(ctx, store, root, opts)
	if errors.Is(err, keyring.ErrNotExist) {
		if service, err = localkms.Create(ctx, store, root, opts); errors.Is(err, keyring.ErrExist) {
			service, err = localkms.Open(ctx, store, root, opts)
		}
	}
	return service, explain("--key-service", err)
}

// explain says which flag an error is about, and what to do.
func explain(flag string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, keyring.ErrRoot):
		return fmt.Errorf("%s: %w (gateways that share it need the same root: copy root.key, or give --root-key-file)", flag, err)
	}
	return fmt.Errorf("%s: %w", flag, err)
}
