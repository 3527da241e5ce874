package store

import (
	"context"
	"errors"

	gcblob "gocloud.dev/blob"

	"github.com/blobseal/blobseal/blob/stored"
	"github.com/blobseal/blobseal/sse"
)

// VersionOf returns the version that attrs describe.
func VersionOf(attrs *gcblob.Attributes) stored.Version {
	return stored.Version{ETag: attrs.ETag, Size: attrs.Size, ModTime: attrs.ModTime}
}

// VersionRead returns the version that r reads.
func VersionRead(r *gcblob.Reader) stored.Version {
	return stored.Version{Size: r.Size(), ModTime: r.ModTime()}
}

// Version returns what the head of the object says of its version.
func (o *Object) Version() stored.Version {
	return stored.Version{Size: o.Stored, ModTime: o.ModTime}
}

// AttributesOf returns the attributes of the version seen of the object at key. It
// returns [stored.ErrChanged] if the store has another version.
func (s *Store) AttributesOf(ctx context.Context, key string, seen stored.Version) (*gcblob.Attributes, error) {
	attrs, err := s.Inner.Attributes(ctx, key)
	if err != nil {
		return nil, OpenError(err)
	}
	if !VersionOf(attrs).Same(seen) {
		return nil, stored.ErrChanged
	}
	return attrs, nil
}

// CheckUnchanged returns [stored.ErrChanged] unless the object at key still is the
// version that had seen and, if it was encrypted, env.
//
// It does not read the envelope if the write that follows carries the store's own
// condition.
func (s *Store) CheckUnchanged(ctx context.Context, key string, seen *gcblob.Attributes, env *sse.Envelope) error {
	if _, err := s.AttributesOf(ctx, key, VersionOf(seen)); err != nil || env == nil || s.IfUnchanged != nil {
		return err
	}
	// Times are coarse, and some stores derive ETags from them.
	now, err := s.Head(ctx, key, seen.Size)
	if errors.Is(err, sse.ErrFormat) || errors.Is(err, sse.ErrVersion) {
		return stored.ErrChanged
	}
	if err != nil {
		return err
	}
	if !stored.SameEnvelope(env, now.Envelope) {
		return stored.ErrChanged
	}
	return nil
}
