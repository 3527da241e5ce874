package keyring

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/prf"
	"github.com/tink-crypto/tink-go/v2/prf/hkdfprf"

	"github.com/blobseal/blobseal/internal/document"
	"github.com/blobseal/blobseal/internal/secret"
)

// snapshot is what a ring knows of one document. It is immutable and holds no
// master keys.
type snapshot struct {
	metadata

	keys    map[string]*Key // the enabled versions
	infos   []Info          // all, oldest first
	primary *Key
	created time.Time // the primary's
}

// Identity implements [document.State].
func (s *snapshot) Identity() string { return s.ring.String() }

// Generation implements [document.State].
func (s *snapshot) Generation() uint64 { return s.generation }

// age returns how old the primary is; zero if its time of creation is yet to come.
func (m *metadata) age(now time.Time) time.Duration {
	return max(0, now.Sub(time.UnixMilli(int64(m.find(m.primary).created))))
}

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

// format is the [document.Format] of a ring.
type format struct{}

// Open implements [document.Format].
func (format) Open(ctx context.Context, root document.Root, data []byte, _ *snapshot) (*draft, error) {
	return openDocument(ctx, root, data)
}

// State implements [document.Format].
func (format) State(d *draft) (*snapshot, error) { return newSnapshot(d) }

// Draft implements [document.Format]. A snapshot holds no master keys.
func (format) Draft(*snapshot) (*draft, bool) { return nil, false }

// Seal implements [document.Format].
func (format) Seal(ctx context.Context, root document.Root, d *draft, generation uint64) ([]byte, *snapshot, error) {
	d.generation = generation
	return sealDocument(ctx, root, d)
}

// Includes implements [document.Format]: no change of a ring removes a version, or
// brings back one that was destroyed.
func (format) Includes(known, next *snapshot) error {
	if known.generation == next.generation {
		return errors.New("two documents have this generation")
	}
	for i, v := range known.versions {
		if i >= len(next.versions) || next.versions[i].id != v.id {
			return fmt.Errorf("it lacks %s", keyID(known.ring, v.id))
		}
		if v.state == Destroyed && next.versions[i].state != Destroyed {
			return fmt.Errorf("it holds %s, which was destroyed", keyID(known.ring, v.id))
		}
	}
	return nil
}

// Merge implements [document.Format].
func (format) Merge(_, _ *draft) error { return errors.ErrUnsupported }

// openDocument parses and decrypts a document under root.
func openDocument(ctx context.Context, root Root, data []byte) (*draft, error) {
	d, err := parseDocument(data)
	if err != nil {
		return nil, err
	}
	rec := &recorder{root: root}
	handle, err := keyset.ReadWithContext(ctx, keyset.NewBinaryReader(bytes.NewReader(d.keyset)), rec, d.associatedData())
	if rec.err != nil {
		return nil, document.RootError(ctx, ErrRoot, rec.err)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if err := d.check(handle); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return &draft{metadata: d.metadata, manager: keyset.NewManagerFromHandle(handle)}, nil
}

// sealDocument encrypts a draft under root and returns the whole document. It
// opens that again, so that nothing is stored that the root does not open.
func sealDocument(ctx context.Context, root Root, d *draft) ([]byte, *snapshot, error) {
	handle, err := d.manager.Handle()
	if err != nil {
		return nil, nil, fmt.Errorf("keyring: keyset: %w", err)
	}
	var encrypted bytes.Buffer
	rec := &recorder{root: root}
	err = handle.WriteWithContext(ctx, keyset.NewBinaryWriter(&encrypted), rec, d.associatedData())
	if rec.err != nil {
		return nil, nil, document.RootError(ctx, errRootSeals, rec.err)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("keyring: keyset: %w", err)
	}
	data, err := (&ringDocument{metadata: d.metadata, keyset: encrypted.Bytes()}).marshal()
	if err != nil {
		return nil, nil, err
	}
	again, err := openDocument(ctx, root, data)
	if err != nil {
		return nil, nil, fmt.Errorf("keyring: document just sealed: %w", err)
	}
	s, err := newSnapshot(again)
	return data, s, err
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
func newSnapshot(d *draft) (*snapshot, error) {
	handle, err := d.manager.Handle()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	prfs, err := prf.NewPRFSet(handle)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	s := &snapshot{metadata: d.metadata, keys: make(map[string]*Key, len(prfs.PRFs))}
	s.versions = slices.Clone(s.versions) // the draft is edited
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
