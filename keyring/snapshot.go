package keyring

import (
	"fmt"
	"slices"

	"github.com/tink-crypto/tink-go/v2/prf"

	"github.com/blobseal/blobseal/internal/secret"
)

// snapshot is what a ring knows of one document. It is immutable and holds no
// master keys.
type snapshot struct {
	metadata

	keys       map[string]*Key // the enabled versions
	primaryKey *Key
}

// Identity implements [document.State].
func (s *snapshot) Identity() string { return s.ring.String() }

// Generation implements [document.State].
func (s *snapshot) Generation() uint64 { return s.generation }

// primaryInfo describes the primary.
func (s *snapshot) primaryInfo() Version { return s.info(s.primary()) }

// newSnapshot derives the KEK of each enabled version.
func newSnapshot(d *draft) (*snapshot, error) {
	handle, err := d.handle()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	prfs, err := prf.NewPRFSet(handle)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	s := &snapshot{metadata: d.metadata, keys: make(map[string]*Key, len(prfs.PRFs))}
	s.versions = slices.Clone(s.versions) // the draft is edited; marks are replaced, never written to
	for _, v := range d.versions {
		if v.state != Enabled {
			continue
		}
		id := keyID(d.ring, v.id)
		raw, err := prfs.PRFs[v.id].ComputePRF([]byte(kekLabel), secret.KeySize)
		if err != nil {
			return nil, fmt.Errorf("keyring: key %s: %w", id, err)
		}
		kek, err := secret.New(raw)
		clear(raw)
		if err != nil {
			return nil, fmt.Errorf("keyring: key %s: %w", id, err)
		}
		s.primaryKey = &Key{id: id, kek: kek} // the last is the primary, and enabled
		s.keys[id] = s.primaryKey
	}
	return s, nil
}
