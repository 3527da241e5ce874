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

// checkPresent fails for a nil or zero envelope, as a service has for an object
// that never had one, or lost it.
func (e *Envelope) checkPresent() error {
	if e == nil || e.mode == 0 {
		return fmt.Errorf("%w: envelope is nil or zero (read it with ReadEnvelope)", ErrFormat)
	}
	return nil
}

// require fails unless the envelope has this mode.
func (e *Envelope) require(mode Mode) error {
	if err := e.checkPresent(); err != nil {
		return err
	}
	if e.mode != mode {
		return fmt.Errorf("%w: %v cipher on %v object (use ByMode)", ErrMode, mode, e.mode)
	}
	return nil
}
