package awskms

import (
	"context"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/arn"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	sdk "github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/aws/smithy-go/middleware"

	"github.com/blobseal/blobseal/kms"
)

// API is what is used of the SDK's client, which is *kms.Client of
// github.com/aws/aws-sdk-go-v2/service/kms.
type API interface {
	GenerateDataKey(ctx context.Context, in *sdk.GenerateDataKeyInput, optFns ...func(*sdk.Options)) (*sdk.GenerateDataKeyOutput, error)
	Decrypt(ctx context.Context, in *sdk.DecryptInput, optFns ...func(*sdk.Options)) (*sdk.DecryptOutput, error)
}

var _ API = (*sdk.Client)(nil)

// Options are the options of [New].
type Options struct {
	// ReplicaRegion, if it is set, is where multi-Region keys are asked, whose ids
	// begin with "mrk-", whatever region a key's ARN names: that of the SDK's
	// client. So objects that were written with a key in one region are read with
	// its replica in another. Other keys are not affected.
	ReplicaRegion string
}

// Client is a [kms.Client] of the keys of AWS KMS. It is safe for concurrent use.
type Client struct {
	api  API
	opts Options
}

var (
	_ kms.Client      = (*Client)(nil)
	_ kms.KeyComparer = (*Client)(nil)
)

// New returns a client over the SDK's. nil opts means the defaults.
func New(api API, opts *Options) (*Client, error) {
	if api == nil {
		return nil, fmt.Errorf("awskms: %w: a client of the SDK is required", kms.ErrInvalid)
	}
	c := &Client{api: api}
	if opts != nil {
		c.opts = *opts
	}
	return c, nil
}

// maxCiphertext is the length of the longest ciphertext that AWS KMS takes.
const maxCiphertext = 6144

// GenerateDataKey implements [kms.Client].
func (c *Client) GenerateDataKey(ctx context.Context, keyID string, ec kms.Context) (*kms.DataKey, error) {
	keyID, err := c.begin(ctx, keyID, ec)
	if err != nil {
		return nil, err
	}
	out, err := c.api.GenerateDataKey(ctx, &sdk.GenerateDataKeyInput{
		KeyId: &keyID, KeySpec: types.DataKeySpecAes256, EncryptionContext: ec,
	}, withoutBodies)
	if err != nil {
		return nil, fail(ctx, err)
	}
	defer clear(out.Plaintext)
	if err := end(ctx, keyID, out.KeyId, out.KeyMaterialId, out.ResultMetadata); err != nil {
		return nil, err
	}
	if len(out.Plaintext) != kms.DataKeySize || len(out.CiphertextBlob) == 0 || len(out.CiphertextBlob) > maxCiphertext {
		return nil, fmt.Errorf("awskms: %w: it answered with a data key of %d bytes and a ciphertext of %d",
			kms.ErrUnavailable, len(out.Plaintext), len(out.CiphertextBlob))
	}
	return kms.NewDataKey(*out.KeyId, out.Plaintext, out.CiphertextBlob)
}

// Decrypt implements [kms.Client].
func (c *Client) Decrypt(ctx context.Context, keyID string, ciphertext []byte, ec kms.Context) ([]byte, error) {
	keyID, err := c.begin(ctx, keyID, ec)
	if err != nil {
		return nil, err
	}
	if len(ciphertext) == 0 || len(ciphertext) > maxCiphertext {
		return nil, fmt.Errorf("awskms: %w: it has %d bytes, and AWS KMS makes 1 to %d", kms.ErrCiphertext, len(ciphertext), maxCiphertext)
	}
	out, err := c.api.Decrypt(ctx, &sdk.DecryptInput{
		KeyId: &keyID, CiphertextBlob: ciphertext, EncryptionContext: ec,
	}, withoutBodies)
	if err != nil {
		return nil, fail(ctx, err)
	}
	if err := end(ctx, keyID, out.KeyId, out.KeyMaterialId, out.ResultMetadata); err != nil {
		clear(out.Plaintext)
		return nil, err
	}
	if len(out.Plaintext) != kms.DataKeySize {
		clear(out.Plaintext)
		return nil, fmt.Errorf("awskms: %w: it holds %d bytes that are no data key", kms.ErrCiphertext, len(out.Plaintext))
	}
	return out.Plaintext, nil
}

// withoutBodies keeps data keys out of the log of the SDK's client.
func withoutBodies(o *sdk.Options) {
	if o.ClientLogMode.IsResponseWithBody() {
		o.ClientLogMode = o.ClientLogMode&^aws.LogResponseWithBody | aws.LogResponse
	}
}

// begin checks what is asked, and returns the key to ask for.
func (c *Client) begin(ctx context.Context, keyID string, ec kms.Context) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	if keyID == "" || !utf8.ValidString(keyID) {
		return "", fmt.Errorf("awskms: %w: key id %q", kms.ErrInvalid, keyID)
	}
	for k, v := range ec {
		if !utf8.ValidString(k) || !utf8.ValidString(v) {
			return "", fmt.Errorf("awskms: %w: pair %q: %q of the encryption context is not UTF-8", kms.ErrInvalid, k, v)
		}
	}
	a, ok := parseKeyARN(keyID)
	if !ok {
		return keyID, nil
	}
	if c.opts.ReplicaRegion != "" && strings.HasPrefix(a.Resource, keyResource+multiRegion) {
		a.Region = c.opts.ReplicaRegion
		keyID = a.String()
	}
	kms.ReportFrom(ctx).KeyID = keyID
	return keyID, nil
}

// end checks which key answered, and reports it.
func end(ctx context.Context, asked string, answered, material *string, metadata middleware.Metadata) error {
	r := kms.ReportFrom(ctx)
	r.RequestID, _ = awsmiddleware.GetRequestIDMetadata(metadata)
	if by := aws.ToString(answered); !names(asked, by) {
		return fmt.Errorf("awskms: %w: asked for key %q, it answered by %q", kms.ErrUnavailable, asked, by)
	}
	r.KeyID, r.KeyVersion = *answered, aws.ToString(material)
	return nil
}

// SameKey implements [kms.KeyComparer]. A key id and a key ARN with that id mean
// one key, and so do the ARNs of a multi-Region key in two regions: both have the
// same key material. AWS KMS resolves aliases when they are used.
func (c *Client) SameKey(name, id string) (same, known bool) {
	if name == "" || !utf8.ValidString(name) {
		return false, true
	}
	if name == id {
		return true, true
	}
	if isAlias(name) {
		return false, false
	}
	b, ok := parseKeyARN(id)
	if !ok {
		return false, true
	}
	a, ok := parseKeyARN(name)
	if !ok {
		return keyResource+name == b.Resource, true
	}
	if strings.HasPrefix(a.Resource, keyResource+multiRegion) {
		a.Region = b.Region
	}
	return a == b, true
}

// isAlias reports whether name is an alias or the ARN of one.
func isAlias(name string) bool {
	if a, err := arn.Parse(name); err == nil {
		name = a.Resource
	}
	return strings.HasPrefix(name, aliasResource)
}

const (
	keyResource   = "key/"
	multiRegion   = "mrk-"
	aliasResource = "alias/"
)

// parseKeyARN parses the ARN of a key, not of an alias.
func parseKeyARN(s string) (arn.ARN, bool) {
	a, err := arn.Parse(s)
	return a, err == nil && a.Service == "kms" && len(a.Resource) > len(keyResource) && strings.HasPrefix(a.Resource, keyResource)
}

// names reports whether asked, in any of the forms in which AWS KMS takes it, can
// name the key whose ARN is answered.
func names(asked, answered string) bool {
	key, ok := parseKeyARN(answered)
	if !ok {
		return false
	}
	if strings.HasPrefix(asked, aliasResource) {
		return true // of whichever key
	}
	a, err := arn.Parse(asked)
	switch {
	case err != nil:
		return key.Resource == keyResource+asked
	case strings.HasPrefix(a.Resource, aliasResource):
		return a.Partition == key.Partition && a.Region == key.Region && a.AccountID == key.AccountID
	default:
		return asked == answered
	}
}
