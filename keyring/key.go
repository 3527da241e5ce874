package keyring

import (
	"context"
	"errors"
	"fmt"

	"github.com/blobseal/blobseal/internal/chunked"
	"github.com/blobseal/blobseal/internal/secret"
)

// kekLabel is the PRF's input, from which a version's KEK comes.
const kekLabel = "github.com/blobseal/blobseal/v1 managed key-encryption key"

// Key is one enabled version of a ring's master key. It is immutable and safe
// for concurrent use. It holds the version's key-encryption key, which is never
// printed, and not the master key itself.
//
// A Key works for as long as it is held, even after its version was disabled: ask the
// ring again for each operation.
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

// Open decrypts what [Key.Seal] returned. A wrong key, a wrong context or an
// edited message is the error that package sse exports as ErrKey, a damaged message its
// ErrCorrupt or ErrTruncated.
func (k *Key) Open(sealed, context []byte) ([]byte, error) {
	dek, err := chunked.OpenMessage(k.kek.Bytes(), context, sealed)
	if err != nil {
		return nil, fmt.Errorf("keyring: key %s: %w", k.id, err)
	}
	return dek, nil
}

// Key returns the enabled version with that id.
//
// An id of this ring that is not known makes the ring refresh. Callers who miss at
// once share one load, which began after they asked; after a burst of 60 there is one
// load a second, for which callers wait. An id that a load did not bring is not looked
// for again for a second. ctx bounds the wait alone: a version in memory is returned
// whatever ctx says.
//
// Its errors are [*VersionError], of [ErrUnknownKey], [ErrDisabled] or [ErrDestroyed]. If the ring could not refresh, the error is ErrUnknownKey, [ErrStore]
// and the reason, all three; and for a second it stays so, without asking.
func (r *Ring) Key(ctx context.Context, id string) (*Key, error) {
	if key := r.doc.State().keys[id]; key != nil {
		return key, nil
	}
	return r.keyAfterRefresh(ctx, id)
}

// keyAfterRefresh finds out why there is no such key, or gets it.
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

// tinkID returns the Tink id in a version's id. It refuses what cannot be an id of this ring.
func (r *Ring) tinkID(id string) (uint32, error) {
	ring, version, err := parseKeyID(id)
	if err != nil {
		return 0, &VersionError{fmt.Sprintf("%.64s", id), err}
	}
	if own := r.doc.State().ring; ring != own {
		return 0, &VersionError{id, fmt.Errorf("%w: it belongs to another ring, this is %v", ErrUnknownKey, own)}
	}
	return version, nil
}
