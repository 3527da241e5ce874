package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms/audit"
	"github.com/blobseal/blobseal/kms/localkms"
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
