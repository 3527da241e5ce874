package keyring

import (
	"context"
	"errors"
	"fmt"

	"github.com/blobseal/blobseal/internal/chunked"
	"github.com/blobseal/blobseal/internal/secret"
)

// kekLabel is the input of the PRF that derives a version's KEK.
const kekLabel = "github.com/blobseal/blobseal/v1 managed key-encryption key"

// Key is one enabled version of a ring's master key. It is immutable and safe
// for concurrent use. It holds the version's key-encryption key, which it never
// prints, but not the master key.
//
// A Key keeps working after its version was disabled. So ask the ring for the key before
// each operation.
type Key struct {
	id  string
	kek secret.Key
}

// ID returns the version's id: the ring's id, a dot and 8 hex digits.
func (k *Key) ID() string { return k.id }

// Seal encrypts a data key under the version, bound to context, as one
// Cobblestone-256 message. The caller labels and frames context.
func (k *Key) Seal(dek, context []byte) ([]byte, error) {
	sealed, err := chunked.Seal(k.kek.Bytes(), context, dek)
	if err != nil {
		return nil, fmt.Errorf("keyring: key %s: %w", k.id, err)
	}
	return sealed, nil
}

// Open decrypts what [Key.Seal] returned. For a wrong key, a wrong context or an edited
// message, the error is ErrKey of package sse; for a damaged message, it is ErrCorrupt or
// ErrTruncated of package sse.
func (k *Key) Open(sealed, context []byte) ([]byte, error) {
	dek, err := chunked.OpenMessage(k.kek.Bytes(), context, sealed)
	if err != nil {
		return nil, fmt.Errorf("keyring: key %s: %w", k.id, err)
	}
	return dek, nil
}

// Key returns the enabled version with that id.
//
// If the ring does not know an id, it refreshes. Callers who miss at the same time share
// one load, which begins after their calls. After 60 loads there is one a second, and
// callers wait for it. If a load does not find an id, the ring does not load again for that
// id for a second. ctx bounds only the wait: a version in memory is returned even if ctx
// has ended.
//
// Errors are of type [*VersionError] and wrap [ErrUnknownKey], [ErrDisabled] or
// [ErrDestroyed]. If the ring could not refresh, the error wraps ErrUnknownKey, [ErrStore]
// and the reason, and Key returns it for a second without asking the store again.
func (r *Ring) Key(ctx context.Context, id string) (*Key, error) {
	if key := r.doc.State().keys[id]; key != nil {
		return key, nil
	}
	return r.keyAfterRefresh(ctx, id)
}

// keyAfterRefresh is Key for an id without a key in memory.
func (r *Ring) keyAfterRefresh(ctx context.Context, id string) (*Key, error) {
	version, err := r.tinkID(id)
	if err != nil {
		return nil, err
	}
	s, err := r.doc.Lookup(ctx, id, func(s *snapshot) bool { return s.find(version) != nil })
	if err != nil {
		if !errors.Is(err, ErrStore) {
			err = fmt.Errorf("%w: %w", ErrStore, err)
		}
		return nil, &VersionError{id, fmt.Errorf("%w: could not refresh: %w", ErrUnknownKey, err)}
	}
	if key := s.keys[id]; key != nil {
		return key, nil
	}
	switch v := s.find(version); {
	case v == nil:
		return nil, &VersionError{id, ErrUnknownKey}
	case v.state == Disabled:
		return nil, &VersionError{id, ErrDisabled}
	default:
		return nil, &VersionError{id, ErrDestroyed}
	}
}

// tinkID returns the Tink id in a version's id. It rejects what cannot be an id of this ring.
func (r *Ring) tinkID(id string) (uint32, error) {
	ring, version, err := parseKeyID(id)
	if err != nil {
		return 0, &VersionError{fmt.Sprintf("%.64s", id), err}
	}
	if own := r.doc.State().ring; ring != own {
		return 0, &VersionError{id, fmt.Errorf("%w: it belongs to another ring than %v", ErrUnknownKey, own)}
	}
	return version, nil
}
