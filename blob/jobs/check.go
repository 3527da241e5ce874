package jobs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/blob/internal/store"
	"github.com/blobseal/blobseal/blob/stored"
	"github.com/blobseal/blobseal/keyring"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/audit"
	"github.com/blobseal/blobseal/sse"
)

// Verdict is what [Check] finds an object to be.
type Verdict uint8

// The verdicts, in the order of a summary.
const (
	VerdictGood           Verdict = iota + 1 // authentic, as far as Depth says
	VerdictPlain                             // not encrypted, and its metadata agrees
	VerdictWrongKey                          // the envelope belongs to another object, bucket, context or key, or was edited
	VerdictNoKey                             // the key is unavailable: disabled, destroyed, denied, unreachable, or a customer's
	VerdictTruncated                         // the object was cut
	VerdictDamaged                           // the envelope or the body was altered
	VerdictUnknownVersion                    // the envelope is of a later version of the format
	VerdictUnreadable                        // the store failed, or served another version each time
)

var verdictNames = [...]string{
	VerdictGood: "good", VerdictPlain: "plain", VerdictWrongKey: "wrong key", VerdictNoKey: "no key", VerdictTruncated: "truncated",
	VerdictDamaged: "damaged", VerdictUnknownVersion: "unknown version", VerdictUnreadable: "unreadable",
}

// String names the verdict.
func (v Verdict) String() string {
	if int(v) < len(verdictNames) && v != 0 {
		return verdictNames[v]
	}
	return fmt.Sprintf("Verdict(%d)", uint8(v))
}

// Depth is how much of an object a check reads.
type Depth uint8

// How far a check looks, and what each costs. A verdict holds as far as the check
// looked: only CheckBodies proves that an object can be read.
const (
	// CheckBodies authenticates everything. It reads everything.
	CheckBodies Depth = iota

	// CheckLengths opens the envelope and authenticates where the body ends, and so
	// its size. It reads the head and the last 16 KiB of each object. For a composite
	// object, that is what CheckEnvelopes does.
	CheckLengths

	// CheckEnvelopes opens the envelope and finds sizes that no object has. It reads
	// the head of each object, and the end of a composite one, whose list of parts and
	// size it authenticates.
	CheckEnvelopes
)

// Finding is the result of a check for one object.
type Finding struct {
	Entry
	Verdict Verdict
	Err     error // nil if the object is good or plain
}

// CheckOptions are for [Check]. The zero value is right for most.
type CheckOptions struct {
	// Filter chooses objects. A filter with Modes or KeyIDs leaves out objects without
	// an envelope.
	Filter Filter

	// Depth is how much to read.
	Depth Depth

	// From opens the objects; nil means the bucket's decrypters.
	From sse.Decrypter

	// Workers is how many objects are looked at at once; 0 means 8.
	Workers int

	// Limit, if set, sets the pace, in objects.
	Limit Limiter
}

// Check reads every object and says what is wrong with it. Findings come in the order of
// the store's listing, one at a time; bodies pass through in pieces. If an object is
// replaced meanwhile, the new one counts. If it is deleted, there is no finding. If the
// listing or the limiter fails or ctx ends, the sequence ends with an error and does not
// cover the whole bucket.
//
// A good object is authentic as far as Depth reaches. Nothing proves that it is the
// latest that was written under its key, or that no object is missing.
func Check(ctx context.Context, b *blob.Bucket, opts *CheckOptions) iter.Seq2[Finding, error] {
	s := storeOf(b)
	o := valueOr(opts)
	if o.From == nil {
		o.From = s.Decrypter
	}
	return sequence(func(yield func(Finding) error) error {
		if err := o.Filter.check(); err != nil {
			return err
		}
		return lookAtAll(ctx, s, o.Filter.Prefix, pace{o.Workers, o.Limit}, func(ctx context.Context, object store.Listed) (Finding, error) {
			f := check(ctx, s, object, o)
			return f, f.Err
		}, func(f Finding, _ error) error {
			if !o.Filter.chooses(f.Seal) {
				return nil
			}
			return yield(f)
		})
	})
}

// maxChecks bounds how often a changing object is checked.
const maxChecks = 8

// check looks at one object. A bad verdict may come from reading parts of two versions,
// so it counts only if two looks at one version agree.
func check(ctx context.Context, s *store.Store, object store.Listed, o CheckOptions) Finding {
	var before *sse.Envelope
	var found Verdict // then
	for attempt := 1; ; attempt++ {
		seen := s.InspectListed(ctx, object)
		e, env := entryOf(seen), seen.Envelope
		f := Finding{Entry: e, Err: e.Err}
		if env != nil && f.Err == nil && o.Filter.chooses(e.Seal) {
			f.Err = s.Absence(ctx, e.Key, open(ctx, s, seen, o))
		}
		f.Verdict = verdict(e, f.Err)
		if f.Err == nil || env == nil {
			return f
		}
		if stored.SameEnvelope(before, env) && f.Verdict == found && !errors.Is(f.Err, stored.ErrChanged) {
			return f
		}
		if attempt == maxChecks {
			f.Err = fmt.Errorf("%w: %v", stored.ErrChanged, f.Err)
			f.Verdict = VerdictUnreadable
			return f
		}
		before, found = env, f.Verdict
	}
}

// open opens an object and reads as much as o.Depth says.
func open(ctx context.Context, s *store.Store, seen store.Object, o CheckOptions) error {
	d, err := o.From.Decrypt(ctx, s.Existing(seen.Key), seen.Envelope)
	if err != nil {
		return store.KeyError(err)
	}
	if seen.Trailer != nil {
		return openComposite(ctx, s, seen, d, o.Depth)
	}
	at := int64(seen.Envelope.Size())
	switch o.Depth {
	case CheckLengths:
		body := io.NewSectionReader(s.Pieces(ctx, seen.Key, seen.Version(), nil), at, seen.Stored-at)
		_, err = d.ReaderAt(body, body.Size())
	case CheckBodies:
		err = readBody(ctx, s, seen, at, -1, seen.Size, d.Reader)
	}
	return err
}

// openComposite authenticates the list of an object's parts, whose sizes are the
// object's, and reads the parts if depth says so.
func openComposite(ctx context.Context, s *store.Store, seen store.Object, d *sse.Decryption, depth Depth) error {
	c, err := seen.Trailer.Open(d)
	if err != nil || depth != CheckBodies {
		return err
	}
	at, n, err := c.StoredRange(0, -1)
	if err != nil {
		return err
	}
	return readBody(ctx, s, seen, 0, at+n, c.Size(), c.Reader)
}

// readBody reads n stored bytes from off, or all from off on if n is negative, through
// decrypt. The plaintext must have size bytes.
func readBody(ctx context.Context, s *store.Store, seen store.Object, off, n, size int64, decrypt func(io.Reader) io.Reader) error {
	r, err := s.OpenVersion(ctx, seen.Key, seen.Version(), off, n, nil)
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = copyBody(io.Discard, stored.ExactReader(decrypt(r), size, stored.ErrChanged))
	return err
}

// verdict returns the verdict for an error.
func verdict(e Entry, err error) Verdict {
	switch {
	case err == nil && e.Kind == stored.KindPlain:
		return VerdictPlain
	case err == nil:
		return VerdictGood
	case e.Kind == stored.KindUnknownVersion:
		return VerdictUnknownVersion
	case errors.Is(err, sse.ErrKey):
		return VerdictWrongKey
	case errors.Is(err, sse.ErrTruncated), e.Kind == stored.KindDamaged && errors.Is(err, io.ErrUnexpectedEOF):
		return VerdictTruncated
	case errors.Is(err, sse.ErrCorrupt), e.Kind == stored.KindDamaged:
		return VerdictDamaged
	}
	for _, reason := range noKey {
		if errors.Is(err, reason) {
			return VerdictNoKey
		}
	}
	return VerdictUnreadable
}

// noKey are the errors of unavailable keys.
var noKey = []error{
	sse.ErrMode, keyring.ErrDisabled, keyring.ErrDestroyed, keyring.ErrUnknownKey, keyring.ErrStore,
	kms.ErrDenied, kms.ErrDisabled, kms.ErrPendingDeletion, kms.ErrNotFound, kms.ErrUnavailable, kms.ErrInvalid, audit.ErrNotRecorded,
}
