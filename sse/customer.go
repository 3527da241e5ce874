package sse

import (
	"context"
	"crypto/md5"
	"encoding/base64"
	"fmt"

	"github.com/blobseal/blobseal/internal/secret"
)

// Customer is mode SSE-C: the caller brings the key with every request, and the
// service keeps none. The object has a data key of its own nevertheless, so that
// [Customer.Rewrap] exchanges the customer's key without touching the body. It
// is immutable, safe for concurrent use, and does not print its key.
type Customer struct{ key secret.Key }

// NewCustomer returns the mode for one customer key of 32 bytes, which is
// copied; another length is [ErrInvalid]. The key must be uniformly random; for
// passwords, derive one first. [ParseCustomerKey] reads one from S3's headers.
func NewCustomer(key []byte) (*Customer, error) {
	k, err := secret.New(key)
	if err != nil {
		return nil, fmt.Errorf("%w: customer %v", ErrInvalid, err)
	}
	return &Customer{key: k}, nil
}

// ParseCustomerKey returns the mode for a customer key as S3's headers bring it,
// x-amz-server-side-encryption-customer-algorithm, -key and -key-MD5: "AES256", a
// key of 32 bytes, and the key's MD5, both in standard base64. All else is
// [ErrInvalid], and the error shows none of the three. Whether a request brings a
// customer key at all is for the caller to ask first.
//
// The MD5 guards against accidents on the way and proves nothing else.
func ParseCustomerKey(algorithm, key, keyMD5 string) (*Customer, error) {
	if algorithm != "AES256" {
		return nil, fmt.Errorf("%w: customer algorithm is not AES256", ErrInvalid)
	}
	raw, err := base64.StdEncoding.DecodeString(key)
	defer clear(raw)
	if err != nil || base64.StdEncoding.EncodeToString(raw) != key { // which does without line ends
		return nil, fmt.Errorf("%w: customer key is not in base64", ErrInvalid)
	}
	if sum := md5.Sum(raw); keyMD5 != base64.StdEncoding.EncodeToString(sum[:]) {
		return nil, fmt.Errorf("%w: customer key does not have the MD5 that comes with it", ErrInvalid)
	}
	return NewCustomer(raw)
}

// Encrypt implements [Encrypter]. It needs no ctx.
func (c *Customer) Encrypt(_ context.Context, obj Object) (*Encryption, error) {
	return c.wrapping().encrypt(obj)
}

// Decrypt implements [Decrypter]. It needs no ctx. A wrong key is [ErrKey].
func (c *Customer) Decrypt(_ context.Context, obj Object, env *Envelope) (*Decryption, error) {
	if err := env.require(ModeCustomer); err != nil {
		return nil, err
	}
	return decrypt(keySealer{c.key}, obj, env)
}

// Rewrap implements [Cipher]. It needs no ctx.
func (c *Customer) Rewrap(_ context.Context, obj Object, d *Decryption) (*Envelope, error) {
	return c.wrapping().rewrap(obj, d)
}

func (c *Customer) wrapping() wrapping {
	return wrapping{mode: ModeCustomer, kek: keySealer{c.key}}
}

// String does not show the key.
func (c *Customer) String() string { return ModeCustomer.String() }

// GoString does not show the key.
func (c *Customer) GoString() string { return "sse.Customer{}" }
