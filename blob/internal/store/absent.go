package store

import (
	"context"
	"errors"
	"fmt"

	"gocloud.dev/gcerrors"

	"github.com/blobseal/blobseal/blob/stored"
)

// ErrDeleted means that the store neither serves the object nor lists it.
var ErrDeleted = errors.New("blob: object was deleted")

// ErrHidden means that the store lists the object and says that it is not there.
var ErrHidden = errors.New("blob: store lists the object but answers not found (permit reads)")

// errListed ends a listing that found its object.
var errListed = errors.New("blob: found")

// Absence returns what a request's error says about whether the object at key was
// deleted. Errors other than NotFound are returned as they are.
//
// Stores answer NotFound for other reasons too: gocloud's driver for Google's store
// maps a refused read, 403, to it. So Absence asks the listing. If that does not
// show the object either, the result is [ErrDeleted]. Otherwise it is an error whose
// code is not NotFound.
func (s *Store) Absence(ctx context.Context, key string, err error) error {
	if gcerrors.Code(err) != gcerrors.NotFound {
		return err
	}
	switch listed, listErr := s.isListed(ctx, key); {
	case listErr != nil:
		return fmt.Errorf("blob: store answers not found, and its listing fails: %w", opaque{listErr})
	case listed:
		return fmt.Errorf("%w: %w", ErrHidden, opaque{err})
	}
	return ErrDeleted
}

// isListed reports whether the store's listing shows the object at key.
func (s *Store) isListed(ctx context.Context, key string) (bool, error) {
	err := s.List(ctx, key, func(o Listed) error {
		if o.Key == key {
			return errListed
		}
		return nil
	})
	if errors.Is(err, errListed) {
		return true, nil
	}
	return false, err
}

// InspectListed is [Store.Inspect] for an object that the store's listing showed.
// Its error is [ErrDeleted] only if the listing no longer shows the object.
func (s *Store) InspectListed(ctx context.Context, object Listed) Object {
	for look := 1; ; look++ {
		o := s.Inspect(ctx, object)
		if gcerrors.Code(o.Err) != gcerrors.NotFound {
			return o
		}
		o.Err = s.Absence(ctx, object.Key, o.Err)
		if !errors.Is(o.Err, ErrHidden) || look == stored.MaxTries {
			return o
		}
		Pause(ctx, look) // another writer may have written it again
	}
}
