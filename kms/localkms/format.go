package localkms

import (
	"context"
	"fmt"
	"log/slog"
	"math"

	"github.com/blobseal/blobseal/internal/document"
	"github.com/blobseal/blobseal/keyring"
)

// format is the [document.Format] of a service.
type format struct {
	limit int // of a document, in bytes
	log   *slog.Logger
}

// Open implements [document.Format].
func (f *format) Open(ctx context.Context, root document.Root, data []byte, known *snapshot) (*draft, error) {
	return openDocument(ctx, root, data, known)
}

// State implements [document.Format].
func (f *format) State(d *draft) (*snapshot, error) {
	s := &snapshot{state: d.state, due: math.MaxInt64}
	for _, k := range s.keys {
		s.due, s.last = min(s.due, k.due()), max(s.last, k.periodBegan())
	}
	return s, nil
}

// Draft implements [document.Format]. A snapshot holds everything that a draft
// needs, so edits ask no root.
func (f *format) Draft(s *snapshot) (*draft, bool) {
	return &draft{state: s.state}, true
}

// Seal implements [document.Format]. Only a draft without a document key, which is
// new or changes its root, asks the root.
func (f *format) Seal(ctx context.Context, root document.Root, d *draft, generation uint64) ([]byte, *snapshot, error) {
	d.version, d.generation = documentVersion, generation
	if len(d.sealed) == 0 {
		dek, err := d.newKey(ctx, root)
		if err != nil {
			return nil, nil, err
		}
		d.dek = dek
	}
	plaintext, err := d.encode()
	if err != nil {
		return nil, nil, err
	}
	defer clear(plaintext)
	data, err := d.header.seal(d.dek, plaintext)
	if err != nil {
		return nil, nil, err
	}
	d.size = len(data)
	s, err := f.State(d)
	return data, s, err
}

// Includes implements [document.Format].
func (f *format) Includes(known, next *snapshot) error {
	return known.contents.includes(&next.contents)
}

// Merge implements [document.Format].
func (f *format) Merge(d, other *draft) error {
	d.contents = d.contents.merge(&other.contents)
	d.changed, d.takesAway = true, true
	for _, k := range d.keys {
		if len(k.policies) > 1 {
			f.log.Error("localkms: two processes changed a key's policy independently, both apply until one is put",
				slog.String("key", k.arn))
		}
	}
	return nil
}

// checkSize refuses a draft whose document would be too large, with [ErrFull]: by
// the whole limit for a draft that takes power away, and otherwise by the limit
// without its reserve. A draft that does not grow the document is never too large.
func (f *format) checkSize(d *draft) error {
	plaintext, err := d.encode()
	if err != nil {
		return err
	}
	if size, limit := d.sealedSize(len(plaintext)), f.limitFor(d); size > limit && size > d.size {
		return fmt.Errorf("%w: document would have %d bytes, at most %d (delete keys, grants or policies)", ErrFull, size, limit)
	}
	return nil
}

// limitFor returns the size of the largest document that a draft may grow to.
func (f *format) limitFor(d *draft) int {
	if d.takesAway {
		return f.limit
	}
	return f.limit - f.limit/reserveShare
}

// reserveShare is the part of a document, one in so many, that only edits that
// take power away may use.
const reserveShare = 16

// documentLimit returns the size of the largest document that store takes, in bytes. The
// stores of packages keyring and sqlstore take more than a store must.
func documentLimit(store keyring.Store) int {
	limit := keyring.MaxDocumentSize
	if s, ok := store.(interface{ MaxSize() int }); ok {
		limit = s.MaxSize()
	}
	return min(limit, maxDocumentSize)
}
