package keyring

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/prf"
	"github.com/tink-crypto/tink-go/v2/prf/hkdfprf"
	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/blobseal/blobseal/internal/secret"
)

// snapshot is what a ring knows of one document: immutable, replaced as a
// whole, without master keys.
type snapshot struct {
	storeVersion string
	sum          [sha256.Size]byte // of the whole document
	metadata

	keys    map[string]*Key // the enabled versions
	infos   []Info          // all, oldest first
	primary *Key
	created time.Time // the primary's
}

// age is how old the primary is; zero if its time of creation is yet to come.
func (s *snapshot) age(now time.Time) time.Duration { return max(0, now.Sub(s.created)) }

// info returns what is known of the version with that id.
func (s *snapshot) info(id string) (Info, bool) {
	i := slices.IndexFunc(s.infos, func(v Info) bool { return v.ID == id })
	if i < 0 {
		return Info{}, false
	}
	return s.infos[i], true
}

// primaryInfo returns what is known of the primary.
func (s *snapshot) primaryInfo() Info {
	info, _ := s.info(s.primary.id)
	return info
}

// accept refuses a document that is not a later one of the same ring, or comes from
// an earlier one by another way: no change of a ring takes a version out of it, or
// brings one back that was destroyed.
func (s *snapshot) accept(next *snapshot) error {
	switch {
	case next.ring != s.ring:
		return fmt.Errorf("%w: %v, not %v", ErrOtherRing, next.ring, s.ring)
	case next.generation < s.generation:
		return fmt.Errorf("%w: generation %d, after %d", ErrRollback, next.generation, s.generation)
	case next.generation == s.generation && next.sum != s.sum:
		return fmt.Errorf("%w: generation %d is there twice", ErrRollback, next.generation)
	}
	for i, v := range s.versions {
		if i >= len(next.versions) || next.versions[i].id != v.id {
			return fmt.Errorf("%w: generation %d lacks %s, which generation %d had", ErrRollback, next.generation, keyID(s.ring, v.id), s.generation)
		}
		if v.state == Destroyed && next.versions[i].state != Destroyed {
			return fmt.Errorf("%w: generation %d holds %s, which generation %d had destroyed", ErrRollback, next.generation, keyID(s.ring, v.id), s.generation)
		}
	}
	return nil
}

// opened is a document with its keyset decrypted, as briefly as possible.
type opened struct {
	snapshot *snapshot
	keyset   *keyset.Handle
	root     int // which of the ring's roots opened it
}

// openDocument parses and decrypts a document under root.
func openDocument(ctx context.Context, root tink.AEADWithContext, data []byte, storeVersion string) (*opened, error) {
	d, err := parseDocument(data)
	if err != nil {
		return nil, err
	}
	rec := &recorder{root: root}
	handle, err := keyset.ReadWithContext(ctx, keyset.NewBinaryReader(bytes.NewReader(d.keyset)), rec, d.associatedData())
	if rec.err != nil {
		return nil, rootError(ctx, ErrRoot, rec.err)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if err := d.check(handle); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	s, err := newSnapshot(d, handle)
	if err != nil {
		return nil, err
	}
	s.storeVersion = storeVersion
	s.sum = sha256.Sum256(data)
	return &opened{snapshot: s, keyset: handle}, nil
}

// sealDocument encrypts a draft under root and returns the whole document. It
// opens that again, so that nothing is stored that the root does not open.
func sealDocument(ctx context.Context, root tink.AEADWithContext, d *draft) ([]byte, *snapshot, error) {
	handle, err := d.manager.Handle()
	if err != nil {
		return nil, nil, fmt.Errorf("keyring: keyset: %w", err)
	}
	var encrypted bytes.Buffer
	rec := &recorder{root: root}
	err = handle.WriteWithContext(ctx, keyset.NewBinaryWriter(&encrypted), rec, d.associatedData())
	if rec.err != nil {
		return nil, nil, rootError(ctx, errRootSeals, rec.err)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("keyring: keyset: %w", err)
	}
	data, err := (&document{metadata: d.metadata, keyset: encrypted.Bytes()}).marshal()
	if err != nil {
		return nil, nil, err
	}
	o, err := openDocument(ctx, root, data, "")
	if err != nil {
		return nil, nil, fmt.Errorf("keyring: document just sealed: %w", err)
	}
	return data, o.snapshot, nil
}

// errRootSeals: the root refuses to encrypt.
var errRootSeals = errors.New("keyring: root does not seal the document")

// check compares the keyset with the metadata beside it.
func (m *metadata) check(handle *keyset.Handle) error {
	i := 0
	for _, v := range m.versions {
		if v.state == Destroyed {
			continue
		}
		if i == handle.Len() {
			return fmt.Errorf("version %08x is not in the keyset", v.id)
		}
		entry, err := handle.Entry(i)
		if err != nil {
			return err
		}
		i++
		if entry.KeyID() != v.id {
			return fmt.Errorf("keyset holds version %08x in place of %08x", entry.KeyID(), v.id)
		}
		if entry.IsPrimary() != (v.id == m.primary) {
			return fmt.Errorf("keyset has another primary than %08x", m.primary)
		}
		if (entry.KeyStatus() == keyset.Enabled) != (v.state == Enabled) ||
			(entry.KeyStatus() == keyset.Disabled) != (v.state == Disabled) {
			return fmt.Errorf("version %08x is %v in the keyset, not %v", v.id, entry.KeyStatus(), v.state)
		}
		params, ok := entry.Key().Parameters().(*hkdfprf.Parameters)
		if !ok || params.KeySizeInBytes() != secret.KeySize || params.HashType() != hkdfprf.SHA256 || len(params.Salt()) != 0 {
			return fmt.Errorf("version %08x is not an HKDF-SHA-256 key of %d bytes", v.id, secret.KeySize)
		}
	}
	if i != handle.Len() {
		return fmt.Errorf("keyset holds %d versions, not %d", handle.Len(), i)
	}
	return nil
}

// newSnapshot derives the KEK of each enabled version.
func newSnapshot(d *document, handle *keyset.Handle) (*snapshot, error) {
	prfs, err := prf.NewPRFSet(handle)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	s := &snapshot{metadata: d.metadata, keys: make(map[string]*Key, len(prfs.PRFs))}
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
		key := &Key{id: info.ID, kek: kek}
		s.keys[key.id] = key
		if info.Primary {
			s.primary, s.created = key, info.Created
		}
	}
	return s, nil
}
