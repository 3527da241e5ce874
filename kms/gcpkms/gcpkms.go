package gcpkms

import (
	"context"
	"crypto/rand"
	"fmt"
	"hash/crc32"
	"reflect"
	"strings"
	"unicode/utf8"

	google "cloud.google.com/go/kms/apiv1"
	"cloud.google.com/go/kms/apiv1/kmspb"
	"github.com/googleapis/gax-go/v2"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/blobseal/blobseal/kms"
)

// API is the part of Google's *kms.KeyManagementClient that this package calls.
type API interface {
	Encrypt(ctx context.Context, in *kmspb.EncryptRequest, opts ...gax.CallOption) (*kmspb.EncryptResponse, error)
	Decrypt(ctx context.Context, in *kmspb.DecryptRequest, opts ...gax.CallOption) (*kmspb.DecryptResponse, error)
}

var _ API = (*google.KeyManagementClient)(nil)

// Client is a [kms.Client] for Google Cloud KMS. It is safe for concurrent use.
type Client struct{ api API }

var (
	_ kms.Client      = (*Client)(nil)
	_ kms.KeyComparer = (*Client)(nil)
)

// New returns a client that calls api. The caller closes api.
func New(api API) (*Client, error) {
	if v := reflect.ValueOf(api); !v.IsValid() || v.Kind() == reflect.Pointer && v.IsNil() {
		return nil, fmt.Errorf("gcpkms: %w: New needs a client of Google's", kms.ErrInvalid)
	}
	return &Client{api}, nil
}

// GenerateDataKey implements [kms.Client].
func (c *Client) GenerateDataKey(ctx context.Context, keyID string, ec kms.Context) (*kms.DataKey, error) {
	dk, err := c.generate(ctx, keyID, ec)
	return dk, callError(ctx, kms.OpGenerateDataKey, keyID, err)
}

func (c *Client) generate(ctx context.Context, keyID string, ec kms.Context) (*kms.DataKey, error) {
	if err := checkRequest(ctx, keyID); err != nil {
		return nil, err
	}
	plaintext := make([]byte, kms.DataKeySize)
	defer clear(plaintext)
	rand.Read(plaintext) // never fails: it ends the program instead
	ad := ec.AssociatedData()
	out, err := c.api.Encrypt(ctx, &kmspb.EncryptRequest{
		Name:                              keyID,
		Plaintext:                         plaintext,
		PlaintextCrc32C:                   checksum(plaintext),
		AdditionalAuthenticatedData:       ad,
		AdditionalAuthenticatedDataCrc32C: checksum(ad),
	})
	if err != nil {
		return nil, err
	}
	version, ok := strings.CutPrefix(out.GetName(), keyID+versions)
	switch {
	case !ok || version == "":
		return nil, fmt.Errorf("%w: asked for key %q, Google answered for %q", kms.ErrUnavailable, keyID, out.GetName())
	case !out.GetVerifiedPlaintextCrc32C() || !out.GetVerifiedAdditionalAuthenticatedDataCrc32C():
		return nil, fmt.Errorf("%w: Google did not verify the request's checksums", kms.ErrUnavailable)
	case !isIntact(out.GetCiphertext(), out.GetCiphertextCrc32C()):
		return nil, fmt.Errorf("%w: the ciphertext's checksum does not match", kms.ErrUnavailable)
	case len(out.GetCiphertext()) == 0:
		return nil, fmt.Errorf("%w: the answer holds no ciphertext", kms.ErrUnavailable)
	}
	kms.ReportFrom(ctx).KeyVersion = version
	return kms.NewDataKey(keyID, plaintext, out.GetCiphertext())
}

// Decrypt implements [kms.Client].
func (c *Client) Decrypt(ctx context.Context, keyID string, ciphertext []byte, ec kms.Context) ([]byte, error) {
	plaintext, err := c.decrypt(ctx, keyID, ciphertext, ec)
	return plaintext, callError(ctx, kms.OpDecrypt, keyID, err)
}

func (c *Client) decrypt(ctx context.Context, keyID string, ciphertext []byte, ec kms.Context) ([]byte, error) {
	if err := checkRequest(ctx, keyID); err != nil {
		return nil, err
	}
	if len(ciphertext) == 0 {
		return nil, fmt.Errorf("%w: it is empty", kms.ErrCiphertext)
	}
	ad := ec.AssociatedData()
	out, err := c.api.Decrypt(ctx, &kmspb.DecryptRequest{
		Name:                              keyID,
		Ciphertext:                        ciphertext,
		CiphertextCrc32C:                  checksum(ciphertext),
		AdditionalAuthenticatedData:       ad,
		AdditionalAuthenticatedDataCrc32C: checksum(ad),
	})
	if err != nil {
		return nil, err
	}
	plaintext := out.GetPlaintext()
	if !isIntact(plaintext, out.GetPlaintextCrc32C()) {
		clear(plaintext)
		return nil, fmt.Errorf("%w: the plaintext's checksum does not match", kms.ErrUnavailable)
	}
	return kms.CheckDataKey(plaintext)
}

// checkRequest checks which key is asked for, and reports it.
func checkRequest(ctx context.Context, keyID string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if !isKey(keyID) {
		return fmt.Errorf("%w: want projects/*/locations/*/keyRings/*/cryptoKeys/*", kms.ErrInvalid)
	}
	kms.ReportFrom(ctx).KeyID = keyID
	return nil
}

// SameKey implements [kms.KeyComparer]. A key and its versions are one key, but a
// version is no name that the client takes. Google Cloud KMS has no aliases.
func (c *Client) SameKey(name, id string) (same, known bool) {
	key, _, _ := strings.Cut(id, versions)
	return isKey(name) && name == key, true
}

// versions stands between the name of a key and the number of its version.
const versions = "/cryptoKeyVersions/"

// isKey reports whether name has the form of a key's resource name.
func isKey(name string) bool {
	parts := strings.Split(name, "/")
	for i, collection := range []string{"projects", "locations", "keyRings", "cryptoKeys"} {
		if len(parts) != 8 || parts[2*i] != collection || parts[2*i+1] == "" {
			return false
		}
	}
	return utf8.ValidString(name) // else it fits no request
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(b []byte) *wrapperspb.Int64Value {
	return wrapperspb.Int64(int64(crc32.Checksum(b, castagnoli)))
}

// isIntact reports whether b has the checksum that came with it.
func isIntact(b []byte, sum *wrapperspb.Int64Value) bool {
	return sum != nil && sum.GetValue() == checksum(b).GetValue()
}
