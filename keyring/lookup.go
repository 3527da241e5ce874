package keyring

import (
	"context"
	"errors"
	"fmt"
)

// missBurst is how many loads after a miss are made at once; then there is one a second.
const missBurst = 60

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
	if _, err := r.parseKeyID(id); err != nil {
		return nil, err
	}
	s, err := r.doc.Lookup(ctx, id, func(s *snapshot) bool {
		_, found := s.info(id)
		return found
	})
	if err != nil {
		if !errors.Is(err, ErrStore) {
			err = fmt.Errorf("%w: %w", ErrStore, err)
		}
		return nil, &VersionError{id, fmt.Errorf("%w: could not refresh: %w", ErrUnknownKey, err)}
	}
	if key := s.keys[id]; key != nil {
		return key, nil
	}
	info, found := s.info(id)
	switch {
	case !found:
		return nil, &VersionError{id, ErrUnknownKey}
	case info.State == Disabled:
		return nil, &VersionError{id, ErrDisabled}
	default:
		return nil, &VersionError{id, ErrDestroyed}
	}
}

// parseKeyID refuses what cannot be an id of this ring.
func (r *Ring) parseKeyID(id string) (uint32, error) {
	ring, version, err := parseKeyID(id)
	if err != nil {
		return 0, &VersionError{shorten(id), err}
	}
	if own := r.doc.State().ring; ring != own {
		return 0, &VersionError{id, fmt.Errorf("%w: it belongs to another ring, this is %v", ErrUnknownKey, own)}
	}
	return version, nil
}
