package keyring

import (
	"crypto/rand"
	"fmt"
	"time"

	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/prf"
)

// draft is a document that is open for an edit, with its master keys.
type draft struct {
	metadata
	manager *keyset.Manager
}

// newRing drafts a ring with one version.
func newRing(period time.Duration, now time.Time) (*draft, error) {
	d := &draft{manager: keyset.NewManager()}
	rand.Read(d.ring[:]) // never fails: it ends the program instead
	d.generation, d.period = 1, period
	if err := d.rotate(now); err != nil {
		return nil, err
	}
	return d, nil
}

// rotate adds a version and makes it the primary.
func (d *draft) rotate(now time.Time) error {
	if len(d.versions) >= MaxVersions {
		return fmt.Errorf("%w: it holds %d versions, destroyed ones included", ErrFull, len(d.versions))
	}
	for {
		id, err := d.manager.Add(prf.HKDFSHA256PRFKeyTemplate())
		if err != nil {
			return fmt.Errorf("keyring: new version: %w", err)
		}
		if d.find(id) != nil { // of a destroyed version, which the keyset has forgotten
			if err := d.manager.Delete(id); err != nil {
				return fmt.Errorf("keyring: new version: %w", err)
			}
			continue
		}
		if err := d.manager.SetPrimary(id); err != nil {
			return fmt.Errorf("keyring: new version: %w", err)
		}
		t := millis(now)
		d.primary = id
		d.versions = append(d.versions, version{id: id, state: Enabled, created: t, changed: t})
		return nil
	}
}

// setState gives a version another state. It reports whether that is a change.
func (d *draft) setState(id uint32, state State, now time.Time) (bool, error) {
	name := keyID(d.ring, id)
	v := d.find(id)
	switch {
	case v == nil:
		return false, fmt.Errorf("%w: %s", ErrUnknownKey, name)
	case v.state == state:
		return false, nil
	case v.state == Destroyed:
		return false, fmt.Errorf("%w: %s", ErrDestroyed, name)
	case id == d.primary:
		return false, fmt.Errorf("%w: %s", ErrPrimary, name)
	}
	var err error
	switch state {
	case Enabled:
		err = d.manager.Enable(id)
	case Disabled:
		err = d.manager.Disable(id)
	case Destroyed:
		err = d.manager.Delete(id)
	}
	if err != nil {
		return false, fmt.Errorf("keyring: key %s: %w", name, err)
	}
	v.state, v.changed = state, millis(now)
	return true, nil
}
