package jobs

import (
	"context"
	"errors"
	"fmt"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/blob/stored"
	"github.com/blobseal/blobseal/sse"
)

// ErrInUse is what an [*InUseError] is, for errors.Is.
var ErrInUse = errors.New("blob: key is in use")

// ObjectName names an object.
type ObjectName struct {
	Bucket string `json:"bucket"`
	Key    string `json:"key"`
}

// String returns "bucket/key".
func (n ObjectName) String() string { return n.Bucket + "/" + n.Key }

// UnclearObject is an object that may need a key: nothing proves that it does not.
type UnclearObject struct {
	ObjectName
	Err error // why
}

// InUseError lists what stands against retiring a key.
type InUseError struct {
	Seal KeyRef

	// Objects is how many objects are under the key. Names are the first of them,
	// at most 20.
	Objects int64
	Names   []ObjectName

	// Unclear is how many objects may be under the key, since nothing proves which
	// key they need. UnclearObjects are the first of them, at most 20.
	Unclear        int64
	UnclearObjects []UnclearObject
}

const maxNames = 20

// Error implements error.
func (e *InUseError) Error() string {
	text := fmt.Sprintf("blob: key %v is in use by %d objects", e.Seal, e.Objects)
	if len(e.Names) > 0 {
		text += fmt.Sprintf(", first %q", e.Names)
	}
	if e.Unclear > 0 {
		text += fmt.Sprintf(", and %d objects may need it", e.Unclear)
	}
	if first := e.UnclearObjects; len(first) > 0 {
		text += fmt.Sprintf(", first %q: %v", first[0].ObjectName, first[0].Err)
	}
	return text
}

// Is makes the error [ErrInUse].
func (e *InUseError) Is(target error) bool { return target == ErrInUse }

// add notes an object if it stands against retiring the key. doubt says why nothing
// proves which key the object needs, or is nil.
func (e *InUseError) add(bucket string, entry Entry, doubt error) {
	name := ObjectName{bucket, entry.Key}
	switch {
	case e.Seal.names(entry.Seal):
		e.Objects++
		if len(e.Names) < maxNames {
			e.Names = append(e.Names, name)
		}
	case doubt != nil:
		e.Unclear++
		if len(e.UnclearObjects) < maxNames {
			e.UnclearObjects = append(e.UnclearObjects, UnclearObject{name, doubt})
		}
	}
}

// errOrNil returns e if anything stands against retiring the key.
func (e *InUseError) errOrNil() error {
	if e.Objects+e.Unclear > 0 {
		return e
	}
	return nil
}

// KeyOf returns the key that enc seals new objects under. A key service resolves an
// alias in doing so. KeyOf seals one data key and forgets it, which a key service
// records.
func KeyOf(ctx context.Context, enc sse.Encrypter) (KeyRef, error) {
	e, err := enc.Encrypt(ctx, sse.Object{})
	if err != nil {
		return KeyRef{}, err
	}
	return keyOf(e.Envelope()), nil
}

// CheckUnused looks at every object in the buckets and returns an [*InUseError] if
// one is under the key, or may be. The totals are of all objects that it saw: a key
// with a typo in its name is unused too.
//
// An SSE-KMS key can be named by its id, with or without a version, and by what its id
// ends in, such as the UUID of an ARN; a short name names every key whose id ends in it.
// All versions of a key count as the key. An alias, which may mean different keys at
// different times, is [sse.ErrInvalid]: see [KeyOf].
//
// CheckUnused reads the head of every object and believes its envelope, which
// anybody with write access to the store can edit; [Retire] does not. An object that
// is written meanwhile may be missed, so the key must not seal any more. Filter of
// opts is ignored.
func CheckUnused(ctx context.Context, key KeyRef, opts *InventoryOptions, buckets ...*blob.Bucket) (*Totals, error) {
	totals := new(Totals)
	if err := key.check(); err != nil {
		return totals, err
	}
	if len(buckets) == 0 {
		return totals, fmt.Errorf("%w: no bucket to look into", sse.ErrInvalid)
	}
	o := valueOr(opts)
	o.Filter = Filter{}
	found := &InUseError{Seal: key}
	for _, b := range buckets {
		for entry, err := range Inventory(ctx, b, &o) {
			if err != nil {
				return totals, err
			}
			totals.Add(entry)
			found.add(b.Name(), entry, whyUnclear(entry))
		}
	}
	return totals, found.errOrNil()
}

// whyUnclear returns why an entry does not say which key the object needs.
func whyUnclear(e Entry) error {
	if e.Seal != (KeyRef{}) || e.Kind == stored.KindPlain {
		return nil
	}
	if e.Err == nil {
		return fmt.Errorf("blob: object is %v", e.Kind)
	}
	return e.Err
}
