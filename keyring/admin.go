package keyring

import (
	"context"
	"errors"
	"time"

	"github.com/blobseal/blobseal/internal/isnil"
)

// SetState enables, disables or destroys the version with that id, and returns the
// changed version. ctx bounds the call. Enabling an enabled version and destroying a
// destroyed one write nothing. Disabling a disabled version is recorded again, so that
// another process that enables the version without knowing of it does not undo it.
//
// Other processes learn of the change when they next refresh. Destroying a version removes
// its key bytes from the document for ever, but copies of older documents still hold them.
//
// Besides errors of the store and the root, SetState returns [ErrUnknownKey], [ErrDestroyed]
// if the version is destroyed, [ErrPrimary], and [ErrInvalid] for an unknown state.
func (r *Ring) SetState(ctx context.Context, id string, state State) (Version, error) {
	return r.SetStateIf(ctx, id, state, nil)
}

// SetStateIf is SetState under a condition, in one compare-and-swap. condition gets the
// version as it is in the stored document. If condition returns an error, SetStateIf
// returns it and changes nothing. condition is called again after each conflict with
// another writer. A nil condition makes the call SetState.
//
// A condition may compare times. So unlike SetState, SetStateIf fails with a [*ClockError]
// if the clock of this process differs from the store's.
func (r *Ring) SetStateIf(ctx context.Context, id string, state State, condition func(Version) error) (Version, error) {
	if !state.valid() {
		return Version{}, invalid("unknown state %.64q (use enabled, disabled or destroyed)", state)
	}
	version, err := r.tinkID(id)
	if err != nil {
		return Version{}, err
	}
	s, err := r.doc.Edit(ctx, func(d *draft) (bool, error) {
		now, ofStore, err := r.doc.Time(ctx, r.opts.Now)
		var differ *ClockError
		if err != nil && (condition != nil || !errors.As(err, &differ)) {
			return false, err
		}
		if v := d.find(version); v != nil && condition != nil {
			if err := condition(d.info(v)); err != nil {
				return false, err
			}
		}
		return d.setState(version, state, d.dateOfChange(now, ofStore))
	})
	if err != nil {
		return Version{}, err
	}
	return s.info(s.find(version)), nil
}

// SetPeriod changes the ring's rotation period for all processes. The period is a whole
// number of seconds from a minute to 3650 days; any other is [ErrInvalid]. ctx bounds the
// call.
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

// Merge adds to the ring what another document of the same ring holds: a backup, or
// [Ring.Document] of a process that ran elsewhere. The document must be under this ring's
// root. The ring then has the versions of both. A version that is disabled or destroyed in
// one of them stays disabled or destroyed. If the ring already holds everything, nothing is
// written. ctx bounds the call. A document of another ring is [ErrOtherRing].
//
// A Ring merges on its own what its process knows. Call Merge for documents that no running
// process knows.
func (r *Ring) Merge(ctx context.Context, document []byte) error {
	other, err := r.doc.OpenOther(ctx, document)
	if err != nil {
		return err
	}
	_, err = r.doc.Edit(ctx, func(d *draft) (bool, error) {
		if other.ring == d.ring && other.includedIn(&d.metadata) == nil {
			return false, nil
		}
		return true, d.merge(other)
	})
	return err
}

// ChangeRoot encrypts the document under another root, in one write, and uses that
// root from then on. ctx bounds the call. Like [Create], it refuses roots that are too
// easy to guess.
//
// Make the same call in every other process: it tells the ring there of the new root. You
// may repeat the call; a document that is under the new root already is not written. Repeat
// it after [ErrStore], which leaves open whether the root was changed, and after a failover
// that lost the change. To strengthen a passphrase root, pass the same passphrase with
// higher [PassphraseParams].
//
// ChangeRoot does not change the master keys. Anyone who copied them, or an older document
// and its root, can still open what they sealed.
func (r *Ring) ChangeRoot(ctx context.Context, newRoot Root) error {
	if isnil.Any(newRoot) {
		return invalid("root is nil")
	}
	return r.doc.ChangeRoot(ctx, newRoot, nil)
}
