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

	"github.com/blobseal/blobseal/internal/chunked"
	"github.com/blobseal/blobseal/kms"
)

// Options are the options of [New].
type Options struct {
	// Algorithm wraps new data keys: RSA-OAEP-256 if it is empty, or A256KW for
	// 256-bit symmetric keys, which only a Managed HSM has. Data keys of both are
	// decrypted, whatever is set here.
	Algorithm azkeys.EncryptionAlgorithm

	// FormerVaults are the URLs of vaults whose keys were restored into the
	// client's, such as "https://photos.vault.azure.net". Ids of keys in them stand
	// for the keys of the same name and version here.
	FormerVaults []string
}

// Client is a [kms.Client] over Key Vault. It is safe for concurrent use.
type Client struct {
	keys      *azkeys.Client
	algorithm azkeys.EncryptionAlgorithm
	former    []string // hosts
}

var (
	_ kms.Client      = (*Client)(nil)
	_ kms.KeyComparer = (*Client)(nil)
)

// New returns a client of the keys in one vault or Managed HSM. It makes no request.
// nil opts means RSA keys, and no other vault's.
func New(keys *azkeys.Client, opts *Options) (*Client, error) {
	if keys == nil {
		return nil, fmt.Errorf("azurekms: %w: no client", kms.ErrInvalid)
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
	id, err := begin(ctx, keyID)
	if err != nil {
		return nil, err
	}
	random := make([]byte, chunked.KeySize+kms.DataKeySize)
	defer clear(random)
	rand.Read(random) // never fails: it ends the program instead
	wrapping, plaintext := random[:chunked.KeySize], random[chunked.KeySize:]
	a, err := c.call(ctx, kms.OpGenerateDataKey, id, c.algorithm, wrapping)
	if err != nil {
		return nil, err
	}
	if len(a.value) == 0 || len(a.value) > maxWrapped {
		return nil, fmt.Errorf("azurekms: %w: Azure returned no wrapped key", kms.ErrUnavailable)
	}
	sealed, err := chunked.Seal(wrapping, ec.AssociatedData(), plaintext)
	if err != nil {
		return nil, fmt.Errorf("azurekms: %w: %w", kms.ErrInvalid, err)
	}
	data, err := ciphertext{c.algorithm, a.key.version, a.value, sealed}.marshal()
	if err != nil {
		return nil, fmt.Errorf("azurekms: %w: %w", kms.ErrInvalid, err)
	}
	return kms.NewDataKey(a.kid, plaintext, data)
}

// Decrypt implements [kms.Client].
func (c *Client) Decrypt(ctx context.Context, keyID string, data []byte, ec kms.Context) ([]byte, error) {
	id, err := begin(ctx, keyID)
	if err != nil {
		return nil, err
	}
	ct, ok := parseCiphertext(data)
	if !ok {
		return nil, fmt.Errorf("azurekms: %w: it is none of this package's", kms.ErrCiphertext)
	}
	if id.version == "" {
		id.version = ct.version
	}
	a, err := c.call(ctx, kms.OpDecrypt, id, ct.algorithm, ct.wrapped)
	if err != nil {
		return nil, err
	}
	defer clear(a.value)
	plaintext, err := chunked.OpenMessage(a.value, ec.AssociatedData(), ct.sealed)
	if err != nil { // also where what was wrapped is no key
		return nil, fmt.Errorf("azurekms: %w", kms.ErrCiphertext)
	}
	return plaintext, nil
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

// begin returns what the id of a key says.
func begin(ctx context.Context, s string) (keyID, error) {
	if err := ctx.Err(); err != nil {
		return keyID{}, err
	}
	id, ok := parseKeyID(s)
	if !ok {
		return keyID{}, fmt.Errorf("azurekms: %w: %q is no id of a key", kms.ErrNotFound, s)
	}
	if report := kms.ReportFrom(ctx); id.vault != "" && id.version != "" {
		report.KeyID, report.KeyVersion = s, id.version
	}
	return id, nil
}

// answer is what Azure says to an operation.
type answer struct {
	kid   string // of the key that did it, as Azure writes it
	key   keyID  // the same
	value []byte
}

// call has the key id wrap or unwrap value, which it neither keeps nor changes.
func (c *Client) call(ctx context.Context, op kms.Operation, id keyID, algorithm azkeys.EncryptionAlgorithm, value []byte) (answer, error) {
	result, response, err := c.abandonable(ctx, op, id, algorithm, value)
	report := kms.ReportFrom(ctx)
	if response != nil {
		report.RequestID = response.Header.Get("x-ms-request-id")
	}
	if err != nil {
		return answer{}, classify(ctx, op, id, err)
	}
	a := answer{value: result.Result}
	ok := false
	if result.KID != nil {
		a.kid = string(*result.KID)
		a.key, ok = parseKeyID(a.kid)
	}
	if !ok || a.key.vault == "" || !id.matches(a.key) {
		clear(a.value)
		return answer{}, fmt.Errorf("azurekms: %w: asked for the key %s, Azure answered for %q", kms.ErrUnavailable, id, a.kid)
	}
	if id.vault != "" && id.vault != a.key.vault && !slices.Contains(c.former, id.vault) {
		clear(a.value)
		return answer{}, fmt.Errorf("azurekms: %w: %s, in %s", kms.ErrNotFound, id, a.key.vault)
	}
	report.KeyVersion = a.key.version
	if op == kms.OpGenerateDataKey || id.vault == "" {
		report.KeyID = a.kid
	}
	return a, nil
}

// abandonable calls Azure, and returns when ctx ends even if the SDK does not, as
// when it waits for the token that another caller fetches.
func (c *Client) abandonable(ctx context.Context, op kms.Operation, id keyID, algorithm azkeys.EncryptionAlgorithm, value []byte) (azkeys.KeyOperationResult, *http.Response, error) {
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
	if ctx.Done() == nil {
		o := call()
		return o.result, o.response, o.err
	}
	outcomes := make(chan outcome)
	go func() {
		o := call()
		select {
		case outcomes <- o:
		case <-ctx.Done():
			clear(o.result.Result)
		}
	}()
	select {
	case o := <-outcomes:
		return o.result, o.response, o.err
	case <-ctx.Done():
		return azkeys.KeyOperationResult{}, nil, ctx.Err()
	}
}
