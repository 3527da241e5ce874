package sse

import (
	"context"
	"crypto/md5"
	"encoding/base64"
	"fmt"

	"github.com/blobseal/blobseal/internal/secret"
)

// Customer is mode SSE-C: the caller sends the key with each request, and the
// service keeps none. The object still has a data key of its own, so
// [Customer.Rewrap] exchanges the customer's key without touching the body. A
// Customer is immutable, safe for concurrent use, and does not print its key.
type Customer struct{ key secret.Key }

// NewCustomer returns the mode for a customer's key, which it copies. The key
// must be 32 uniformly random bytes: derive one first if all you have is a
// password. A key of a different length, or of 32 zeros, is [ErrInvalid]. Use
// [ParseCustomerKey] for a key in S3's headers.
func NewCustomer(key []byte) (*Customer, error) {
	k, err := secret.Import(key)
	if err != nil {
		return nil, fmt.Errorf("%w: customer %v", ErrInvalid, err)
	}
	return &Customer{key: k}, nil
}

// ParseCustomerKey returns the mode for a customer's key in the headers
// x-amz-server-side-encryption-customer-algorithm, -key and -key-MD5: "AES256", a
// key of 32 bytes, and the MD5 of the key, the last two in standard base64.
// Anything else is [ErrInvalid], and the error shows none of the three. If all
// headers are missing, the request brings no customer key: check that first.
//
// The MD5 detects accidents in transit and proves nothing else.
func ParseCustomerKey(algorithm, key, keyMD5 string) (*Customer, error) {
	if algorithm != "AES256" {
		return nil, fmt.Errorf("%w: customer algorithm is not AES256", ErrInvalid)
	}
	raw, err := base64.StdEncoding.DecodeString(key)
	defer clear(raw)
	if err != nil || base64.StdEncoding.EncodeToString(raw) != key { // DecodeString skips line ends
		return nil, fmt.Errorf("%w: customer key is not in base64", ErrInvalid)
	}
	if keyMD5 != md5Of(raw) {
		return nil, fmt.Errorf("%w: customer key does not match its MD5 (send the key's MD5 in base64)", ErrInvalid)
	}
	return NewCustomer(raw)
}

func md5Of(key []byte) string {
	sum := md5.Sum(key)
	return base64.StdEncoding.EncodeToString(sum[:])
}

// KeyMD5 returns the MD5 of the key in base64, which S3 repeats in each response
// of an SSE-C request. It is empty if c has no key.
func (c *Customer) KeyMD5() string {
	if c.check() != nil {
		return ""
	}
	return md5Of(c.key.Bytes())
}

// Mode returns [ModeCustomer].
func (c *Customer) Mode() Mode { return ModeCustomer }

// check refuses a Customer that NewCustomer did not make.
func (c *Customer) check() error {
	if c == nil || c.key.IsZero() {
		return fmt.Errorf("%w: SSE-C cipher has no key (make it with NewCustomer)", ErrInvalid)
	}
	return nil
}

// Encrypt implements [Encrypter]. It needs no ctx.
func (c *Customer) Encrypt(ctx context.Context, obj Object) (*Encryption, error) {
	return encrypt(ctx, c, obj)
}

// Decrypt implements [Decrypter]. It needs no ctx. A wrong key is [ErrKey].
func (c *Customer) Decrypt(_ context.Context, obj Object, env *Envelope) (*Decryption, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	if err := env.checkMode(ModeCustomer); err != nil {
		return nil, err
	}
	return decrypt(keySealer{c.key}, obj, env)
}

// Rewrap implements [Cipher]. It needs no ctx.
func (c *Customer) Rewrap(ctx context.Context, obj Object, d *Decryption) (*Envelope, error) {
	return rewrap(ctx, c, obj, d)
}

func (c *Customer) wrap(context.Context, Object) (wrapping, error) {
	if err := c.check(); err != nil {
		return wrapping{}, err
	}
	return wrapping{mode: ModeCustomer, kek: keySealer{c.key}}, nil
}
