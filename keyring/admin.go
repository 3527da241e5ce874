package keyring

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/tink-crypto/tink-go/v2/tink"
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
	if err := r.lock(ctx); err != nil {
		return Info{}, err
	}
	defer r.unlock()
	if r.rotated.Load() != before {
		return r.current.Load().primaryInfo(), nil
	}
	return r.rotate(ctx, func(o *opened, first *opened) bool { return o.snapshot.primary.id == first.snapshot.primary.id })
}

// rotate rotates if the document, as loaded, is one that wants it; first is
// what was loaded first. The caller holds the lock.
func (r *Ring) rotate(ctx context.Context, wanted func(o, first *opened) bool) (Info, error) {
	var first *opened
	made := false
	s, err := r.update(ctx, nil, func(o *opened, d *draft) (bool, error) {
		if first == nil {
			first = o
		}
		made = wanted(o, first)
		if !made {
			return false, nil
		}
		return true, d.rotate(r.now())
	})
	if err != nil {
		return Info{}, err
	}
	if made {
		r.rotated.Add(1)
	}
	return s.primaryInfo(), nil
}

// SetState enables, disables or destroys the version with that id, and returns
// what it then is. The version's present state is no change, and nothing is
// written. ctx bounds the call.
//
// Other processes learn of it when they next refresh. Destroying removes the key
// bytes from the document and cannot be taken back, but copies of older
// documents still hold them. The errors of the ring's own are [ErrUnknownKey],
// [ErrDestroyed] for a version that already is, [ErrPrimary], and [ErrInvalid] for
// another state.
func (r *Ring) SetState(ctx context.Context, id string, state State) (Info, error) {
	if !state.valid() {
		return Info{}, invalid("no such state: %d", uint8(state))
	}
	version, err := r.parseKeyID(id)
	if err != nil {
		return Info{}, err
	}
	if err := r.lock(ctx); err != nil {
		return Info{}, err
	}
	defer r.unlock()
	s, err := r.update(ctx, nil, func(_ *opened, d *draft) (bool, error) {
		return d.setState(version, state, r.now())
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
	if err := r.lock(ctx); err != nil {
		return err
	}
	defer r.unlock()
	_, err := r.update(ctx, nil, func(_ *opened, d *draft) (bool, error) {
		changed := d.period != period
		d.period = period
		return changed, nil
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
func (r *Ring) ChangeRoot(ctx context.Context, newRoot tink.AEADWithContext) error {
	if newRoot == nil {
		return invalid("no root")
	}
	if err := r.lock(ctx); err != nil {
		return err
	}
	defer r.unlock()
	old := r.roots.Load()
	// Before the roots of calls that did not learn how they ended, which may be the same.
	both := slices.Insert(slices.Clone(*old), 1, newRoot)
	r.roots.Store(&both) // a refresh may meet the new document before we return
	_, err := r.update(ctx, newRoot, func(o *opened, _ *draft) (bool, error) {
		return o.root != 1, nil
	})
	switch {
	case err == nil:
		r.roots.Store(&[]tink.AEADWithContext{newRoot})
	case !errors.Is(err, ErrStore): // nothing was written
		r.roots.Store(old)
	}
	return err
}
