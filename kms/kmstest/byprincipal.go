package kmstest

import (
	"context"

	"github.com/blobseal/blobseal/kms"
)

// ByPrincipal is a client that gives each call to the client of the principal in
// ctx. Remote services know callers by their credentials, so this is how a test
// has two principals with permissions of their own. The client of the zero
// principal takes the calls of all others.
type ByPrincipal map[kms.Principal]kms.Client

var _ kms.KeyComparer = ByPrincipal{}

func (b ByPrincipal) client(ctx context.Context) kms.Client {
	if c := b[kms.PrincipalFrom(ctx)]; c != nil {
		return c
	}
	return b[kms.Principal{}]
}

// GenerateDataKey implements [kms.Client].
func (b ByPrincipal) GenerateDataKey(ctx context.Context, keyID string, ec kms.Context) (*kms.DataKey, error) {
	return b.client(ctx).GenerateDataKey(ctx, keyID, ec)
}

// Decrypt implements [kms.Client].
func (b ByPrincipal) Decrypt(ctx context.Context, keyID string, ciphertext []byte, ec kms.Context) ([]byte, error) {
	return b.client(ctx).Decrypt(ctx, keyID, ciphertext, ec)
}

// SameKey implements [kms.KeyComparer].
func (b ByPrincipal) SameKey(name, id string) (same, known bool) {
	return kms.SameKey(b[kms.Principal{}], name, id)
}
