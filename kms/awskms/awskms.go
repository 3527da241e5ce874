package awskms

import (
	"context"
	"fmt"
	"reflect"
	"strings"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	sdk "github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/aws/smithy-go/middleware"

	"github.com/blobseal/blobseal/kms"
)

// API is the part of the SDK's *kms.Client that this package calls.
type API interface {
	GenerateDataKey(ctx context.Context, in *sdk.GenerateDataKeyInput, optFns ...func(*sdk.Options)) (*sdk.GenerateDataKeyOutput, error)
	Decrypt(ctx context.Context, in *sdk.DecryptInput, optFns ...func(*sdk.Options)) (*sdk.DecryptOutput, error)
}

var _ API = (*sdk.Client)(nil)

// Options are for [New]. Most services leave them nil.
type Options struct {
	// ReplicaRegion is the region of the SDK's client. Set it if you use
	// multi-Region keys, whose ids begin with "mrk-": the client then asks for them
	// in this region, whatever region their ARN names, so objects written in
	// one region can be read in another. Other keys are not affected.
	ReplicaRegion string
}

// Client is a [kms.Client] for AWS KMS. It is safe for concurrent use.
type Client struct {
	api  API
	opts Options
}

var (
	_ kms.Client      = (*Client)(nil)
	_ kms.KeyComparer = (*Client)(nil)
)

// New returns a client that calls api.
func New(api API, opts *Options) (*Client, error) {
	if v := reflect.ValueOf(api); !v.IsValid() || v.Kind() == reflect.Pointer && v.IsNil() {
		return nil, fmt.Errorf("awskms: %w: New needs a client of the SDK", kms.ErrInvalid)
	}
	c := &Client{api: api}
	if opts != nil {
		c.opts = *opts
	}
	return c, nil
}

// maxCiphertext is the size of the longest ciphertext that AWS KMS takes.
const maxCiphertext = 6144

// GenerateDataKey implements [kms.Client].
func (c *Client) GenerateDataKey(ctx context.Context, keyID string, ec kms.Context) (*kms.DataKey, error) {
	dk, err := c.generate(ctx, keyID, ec)
	return dk, callError(ctx, kms.OpGenerateDataKey, keyID, err)
}

func (c *Client) generate(ctx context.Context, keyID string, ec kms.Context) (*kms.DataKey, error) {
	ask, err := c.checkRequest(ctx, keyID, ec)
	if err != nil {
		return nil, err
	}
	out, err := c.api.GenerateDataKey(ctx, &sdk.GenerateDataKeyInput{
		KeyId: &ask, KeySpec: types.DataKeySpecAes256, EncryptionContext: ec,
	}, withoutBodies)
	if err != nil {
		return nil, err
	}
	defer clear(out.Plaintext)
	if err := checkAnswer(ctx, ask, out.KeyId, out.KeyMaterialId, out.ResultMetadata); err != nil {
		return nil, err
	}
	if len(out.Plaintext) != kms.DataKeySize || len(out.CiphertextBlob) == 0 || len(out.CiphertextBlob) > maxCiphertext {
		return nil, fmt.Errorf("%w: AWS answered with a data key of %d bytes and a ciphertext of %d",
			kms.ErrUnavailable, len(out.Plaintext), len(out.CiphertextBlob))
	}
	return kms.NewDataKey(*out.KeyId, out.Plaintext, out.CiphertextBlob)
}

// Decrypt implements [kms.Client].
func (c *Client) Decrypt(ctx context.Context, keyID string, ciphertext []byte, ec kms.Context) ([]byte, error) {
	plaintext, err := c.decrypt(ctx, keyID, ciphertext, ec)
	return plaintext, callError(ctx, kms.OpDecrypt, keyID, err)
}

func (c *Client) decrypt(ctx context.Context, keyID string, ciphertext []byte, ec kms.Context) ([]byte, error) {
	ask, err := c.checkRequest(ctx, keyID, ec)
	if err != nil {
		return nil, err
	}
	if len(ciphertext) == 0 || len(ciphertext) > maxCiphertext {
		return nil, fmt.Errorf("%w: %d bytes, want 1 to %d", kms.ErrCiphertext, len(ciphertext), maxCiphertext)
	}
	out, err := c.api.Decrypt(ctx, &sdk.DecryptInput{
		KeyId: &ask, CiphertextBlob: ciphertext, EncryptionContext: ec,
	}, withoutBodies)
	if err != nil {
		return nil, err
	}
	if err := checkAnswer(ctx, ask, out.KeyId, out.KeyMaterialId, out.ResultMetadata); err != nil {
		clear(out.Plaintext)
		return nil, err
	}
	return kms.CheckDataKey(out.Plaintext)
}

// withoutBodies keeps data keys out of the log of the SDK's client.
func withoutBodies(o *sdk.Options) {
	if o.ClientLogMode.IsResponseWithBody() {
		o.ClientLogMode = o.ClientLogMode&^aws.LogResponseWithBody | aws.LogResponse
	}
}

// checkRequest checks a request and returns the key to ask AWS for.
func (c *Client) checkRequest(ctx context.Context, keyID string, ec kms.Context) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	if keyID == "" || !utf8.ValidString(keyID) {
		return "", fmt.Errorf("%w: key id is empty or not UTF-8", kms.ErrInvalid)
	}
	for k, v := range ec {
		if !utf8.ValidString(k) || !utf8.ValidString(v) {
			return "", fmt.Errorf("%w: encryption context is not UTF-8: %q: %q", kms.ErrInvalid, k, v)
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

// checkAnswer checks which key answered, and reports it.
func checkAnswer(ctx context.Context, asked string, answered, material *string, metadata middleware.Metadata) error {
	r := kms.ReportFrom(ctx)
	r.RequestID, _ = awsmiddleware.GetRequestIDMetadata(metadata)
	if by := aws.ToString(answered); !canAnswer(asked, by) {
		return fmt.Errorf("%w: asked for key %q, AWS answered for %q", kms.ErrUnavailable, asked, by)
	}
	r.KeyID, r.KeyVersion = *answered, aws.ToString(material)
	return nil
}
