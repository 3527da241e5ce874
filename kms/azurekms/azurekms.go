package azurekms

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"

	"github.com/blobseal/blobseal/kms"
)

// Options are for [New]. With RSA keys leave them nil.
type Options struct {
	// Algorithm wraps new data keys: RSA-OAEP-256 if it is empty, or A256KW for
	// 256-bit symmetric keys, which only a Managed HSM has. The client decrypts data
	// keys of both.
	Algorithm azkeys.EncryptionAlgorithm

	// FormerVaults are the URLs of vaults whose keys you restored into the client's
	// vault, such as "https://photos.vault.azure.net". An id of a key there means
	// the key with the same name and version here.
	FormerVaults []string
}

// Client is a [kms.Client] for the keys of one vault or Managed HSM. It is safe for
// concurrent use.
type Client struct {
	keys      *azkeys.Client
	algorithm azkeys.EncryptionAlgorithm
	former    []string // hosts
}

var (
	_ kms.Client      = (*Client)(nil)
	_ kms.KeyComparer = (*Client)(nil)
)

// New returns a client for the keys in the vault or Managed HSM of keys. It makes
// no request.
func New(keys *azkeys.Client, opts *Options) (*Client, error) {
	if keys == nil {
		return nil, fmt.Errorf("azurekms: %w: New needs a client of the SDK", kms.ErrInvalid)
	}
	c := &Client{keys: keys, algorithm: azkeys.EncryptionAlgorithmRSAOAEP256}
	if opts == nil {
		return c, nil
	}
	if opts.Algorithm != "" {
		c.algorithm = opts.Algorithm
	}
	if _, ok := numberOf(c.algorithm); !ok {
		return nil, fmt.Errorf("azurekms: %w: algorithm %q", kms.ErrInvalid, c.algorithm)
	}
	for _, u := range opts.FormerVaults {
		parts := vaultURL.FindStringSubmatch(u)
		if parts == nil {
			return nil, fmt.Errorf("azurekms: %w: vault %q", kms.ErrInvalid, u)
		}
		c.former = append(c.former, strings.ToLower(parts[1]))
	}
	return c, nil
}

// GenerateDataKey implements [kms.Client].
func (c *Client) GenerateDataKey(ctx context.Context, keyID string, ec kms.Context) (*kms.DataKey, error) {
	dk, err := c.generate(ctx, keyID, ec)
	return dk, callError(ctx, kms.OpGenerateDataKey, keyID, err)
}

func (c *Client) generate(ctx context.Context, keyID string, ec kms.Context) (*kms.DataKey, error) {
	id, err := resolveKey(ctx, keyID)
	if err != nil {
		return nil, err
	}
	random := make([]byte, 2*kms.DataKeySize)
	defer clear(random)
	rand.Read(random) // never fails: it ends the program instead
	wrapping, plaintext := random[:kms.DataKeySize], random[kms.DataKeySize:]
	a, err := c.call(ctx, kms.OpGenerateDataKey, id, c.algorithm, wrapping)
	if err != nil {
		return nil, err
	}
	if len(a.value) == 0 || len(a.value) > maxWrapped {
		return nil, fmt.Errorf("%w: Azure returned no wrapped key", kms.ErrUnavailable)
	}
	sealed, err := kms.SealDataKey(wrapping, plaintext, ec)
	if err != nil {
		return nil, err
	}
	data, err := ciphertext{c.algorithm, a.key.version, a.value, sealed}.marshal()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", kms.ErrInvalid, err)
	}
	return kms.NewDataKey(a.kid, plaintext, data)
}

// Decrypt implements [kms.Client].
func (c *Client) Decrypt(ctx context.Context, keyID string, ciphertext []byte, ec kms.Context) ([]byte, error) {
	plaintext, err := c.decrypt(ctx, keyID, ciphertext, ec)
	return plaintext, callError(ctx, kms.OpDecrypt, keyID, err)
}

func (c *Client) decrypt(ctx context.Context, keyID string, data []byte, ec kms.Context) ([]byte, error) {
	id, err := resolveKey(ctx, keyID)
	if err != nil {
		return nil, err
	}
	ct, ok := parseCiphertext(data)
	if !ok {
		return nil, fmt.Errorf("%w: it is not one of this package", kms.ErrCiphertext)
	}
	if id.version == "" {
		id.version = ct.version
	}
	a, err := c.call(ctx, kms.OpDecrypt, id, ct.algorithm, ct.wrapped)
	if err != nil {
		return nil, err
	}
	defer clear(a.value)
	return kms.OpenDataKey(a.value, ct.sealed, ec)
}

// SameKey implements [kms.KeyComparer]. The versions of a key are one key, so that
// a rotation locks out no object. Key Vault compares names without regard to case,
// and has no aliases. A name without a vault is a key of the client's vault; if an
// id names a key of another vault, Decrypt returns [kms.ErrNotFound].
func (c *Client) SameKey(name, id string) (same, known bool) {
	a, ok := parseKeyID(name)
	b, also := parseKeyID(id)
	if !ok || !also || !strings.EqualFold(a.name, b.name) {
		return false, true
	}
	return a.vault == b.vault || a.vault == "" || b.vault == "" ||
		slices.Contains(c.former, a.vault) || slices.Contains(c.former, b.vault), true
}

// resolveKey parses the id of a key, and reports it.
func resolveKey(ctx context.Context, s string) (keyID, error) {
	if err := ctx.Err(); err != nil {
		return keyID{}, err
	}
	id, ok := parseKeyID(s)
	if !ok {
		return keyID{}, fmt.Errorf("%w: want NAME, NAME/VERSION or https://VAULT/keys/NAME/VERSION", kms.ErrNotFound)
	}
	if report := kms.ReportFrom(ctx); id.vault != "" && id.version != "" {
		report.KeyID, report.KeyVersion = s, id.version
	}
	return id, nil
}

// answer is Azure's answer to an operation.
type answer struct {
	kid   string // the key that was used, as Azure writes it
	key   keyID  // the same, parsed
	value []byte
}

// call wraps or unwraps value with the key id. It neither keeps nor changes value.
func (c *Client) call(ctx context.Context, op kms.Operation, id keyID, algorithm azkeys.EncryptionAlgorithm, value []byte) (answer, error) {
	result, response, err := c.callUntilDone(ctx, op, id, algorithm, value)
	report := kms.ReportFrom(ctx)
	if response != nil {
		report.RequestID = response.Header.Get("x-ms-request-id")
	}
	if err != nil {
		return answer{}, describe(id, err)
	}
	a := answer{value: result.Result}
	ok := false
	if result.KID != nil {
		a.kid = string(*result.KID)
		a.key, ok = parseKeyID(a.kid)
	}
	if !ok || a.key.vault == "" || !id.matches(a.key) {
		clear(a.value)
		return answer{}, fmt.Errorf("%w: asked for key %s, Azure answered for %q", kms.ErrUnavailable, id, a.kid)
	}
	if id.vault != "" && id.vault != a.key.vault && !slices.Contains(c.former, id.vault) {
		clear(a.value)
		return answer{}, fmt.Errorf("%w: %s is not in this client's vault %s", kms.ErrNotFound, id, a.key.vault)
	}
	report.KeyVersion = a.key.version
	if op == kms.OpGenerateDataKey || id.vault == "" {
		report.KeyID = a.kid
	}
	return a, nil
}

// callUntilDone calls Azure. It returns when ctx ends, even if the SDK does not, as
// when the SDK waits for a token that another caller fetches.
func (c *Client) callUntilDone(ctx context.Context, op kms.Operation, id keyID, algorithm azkeys.EncryptionAlgorithm, value []byte) (azkeys.KeyOperationResult, *http.Response, error) {
	type outcome struct {
		result   azkeys.KeyOperationResult
		response *http.Response
		err      error
	}
	own := slices.Clone(value) // the caller clears its own meanwhile
	call := func() (o outcome) {
		defer clear(own)
		ctx := policy.WithCaptureResponse(ctx, &o.response)
		parameters := azkeys.KeyOperationParameters{Algorithm: &algorithm, Value: own}
		if op == kms.OpGenerateDataKey {
			r, err := c.keys.WrapKey(ctx, id.name, id.version, parameters, nil)
			o.result, o.err = r.KeyOperationResult, err
		} else {
			r, err := c.keys.UnwrapKey(ctx, id.name, id.version, parameters, nil)
			o.result, o.err = r.KeyOperationResult, err
		}
		return o
	}
	o, err := kms.CallWithContext(ctx, call, func(o outcome) { clear(o.result.Result) })
	if err != nil {
		return azkeys.KeyOperationResult{}, nil, err
	}
	return o.result, o.response, o.err
}
