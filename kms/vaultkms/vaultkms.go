package vaultkms

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"regexp"
	"strings"
	"sync"
	"time"

	vault "github.com/hashicorp/vault/api"

	"github.com/blobseal/blobseal/kms"
)

const (
	// checkAge is how long a key is taken for derived without a look at it.
	checkAge = 5 * time.Minute
	// maxCiphertext is more than any ciphertext of a data key has.
	maxCiphertext = 1024
	// maxResponse is more than any description of a key has.
	maxResponse = 1 << 20
)

// Options are for [New]. Leave them nil if Transit is mounted at "transit".
type Options struct {
	// Mount is the path at which Transit is mounted, "transit" if it is empty. It
	// may begin with a namespace, relative to the client's: "teams/photos/transit".
	Mount string
}

// Client is a [kms.Client] for the keys of one Transit mount. It is safe for
// concurrent use.
type Client struct {
	vault *vault.Client
	mount string
	now   func() time.Time

	mu      sync.Mutex
	derived map[string]time.Time // names of keys, and until when they count as derived
}

var (
	_ kms.Client      = (*Client)(nil)
	_ kms.KeyComparer = (*Client)(nil)
)

// New returns a client for the keys of one Transit mount. It makes no request. The
// caller may change client later, for example its token: the next call uses that.
func New(client *vault.Client, opts *Options) (*Client, error) {
	if client == nil {
		return nil, fmt.Errorf("vaultkms: %w: New needs a client of Vault", kms.ErrInvalid)
	}
	mount := "transit"
	if opts != nil && opts.Mount != "" {
		mount = strings.Trim(opts.Mount, "/")
	}
	for _, part := range strings.Split(mount, "/") {
		if !mountPart.MatchString(part) {
			return nil, fmt.Errorf("vaultkms: %w: mount %q", kms.ErrInvalid, mount)
		}
	}
	return &Client{vault: client, mount: mount, now: time.Now, derived: make(map[string]time.Time)}, nil
}

// Request paths are made of these, so no option, and no key id from an envelope, can
// lead elsewhere.
var (
	mountPart = regexp.MustCompile(`^[\w-][\w .-]*$`)
	keyName   = regexp.MustCompile(`^\w([\w.-]{0,254}\w)?$`) // as in Transit itself
)

// GenerateDataKey implements [kms.Client].
func (c *Client) GenerateDataKey(ctx context.Context, keyID string, ec kms.Context) (*kms.DataKey, error) {
	dk, err := c.generate(ctx, keyID, ec)
	return dk, callError(ctx, kms.OpGenerateDataKey, keyID, err)
}

func (c *Client) generate(ctx context.Context, keyID string, ec kms.Context) (key *kms.DataKey, err error) {
	name, err := c.resolveKey(ctx, keyID)
	if err != nil {
		return nil, err
	}
	defer func() { c.recheckAfter(name, err) }()
	data, err := c.use(ctx, "datakey/plaintext", name, map[string]any{
		"context": base64.StdEncoding.EncodeToString(ec.AssociatedData()),
		"bits":    8 * kms.DataKeySize,
	})
	if err != nil {
		return nil, err
	}
	ciphertext, _ := data["ciphertext"].(string)
	version, ok := versionOf([]byte(ciphertext))
	plaintext, decoded := plaintextOf(data)
	defer clear(plaintext)
	if !ok || !decoded || len(plaintext) != kms.DataKeySize {
		return nil, fmt.Errorf("%w: Vault returned no data key", kms.ErrUnavailable)
	}
	kms.ReportFrom(ctx).KeyVersion = version
	return kms.NewDataKey(c.id(name), plaintext, []byte(ciphertext))
}

// Decrypt implements [kms.Client].
func (c *Client) Decrypt(ctx context.Context, keyID string, ciphertext []byte, ec kms.Context) ([]byte, error) {
	plaintext, err := c.decrypt(ctx, keyID, ciphertext, ec)
	return plaintext, callError(ctx, kms.OpDecrypt, keyID, err)
}

func (c *Client) decrypt(ctx context.Context, keyID string, ciphertext []byte, ec kms.Context) (plaintext []byte, err error) {
	name, err := c.resolveKey(ctx, keyID)
	if err != nil {
		return nil, err
	}
	version, ok := versionOf(ciphertext)
	if !ok {
		return nil, fmt.Errorf("%w: it is not one of Transit", kms.ErrCiphertext)
	}
	defer func() { c.recheckAfter(name, err) }()
	kms.ReportFrom(ctx).KeyVersion = version
	data, err := c.use(ctx, "decrypt", name, map[string]any{
		"context":    base64.StdEncoding.EncodeToString(ec.AssociatedData()),
		"ciphertext": string(ciphertext),
	})
	if err != nil {
		return nil, err
	}
	if plaintext, ok = plaintextOf(data); !ok {
		return nil, fmt.Errorf("%w: Vault returned no plaintext", kms.ErrUnavailable)
	}
	return kms.CheckDataKey(plaintext)
}

// resolveKey returns the name in the mount of the key that keyID means, and reports it.
func (c *Client) resolveKey(ctx context.Context, keyID string) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	name, ok := c.name(keyID)
	if !ok {
		return "", fmt.Errorf("%w: want NAME or %s", kms.ErrNotFound, c.id("NAME"))
	}
	kms.ReportFrom(ctx).KeyID = c.id(name)
	return name, nil
}

// SameKey implements [kms.KeyComparer]. "photos" and "transit/keys/photos" are one
// key in the mount "transit". Transit has no aliases.
func (c *Client) SameKey(name, id string) (same, known bool) {
	a, ok := c.name(name)
	b, _ := c.name(id)
	return ok && a == b, true
}

// name returns the name in the mount of the key that keyID means.
func (c *Client) name(keyID string) (string, bool) {
	name := strings.TrimPrefix(keyID, c.id(""))
	return name, keyName.MatchString(name)
}

// id returns the id of the key with that name.
func (c *Client) id(name string) string { return c.mount + "/keys/" + name }

// use calls Transit's endpoint with the key of that name, after it has checked that
// the key is derived. It returns the data of the answer.
func (c *Client) use(ctx context.Context, endpoint, name string, input map[string]any) (map[string]any, error) {
	if err := c.requireDerived(ctx, name); err != nil {
		return nil, err
	}
	path := c.mount + "/" + endpoint + "/" + name
	secret, err := c.vault.Logical().WriteWithContext(ctx, path, input)
	if err != nil {
		return nil, describe("write "+path, err)
	}
	if secret == nil {
		return nil, fmt.Errorf("%w: write %s: Vault's answer is empty", kms.ErrUnavailable, path)
	}
	kms.ReportFrom(ctx).RequestID = secret.RequestID
	return secret.Data, nil
}

// requireDerived returns an error unless the key of that name is derived, so that it
// binds contexts. That cannot change while the key exists. But the key can be
// deleted, and another made in its place, so requireDerived asks again after checkAge.
func (c *Client) requireDerived(ctx context.Context, name string) error {
	c.mu.Lock()
	until := c.derived[name]
	c.mu.Unlock()
	now := c.now()
	if now.Before(until) {
		return nil
	}
	key, err := c.readKey(ctx, name)
	if err != nil {
		return err
	}
	derived, ok := key["derived"].(bool)
	switch {
	case !ok:
		return fmt.Errorf("%w: Vault does not say whether %q is derived", kms.ErrUnavailable, name)
	case key["soft_deleted"] == true: // OpenBao
		return fmt.Errorf("%w: %q is soft-deleted", kms.ErrPendingDeletion, name)
	case !derived:
		return fmt.Errorf("%w: the key is not derived and would ignore the encryption context (make one with: vault write -f %s derived=true)",
			kms.ErrInvalid, c.id("NAME"))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.derived[name] = now.Add(checkAge)
	return nil
}

// recheckAfter makes the next use of a key check it again if this one failed.
func (c *Client) recheckAfter(name string, err error) {
	if err == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.derived, name)
}

// readKey reads the description of the key with that name. It does not call the
// client's Read, which does not tell a missing key from an empty answer.
func (c *Client) readKey(ctx context.Context, name string) (map[string]any, error) {
	bounded := ctx
	if timeout := c.vault.ClientTimeout(); timeout > 0 { // which Read applies, and ReadRaw does not promise to
		var cancel context.CancelFunc
		bounded, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	path := c.id(name)
	response, err := c.vault.Logical().ReadRawWithContext(bounded, path)
	if response != nil && response.Body != nil {
		defer response.Body.Close()
	}
	if err != nil {
		return nil, describe("read "+path, err)
	}
	secret, err := vault.ParseSecret(io.LimitReader(response.Body, maxResponse))
	if err != nil {
		return nil, describe("read "+path, err)
	}
	if secret == nil {
		return nil, fmt.Errorf("%w: read %s: Vault's answer is empty", kms.ErrUnavailable, path)
	}
	return secret.Data, nil
}

// versionOf returns the version of the key that a ciphertext names. It returns false
// for text that Transit does not write. Transit reads more than it writes, such as v0
// for v1 and base64 with line breaks, but here a data key has one ciphertext.
func versionOf(ciphertext []byte) (string, bool) {
	if len(ciphertext) > maxCiphertext {
		return "", false
	}
	parts := ciphertextForm.FindSubmatch(ciphertext)
	if parts == nil {
		return "", false
	}
	if _, err := base64.StdEncoding.Strict().Decode(make([]byte, len(parts[2])), parts[2]); err != nil {
		return "", false
	}
	return string(parts[1]), true
}

var ciphertextForm = regexp.MustCompile(`^vault:v([1-9][0-9]{0,8}):([A-Za-z0-9+/]+=*)$`)

// plaintextOf returns the plaintext in an answer.
func plaintextOf(data map[string]any) ([]byte, bool) {
	text, ok := data["plaintext"].(string)
	if !ok || len(text) > maxCiphertext {
		return nil, false
	}
	plaintext, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		clear(plaintext)
		return nil, false
	}
	return plaintext, true
}
