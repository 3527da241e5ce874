package keyring

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/prf/hkdfprf"

	"github.com/blobseal/blobseal/internal/document"
	"github.com/blobseal/blobseal/internal/secret"
)

// format is the [document.Format] of rings.
type format struct {
	backup func(ctx context.Context, document []byte) error // Options.Backup, or nil
}

// Open implements [document.Format].
func (format) Open(ctx context.Context, root document.Root, data []byte, _ *snapshot) (*draft, error) {
	d, err := parseDocument(data)
	if err != nil {
		return nil, err
	}
	rec := &recorder{root: root}
	handle, err := keyset.ReadWithContext(ctx, keyset.NewBinaryReader(bytes.NewReader(d.keyset)), rec, associatedData(d.bound))
	if rec.err != nil {
		return nil, document.RootError(ctx, ErrRoot, rec.err)
	}
	if err == nil {
		err = d.check(handle)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	opened := &draft{metadata: d.metadata, keys: make(map[uint32]*masterKey, handle.Len())}
	for _, key := range insecurecleartextkeyset.KeysetMaterial(handle).Key {
		opened.keys[key.KeyId] = key
	}
	return opened, nil
}

// State implements [document.Format].
func (format) State(d *draft) (*snapshot, error) { return newSnapshot(d) }

// Draft implements [document.Format]. A snapshot holds no master keys.
func (format) Draft(*snapshot) (*draft, bool) { return nil, false }

// Seal implements [document.Format]. It opens what it sealed, so that nothing is stored
// that the root does not open.
func (f format) Seal(ctx context.Context, root document.Root, d *draft, generation uint64) ([]byte, *snapshot, error) {
	d.generation = generation
	handle, err := d.handle()
	if err != nil {
		return nil, nil, fmt.Errorf("keyring: keyset: %w", err)
	}
	head, err := d.head()
	if err != nil {
		return nil, nil, err
	}
	var encrypted bytes.Buffer
	rec := &recorder{root: root}
	err = handle.WriteWithContext(ctx, keyset.NewBinaryWriter(&encrypted), rec, associatedData(head))
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
	again, err := f.Open(ctx, root, data, nil)
	if err != nil {
		return nil, nil, fmt.Errorf("keyring: open the new document: %w", err)
	}
	s, err := newSnapshot(again)
	if err != nil {
		return nil, nil, err
	}
	if d.added && f.backup != nil {
		if err := f.backup(ctx, bytes.Clone(data)); err != nil {
			return nil, nil, fmt.Errorf("keyring: Options.Backup failed, no version was added: %w", err)
		}
	}
	return data, s, nil
}

// Includes implements [document.Format].
func (format) Includes(known, next *snapshot) error { return known.metadata.includedIn(&next.metadata) }

// Merge implements [document.Format].
func (format) Merge(d, other *draft) error { return d.merge(other) }

// errRootSeals: the root refuses to encrypt.
var errRootSeals = errors.New("keyring: root does not seal the document")

// check compares the keyset with the metadata. In version 1 the primary may be anywhere in
// the keyset.
func (m *metadata) check(handle *keyset.Handle) error {
	want := slices.DeleteFunc(slices.Clone(m.versions), func(v version) bool { return v.state == Destroyed })
	if len(want) != handle.Len() {
		return fmt.Errorf("keyset holds %d versions, not %d", handle.Len(), len(want))
	}
	for i := range handle.Len() {
		entry, err := handle.Entry(i)
		if err != nil {
			return err
		}
		v := want[i]
		if m.legacy {
			if found := m.find(entry.KeyID()); found != nil && found.state != Destroyed {
				v = *found
			}
		}
		if err := m.checkEntry(entry, v); err != nil {
			return err
		}
	}
	return nil
}

func (m *metadata) checkEntry(entry *keyset.Entry, v version) error {
	if entry.KeyID() != v.id {
		return fmt.Errorf("keyset holds version %08x in place of %08x", entry.KeyID(), v.id)
	}
	if entry.IsPrimary() != (v.id == m.primary().id) {
		return fmt.Errorf("keyset's primary differs from %08x", m.primary().id)
	}
	if (entry.KeyStatus() == keyset.Enabled) != (v.state == Enabled) ||
		(entry.KeyStatus() == keyset.Disabled) != (v.state == Disabled) {
		return fmt.Errorf("version %08x is %v in the keyset, not %v", v.id, entry.KeyStatus(), v.state)
	}
	params, ok := entry.Key().Parameters().(*hkdfprf.Parameters)
	if !ok || params.KeySizeInBytes() != secret.KeySize || params.HashType() != hkdfprf.SHA256 || len(params.Salt()) != 0 {
		return fmt.Errorf("version %08x is not an HKDF-SHA-256 key of %d bytes", v.id, secret.KeySize)
	}
	return nil
}
