package bloburl

import (
	"context"
	"fmt"
	"maps"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/sse"
)

// KeyService opens the key service of a URL, and returns the id of the key that the URL
// names. ctx bounds the opening.
type KeyService func(ctx context.Context, u *url.URL) (client kms.Client, keyID string, err error)

var services = struct {
	sync.Mutex
	openers map[string]KeyService
}{openers: map[string]KeyService{}}

// RegisterKeyService adds a scheme of URLs for kms_key and root_kms_key, such as awskms.
// Call it before any bucket is opened. It panics if the scheme is taken.
func RegisterKeyService(scheme string, open KeyService) {
	services.Lock()
	defer services.Unlock()
	if services.openers[scheme] != nil {
		panic("bloburl: key service " + scheme + ":// is registered already")
	}
	services.openers[scheme] = open
}

// openService opens the key service of a parameter.
func openService(ctx context.Context, name, text string) (kms.Client, string, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme == "" {
		return nil, "", fmt.Errorf("%w: %s is not a URL of a key, such as awskms:///alias/photos", sse.ErrInvalid, name)
	}
	services.Lock()
	open, schemes := services.openers[u.Scheme], slices.Sorted(maps.Keys(services.openers))
	services.Unlock()
	if open == nil {
		return nil, "", fmt.Errorf("%w: %s: no key service for %s:// (call RegisterKeyService; registered: %s)",
			sse.ErrInvalid, name, u.Scheme, strings.Join(schemes, ", "))
	}
	client, keyID, err := open(ctx, u)
	if err != nil {
		return nil, "", fmt.Errorf("%s: %w", name, err)
	}
	return client, keyID, nil
}

// keys are the open keys of a bucket.
type keys struct {
	cipher sse.Cipher // of writes
	others sse.ByMode
	stop   context.CancelFunc // of the ring's refreshes
	done   sync.WaitGroup
}

// openKeys opens the keys that a URL names.
func (o *URLOpener) openKeys(ctx context.Context, p params) (*keys, error) {
	k := &keys{stop: func() {}, others: sse.ByMode{}}
	if o.Cipher != nil {
		if p.any(keyParams) {
			return nil, fmt.Errorf("%w: the opener has a cipher, and the URL names keys", sse.ErrInvalid)
		}
		k.cipher = o.Cipher
		return k, nil
	}
	ciphers := map[sse.Mode]sse.Cipher{}
	if file := p["customer_key_file"]; file != "" {
		customer, err := openCustomer(file)
		if err != nil {
			return nil, err
		}
		ciphers[sse.ModeCustomer] = customer
	}
	if text := p["kms_key"]; text != "" {
		client, keyID, err := openService(ctx, "kms_key", text)
		if err != nil {
			return nil, err
		}
		if ciphers[sse.ModeKMS], err = sse.NewKMS(client, keyID, nil); err != nil {
			return nil, err
		}
	}
	var ring *keyring.Ring
	if file := p["ring"]; file != "" {
		var err error
		if ring, err = openRing(ctx, file, p); err != nil {
			return nil, err
		}
		ciphers[sse.ModeManaged] = sse.NewManaged(ring)
	}
	mode, err := chooseMode(p["mode"], ciphers)
	if err != nil {
		return nil, err
	}
	k.cipher = ciphers[mode]
	for other, cipher := range ciphers {
		if other != mode {
			k.others[other] = cipher
		}
	}
	if ring != nil {
		run, stop := context.WithCancel(context.WithoutCancel(ctx))
		k.stop = stop
		k.done.Go(func() { ring.Run(run) })
	}
	return k, nil
}

// close ends what runs in the background.
func (k *keys) close() {
	k.stop()
	k.done.Wait()
}

// addTo adds the keys that only open objects to a bucket's options.
func (k *keys) addTo(opts *blob.Options) *blob.Options {
	all := sse.ByMode{}
	maps.Copy(all, k.others)
	maps.Copy(all, opts.Decrypters)
	opts.Decrypters = all
	opts.Policy.AllowCustomerKeys = opts.Policy.AllowCustomerKeys || k.cipher.Mode() == sse.ModeCustomer
	return opts
}

// chooseMode returns the mode of writes.
func chooseMode(text string, ciphers map[sse.Mode]sse.Cipher) (mode sse.Mode, err error) {
	if text == "" {
		switch len(ciphers) {
		case 0:
			return 0, fmt.Errorf("%w: no key (add ring, kms_key or customer_key_file, or set %s)", sse.ErrInvalid, variable("ring"))
		case 1:
			for mode := range ciphers {
				return mode, nil
			}
		}
		return 0, fmt.Errorf("%w: keys of several modes (add mode=SSE-S3, SSE-KMS or SSE-C, which writes use)", sse.ErrInvalid)
	}
	if err := mode.UnmarshalText([]byte(text)); err != nil {
		return 0, fmt.Errorf("%w: mode %q (want SSE-S3, SSE-KMS or SSE-C)", sse.ErrInvalid, text)
	}
	if ciphers[mode] == nil {
		needs := map[sse.Mode]string{sse.ModeManaged: "ring", sse.ModeKMS: "kms_key", sse.ModeCustomer: "customer_key_file"}
		return 0, fmt.Errorf("%w: mode %v needs %s", sse.ErrInvalid, mode, needs[mode])
	}
	return mode, nil
}

func openCustomer(file string) (*sse.Customer, error) {
	key, err := readKey("customer_key_file", file)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	return sse.NewCustomer(key)
}

// openRing opens the ring in a file.
func openRing(ctx context.Context, file string, p params) (*keyring.Ring, error) {
	root, err := openRoot(ctx, p)
	if err != nil {
		return nil, err
	}
	rings, err := keyring.NewFileStore(file)
	if err != nil {
		return nil, fmt.Errorf("ring: %w", err)
	}
	ring, err := keyring.Open(ctx, rings, root, nil)
	if err != nil {
		return nil, fmt.Errorf("ring %s: %w", file, err)
	}
	return ring, nil
}

// openRoot opens the root of a ring.
func openRoot(ctx context.Context, p params) (keyring.Root, error) {
	given := 0
	for _, name := range rootParams {
		if p[name] != "" {
			given++
		}
	}
	passphrase := os.Getenv(variable("passphrase"))
	switch {
	case given > 1:
		return nil, fmt.Errorf("%w: give one of %s", sse.ErrInvalid, strings.Join(rootParams, ", "))
	case p["root_key_file"] != "":
		key, err := readKey("root_key_file", p["root_key_file"])
		if err != nil {
			return nil, err
		}
		defer clear(key)
		return keyring.NewKeyRoot(key)
	case p["root_kms_key"] != "":
		client, keyID, err := openService(ctx, "root_kms_key", p["root_kms_key"])
		if err != nil {
			return nil, err
		}
		return keyring.NewKMSRoot(client, keyID, &keyring.KMSRootOptions{Principal: kms.PrincipalFrom(ctx)})
	case p["passphrase_file"] != "":
		text, err := os.ReadFile(p["passphrase_file"])
		if err != nil {
			return nil, fmt.Errorf("passphrase_file: %w", err)
		}
		defer clear(text)
		parsed, err := keyring.ParsePassphrase(text)
		if err != nil {
			return nil, fmt.Errorf("passphrase_file %s: %w", p["passphrase_file"], err)
		}
		return keyring.NewPassphraseRoot(parsed, nil)
	case passphrase != "":
		return keyring.NewPassphraseRoot([]byte(passphrase), nil)
	}
	return nil, fmt.Errorf("%w: the ring needs its root (add %s, or set %s)", sse.ErrInvalid, strings.Join(rootParams, ", "), variable("passphrase"))
}

// readKey reads a file with a key.
func readKey(name, file string) ([]byte, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	defer clear(text)
	key, err := keyring.ParseKey(text)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", name, file, err)
	}
	return key, nil
}
