package jobs_test

import (
	"context"
	"errors"

	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms"
)

var errDead = errors.New("the process is dead")

// flakyRing is the store of the ring, or of the key service. It fails like the object
// store, at random.
type flakyRing struct {
	keyring.Store
	h *history
}

func (f *flakyRing) Swap(ctx context.Context, version string, data []byte) (string, error) {
	switch {
	case f.h.proc != nil && f.h.proc.dead:
		return "", errDead
	case f.h.chance(30):
		return "", errRigged
	case f.h.chance(30):
		if _, err := f.Store.Swap(ctx, version, data); err != nil {
			return "", err
		}
		return "", errRigged // with effect
	}
	return f.Store.Swap(ctx, version, data)
}

// flakyKMS is the embedded key service behind a connection that fails at random.
type flakyKMS struct {
	kms.Client
	h *history
}

func (f flakyKMS) Unwrap() kms.Client { return f.Client }

// down returns an error once in a while, unless the model is being checked.
func (f flakyKMS) down() error {
	if f.h.depth > 0 && f.h.chance(20) {
		return kms.ErrUnavailable
	}
	return nil
}

func (f flakyKMS) GenerateDataKey(ctx context.Context, keyID string, ec kms.Context) (*kms.DataKey, error) {
	if err := f.down(); err != nil {
		return nil, err
	}
	return f.Client.GenerateDataKey(ctx, keyID, ec)
}

func (f flakyKMS) Decrypt(ctx context.Context, keyID string, ciphertext []byte, ec kms.Context) ([]byte, error) {
	if err := f.down(); err != nil {
		return nil, err
	}
	return f.Client.Decrypt(ctx, keyID, ciphertext, ec)
}
