package sse

import (
	"context"
	"fmt"
)

// ByMode opens objects of several modes. The envelope's mode chooses the
// Decrypter. Do not change a ByMode while it is in use.
type ByMode map[Mode]Decrypter

// Decrypt implements [Decrypter]. A mode without a Decrypter is [ErrMode].
func (m ByMode) Decrypt(ctx context.Context, obj Object, env *Envelope) (*Decryption, error) {
	if err := env.checkPresent(); err != nil {
		return nil, err
	}
	d := m[env.mode]
	if d == nil {
		return nil, fmt.Errorf("%w: no Decrypter for %v (add one to ByMode)", ErrMode, env.mode)
	}
	return d.Decrypt(ctx, obj, env)
}
