package store

import (
	"context"
	"errors"
	"io"
	"time"

	"gocloud.dev/gcerrors"

	"github.com/blobseal/blobseal/blob/stored"
	"github.com/blobseal/blobseal/sse"
)

// Object is a stored object as its head, or its trailer, shows it.
type Object struct {
	Key      string
	Kind     stored.Kind // zero if the object could not be read
	Envelope *sse.Envelope
	Trailer  *Trailer  // of a composite object, or nil
	Stored   int64     // bytes in the store
	Size     int64     // bytes of plaintext; -1 if unknown
	ModTime  time.Time // in the store
	Err      error     // why it is damaged, of an unknown version, or unreadable
}

// Inspect reads the head of an object.
func (s *Store) Inspect(ctx context.Context, object Listed) Object {
	for look := 1; ; look++ {
		o, err := s.Head(ctx, object.Key, object.Size)
		hinted := false
		if errors.Is(err, stored.ErrPlain) {
			attrs, attrsErr := s.Inner.Attributes(ctx, object.Key)
			if attrsErr != nil {
				o.Err = attrsErr
				return o
			}
			if _, hinted = stored.ParseHint(attrs.Metadata); hinted && look < stored.MaxTries {
				Pause(ctx, look)
				continue // another writer may encrypt it just now
			}
		}
		o.Classify(err, hinted)
		return o
	}
}

// Head reads the envelope, size and time of the object at key, and the trailer of a
// composite one. Its error is that of the store, of [stored.ReadEnvelope] or of
// [sse.ReadTrailer]; the object is not classified.
func (s *Store) Head(ctx context.Context, key string, size int64) (Object, error) {
	for look := 1; ; look++ {
		o := Object{Key: key, Stored: size, Size: -1}
		head, err := s.readHead(ctx, &o, s.EnvelopeSize)
		if errors.Is(err, io.ErrUnexpectedEOF) && o.Stored > int64(s.EnvelopeSize) {
			head, err = s.readHead(ctx, &o, sse.MaxEnvelopeSize) // an envelope of another size
		}
		if errors.Is(err, sse.ErrComposite) {
			if o.Trailer, err = s.Trailer(ctx, key, o.Version(), head); err == nil {
				o.Envelope = o.Trailer.Envelope()
			}
		}
		if !errors.Is(err, stored.ErrChanged) || look == stored.MaxTries {
			return o, err
		}
		size = -1
	}
}

// readHead reads up to n bytes of the object. It returns them if the error is
// [sse.ErrComposite].
func (s *Store) readHead(ctx context.Context, o *Object, n int) (head []byte, err error) {
	length := int64(n)
	if o.Stored <= 0 {
		length = -1 // stores refuse ranges of empty objects
	}
	r, err := s.Open(ctx, o.Key, 0, length, nil)
	if err != nil {
		if length > 0 && s.IsEmpty(ctx, o.Key, err) {
			o.Stored, err = 0, stored.ErrPlain
		}
		return nil, err
	}
	defer r.Close()
	o.Stored, o.ModTime = r.Size(), r.ModTime()
	var body io.Reader
	o.Envelope, body, err = stored.ReadEnvelope(r, n)
	if errors.Is(err, sse.ErrComposite) {
		var readErr error
		if head, readErr = io.ReadAll(io.LimitReader(body, int64(n))); readErr != nil {
			return nil, readErr
		}
	}
	return head, err
}

// Measure sets the plaintext's size of an object that has an envelope: by arithmetic,
// or as the trailer of a composite object says.
func (o *Object) Measure() (err error) {
	if o.Trailer != nil {
		o.Size = o.Trailer.Size()
		return nil
	}
	if o.Size, err = stored.PlaintextSize(o.Stored, o.Envelope.Size()); err != nil {
		o.Size = -1
	}
	return err
}

// Same reports whether o and seen, which was inspected before, are one version.
func (o *Object) Same(seen Object) bool {
	if seen.Envelope != nil {
		return stored.SameEnvelope(seen.Envelope, o.Envelope)
	}
	return o.Kind == seen.Kind && o.Version().Same(seen.Version())
}

// Classify fills in what the error of [stored.ReadEnvelope] or [sse.ReadTrailer] says
// about o.
func (o *Object) Classify(err error, hinted bool) {
	o.Kind, _ = stored.KindOf(err, hinted)
	switch o.Kind {
	case stored.KindEncrypted:
		if err = o.Measure(); err != nil {
			o.Kind, o.Err = stored.KindDamaged, err
		}
	case stored.KindPlain:
		o.Size = o.Stored
	case stored.KindDamaged:
		o.Err = err
		if errors.Is(err, stored.ErrPlain) {
			o.Err = stored.ErrDamaged
		}
	default:
		o.Err = err
	}
}

// IsEmpty reports whether a request for a range of the object failed with err because the
// object is empty: some stores refuse every range of an empty object.
func (s *Store) IsEmpty(ctx context.Context, key string, err error) bool {
	if code := gcerrors.Code(err); code != gcerrors.Unknown && code != gcerrors.InvalidArgument {
		return false
	}
	attrs, err := s.Inner.Attributes(ctx, key)
	return err == nil && attrs.Size == 0
}
