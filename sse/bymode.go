package sse

import (
	"context"
	"fmt"
)

// ByMode opens objects of several modes: an envelope's own mode chooses the
// Decrypter, never trial. It must not be changed while it is in use.
type ByMode map[Mode]Decrypter

// Decrypt implements [Decrypter]. A mode without a Decrypter is [ErrMode].
func (m ByMode) Decrypt(ctx context.Context, obj Object, env *Envelope) (*Decryption, error) {
	if err := env.there(); err != nil {
		return nil, err
	}
	d, ok := m[env.Mode()]
	if !ok || d == nil {
		return nil, fmt.Errorf("%w: nothing opens %v", ErrMode, env.Mode())
	}
	return d.Decrypt(ctx, obj, env)
}

// there fails for the envelope that a service has of what never had one, or lost it.
func (e *Envelope) there() error {
	if e == nil || e.mode == 0 {
		return fmt.Errorf("%w: it is nil or zero", ErrFormat)
	}
	return nil
}

// require fails unless the envelope is of the one mode.
func (e *Envelope) require(mode Mode) error {
	if err := e.there(); err != nil {
		return err
	}
	if e.mode != mode {
		return fmt.Errorf("%w: the envelope is %v, the key %v", ErrMode, e.mode, mode)
	}
	return nil
}
