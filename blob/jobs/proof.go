package jobs

import (
	"context"
	"fmt"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/blob/internal/store"
	"github.com/blobseal/blobseal/blob/stored"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/sse"
)

// prover decides what proves that an object does not need a version of a ring.
//
// An envelope only claims a key. One flipped bit in it, or an edit, can hide that
// the object needs the version, and destroying the version then loses the object
// even if somebody repairs the bit. So the prover opens every SSE-S3 envelope,
// compares the hint in the metadata, and takes an object without an envelope for
// plain only where plain objects are allowed.
type prover struct {
	ring    *keyring.Ring
	managed sse.Decrypter
	retired KeyRef
}

func newProver(ring *keyring.Ring, id string) *prover {
	return &prover{ring: ring, managed: sse.NewManaged(ring), retired: KeyRef{sse.ModeManaged, id}}
}

// prove looks at an object that the listing showed. doubt says why nothing proves
// which key the object needs, or is nil.
func (p *prover) prove(ctx context.Context, s *store.Store, object store.Listed) (e Entry, doubt error) {
	for attempt := 1; ; attempt++ {
		seen := s.InspectListed(ctx, object)
		e = entryOf(seen)
		if doubt = p.findDoubt(ctx, s, e, seen.Envelope); doubt == nil || attempt == stored.MaxTries || ctx.Err() != nil {
			return e, doubt
		}
		object.Size = -1
		store.Pause(ctx, attempt) // head and metadata may be of two versions
	}
}

// findDoubt returns why nothing proves which key the object needs, or nil.
func (p *prover) findDoubt(ctx context.Context, s *store.Store, e Entry, env *sse.Envelope) error {
	switch {
	case e.Kind == stored.KindPlain && !s.AllowPlain:
		return fmt.Errorf("%w, in a bucket without AllowPlain", stored.ErrPlain)
	case env == nil:
		return whyUnclear(e)
	case keyOf(env) == p.retired:
		return nil // it is counted as under the version, whatever else it is
	}
	attrs, err := s.Inner.Attributes(ctx, e.Key)
	if err != nil {
		return s.Absence(ctx, e.Key, err)
	}
	if hint, present := stored.ParseHint(attrs.Metadata); present && hint != stored.HintOf(env) {
		return fmt.Errorf("blob: metadata says %v, envelope says %v (rewrap with Force)", KeyRef{hint.Mode, hint.KeyID}, keyOf(env))
	}
	if env.Mode() != sse.ModeManaged {
		return nil
	}
	if _, err := p.managed.Decrypt(ctx, s.Existing(e.Key), env); err != nil {
		return store.KeyError(err)
	}
	return nil
}

// checkUnused returns an [*InUseError] unless every object in the buckets is proved not
// to need the version.
func (p *prover) checkUnused(ctx context.Context, o RetireOptions, buckets []*blob.Bucket) error {
	if len(buckets) == 0 {
		return fmt.Errorf("%w: no bucket to look into", sse.ErrInvalid)
	}
	found := &InUseError{Seal: p.retired}
	for _, b := range buckets {
		s := storeOf(b)
		err := lookAtAll(ctx, s, "", pace{o.Workers, o.Limit}, func(ctx context.Context, object store.Listed) (Entry, error) {
			return p.prove(ctx, s, object)
		}, func(e Entry, doubt error) error {
			found.add(b.Name(), e, doubt)
			return nil
		})
		if err != nil {
			return err
		}
	}
	return found.errOrNil()
}
