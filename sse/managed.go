package sse

import (
	"context"
	"errors"
	"fmt"

	"github.com/blobseal/blobseal/keyring"
)

// managed is the cipher of [NewManaged].
type managed struct{ ring *keyring.Ring }

// NewManaged returns mode SSE-S3 for an open ring. It seals data keys under the
// primary version of the ring's master key, and opens them under every version that
// the ring holds. Without a ring, every call is [ErrInvalid].
//
// ctx bounds a rotation that is due, and the ring's search for a version that is new
// to it. Errors of package keyring are visible to [errors.Is]. On Decrypt, a version
// that the ring does not hold is [ErrKey] and [keyring.ErrUnknownKey]. If the store
// of the ring fails, nobody knows whether the version exists, and the error is not
// ErrKey. A disabled or destroyed version is [keyring.ErrDisabled] or
// [keyring.ErrDestroyed].
func NewManaged(ring *keyring.Ring) Cipher { return &managed{ring: ring} }

// Mode returns [ModeManaged].
func (m *managed) Mode() Mode { return ModeManaged }

// check refuses a mode without a ring.
func (m *managed) check() error {
	if m.ring == nil {
		return fmt.Errorf("%w: SSE-S3 cipher has no ring (give NewManaged an open ring)", ErrInvalid)
	}
	return nil
}

// Encrypt implements [Encrypter], under the ring's primary version.
func (m *managed) Encrypt(ctx context.Context, obj Object) (*Encryption, error) {
	return encrypt(ctx, m, obj)
}

// Decrypt implements [Decrypter].
func (m *managed) Decrypt(ctx context.Context, obj Object, env *Envelope) (*Decryption, error) {
	if err := m.check(); err != nil {
		return nil, err
	}
	if err := env.checkMode(ModeManaged); err != nil {
		return nil, err
	}
	obj, err := obj.opened(env)
	if err != nil {
		return nil, err
	}
	key, err := m.ring.Key(ctx, env.keyID)
	switch {
	case err == nil:
		return decrypt(key, obj, env)
	case errors.Is(err, keyring.ErrUnknownKey) && !errors.Is(err, keyring.ErrStore):
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	return nil, fmt.Errorf("sse: %w", err)
}

// Rewrap implements [Cipher], under the ring's primary version.
func (m *managed) Rewrap(ctx context.Context, obj Object, d *Decryption) (*Envelope, error) {
	return rewrap(ctx, m, obj, d)
}

func (m *managed) wrap(ctx context.Context, _ Object) (wrapping, error) {
	if err := m.check(); err != nil {
		return wrapping{}, err
	}
	key, err := m.ring.Primary(ctx)
	if err != nil {
		return wrapping{}, fmt.Errorf("sse: %w", err)
	}
	return wrapping{mode: ModeManaged, keyID: key.ID(), kek: key}, nil
}
