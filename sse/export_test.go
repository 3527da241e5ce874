package sse

import (
	"context"

	"github.com/blobseal/blobseal/internal/secret"
)

// WithKEK is a mode whose key-encryption key is given: what a key service would
// have returned.
type WithKEK struct {
	ForMode Mode
	KeyID   string
	Wrapped []byte
	KEK     []byte

	BucketKey bool
}

func (k WithKEK) Mode() Mode { return k.ForMode }

func (k WithKEK) wrap(context.Context, Object) (wrapping, error) {
	key, err := secret.New(k.KEK)
	return wrapping{mode: k.ForMode, keyID: k.KeyID, wrapped: k.Wrapped, bucketKey: k.BucketKey, kek: keySealer{key}}, err
}

func (k WithKEK) Encrypt(ctx context.Context, obj Object) (*Encryption, error) {
	return encrypt(ctx, k, obj)
}

func (k WithKEK) Decrypt(_ context.Context, obj Object, env *Envelope) (*Decryption, error) {
	if err := env.checkMode(k.ForMode); err != nil {
		return nil, err
	}
	key, err := secret.New(k.KEK)
	if err != nil {
		return nil, err
	}
	return decrypt(keySealer{key}, obj, env)
}
