package keyring

import (
	"context"
	"fmt"
	"time"
)

// Rotate adds a version and makes it the primary, and returns it. It is in the
// store before it is used. ctx bounds the call.
//
// Rotations that meet make one version: a call that waited for another one of
// this Ring, or whose write another process forestalled with a rotation of its
// own, returns that one's version. A full ring is [ErrFull].
//
// After an error other than that of the ring's own the version may or may not
// be in the store; if it is, the ring takes it up when it next refreshes.
func (r *Ring) Rotate(ctx context.Context) (Info, error) {
	before := r.rotated.Load()
	if err := r.lockRotation(ctx); err != nil {
		return Info{}, err
	}
	defer r.unlockRotation()
	if r.rotated.Load() != before {
		return r.doc.State().primaryInfo(), nil
	}
	var first uint32
	return r.rotate(ctx, func(d *draft) bool {
		if first == 0 {
			first = d.primary().id
		}
		return d.primary().id == first
	})
}

// rotate rotates if the document, as loaded, is one that wants it. The caller
// holds the turn to rotate.
func (r *Ring) rotate(ctx context.Context, wanted func(*draft) bool) (Info, error) {
	made := false
	s, err := r.doc.Edit(ctx, func(d *draft) (bool, error) {
		made = wanted(d)
		if !made {
			return false, nil
		}
		return true, d.rotate(r.opts.Now())
	})
	if err != nil {
		return Info{}, err
	}
	if made {
		r.rotated.Add(1)
	}
	return s.primaryInfo(), nil
}

// lockRotation waits for the turn to rotate, so that calls that meet can share a
// version.
func (r *Ring) lockRotation(ctx context.Context) error {
	select {
	case r.rotating <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("keyring: wait for another rotation: %w", ctx.Err())
	}
}

func (r *Ring) unlockRotation() { <-r.rotating }

// SetState enables, disables or destroys the version with that id, and returns
// the version as it then is. If it is in that state already, nothing is written. ctx
// bounds the call.
//
// Other processes learn of it when they next refresh. Destroying removes the key
// bytes from the document for ever, but copies of older documents still hold them. The
// errors of the ring's own are [ErrUnknownKey], [ErrDestroyed] for a version that
// already is, [ErrPrimary], and [ErrInvalid] for a number that is no state.
func (r *Ring) SetState(ctx context.Context, id string, state State) (Info, error) {
	return r.SetStateIf(ctx, id, state, func(Info) error { return nil })
}

// SetStateIf is SetState under a condition, as one compare-and-swap: condition gets the
// version as the stored document has it, and an error of it ends the call and changes
// nothing. It is called again after each conflict with another writer.
func (r *Ring) SetStateIf(ctx context.Context, id string, state State, condition func(Info) error) (Info, error) {
	if !state.valid() {
		return Info{}, invalid("no such state: %d", uint8(state))
	}
	version, err := r.parseKeyID(id)
	if err != nil {
		return Info{}, err
	}
	s, err := r.doc.Edit(ctx, func(d *draft) (bool, error) {
		for i, v := range d.versions {
			if v.id == version {
				if err := condition(d.info(i)); err != nil {
					return false, err
				}
			}
		}
		return d.setState(version, state, r.opts.Now())
	})
	if err != nil {
		return Info{}, err
	}
	info, _ := s.info(id)
	return info, nil
}

// SetPeriod changes the ring's rotation period, for all processes. It must be
// a whole number of seconds from [MinPeriod] to [MaxPeriod]; others are
// [ErrPeriod]. ctx bounds the call.
func (r *Ring) SetPeriod(ctx context.Context, period time.Duration) error {
	if err := checkPeriod(period); err != nil {
		return err
	}
	_, err := r.doc.Edit(ctx, func(d *draft) (bool, error) {
		if d.period == period {
			return false, nil
		}
		d.period = period
		d.changes++
		return true, nil
	})
	return err
}

// ChangeRoot encrypts the document under another root, in one write, and uses
// that root from then on. ctx bounds the call.
//
// It may be repeated: a document that already is under the new root is left as
// it is. So after a crash, or an error of the store, which leave it open
// whether the root was changed, one calls it again; and a process whose ring was
// given another root elsewhere, and which now meets [ErrRoot] when it
// refreshes, is told so by the same call. To strengthen a passphrase root, give
// the same passphrase with other parameters.
//
// Master keys stay as they are: who has copied them, or an older document and
// its root, can still open what they sealed.
func (r *Ring) ChangeRoot(ctx context.Context, newRoot Root) error {
	if newRoot == nil {
		return invalid("no root")
	}
	return r.doc.ChangeRoot(ctx, newRoot, nil)
}
