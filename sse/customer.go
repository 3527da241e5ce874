package sse

import (
	"context"
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
// passwords, derive one first. The example reads it from S3's headers.
func NewCustomer(key []byte) (*Customer, error) {
	k, err := secret.New(key)
	if err != nil {
		return nil, fmt.Errorf("%w: customer %v", ErrInvalid, err)
	}
	return &Customer{key: k}, nil
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
