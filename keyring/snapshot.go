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
	infos      []Version       // all, oldest first
	primaryKey *Key
}

// Identity implements [document.State].
func (s *snapshot) Identity() string { return s.ring.String() }

// Generation implements [document.State].
func (s *snapshot) Generation() uint64 { return s.generation }

// info returns what is known of the version with that id.
func (s *snapshot) info(id string) (Version, bool) {
	i := slices.IndexFunc(s.infos, func(v Version) bool { return v.ID == id })
	if i < 0 {
		return Version{}, false
	}
	return s.infos[i], true
}

// primaryInfo returns what is known of the primary.
func (s *snapshot) primaryInfo() Version {
	return s.infos[len(s.infos)-1]
}

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
	for i, v := range d.versions {
		info := d.info(i)
		s.infos = append(s.infos, info)
		if v.state != Enabled {
			continue
		}
		raw, err := prfs.PRFs[v.id].ComputePRF([]byte(kekLabel), secret.KeySize)
		if err != nil {
			return nil, fmt.Errorf("keyring: key %s: %w", info.ID, err)
		}
		kek, err := secret.New(raw)
		clear(raw)
		if err != nil {
			return nil, fmt.Errorf("keyring: key %s: %w", info.ID, err)
		}
		s.primaryKey = &Key{id: info.ID, kek: kek} // the last is the primary, and enabled
		s.keys[info.ID] = s.primaryKey
	}
	return s, nil
}
