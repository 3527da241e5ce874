package store

import (
	"bytes"
	"context"
	"errors"
	"io"

	gcblob "gocloud.dev/blob"
	"golang.org/x/sync/errgroup"

	"github.com/blobseal/blobseal/blob/stored"
	"github.com/blobseal/blobseal/sse"
)

// tailSize is how many of its last bytes [sse.ReadTrailer] reads first of an object.
const tailSize = 64 << 10

// headSize is more than [sse.ReadTrailer] reads of an object's first bytes.
const headSize = 64

// Pieces gives random access to one version of a stored object. It keeps what it
// read, so that no piece is requested twice. It is for one goroutine.
type Pieces struct {
	fetch func(off, n int64) ([]byte, error) // holds no response when it returns
	kept  []piece
}

type piece struct {
	off  int64
	data []byte
}

// Keep adds the bytes that are stored at off.
func (p *Pieces) Keep(off int64, data []byte) { p.kept = append(p.kept, piece{off, data}) }

// Kept returns n bytes from off, or nil if they are not all kept.
func (p *Pieces) Kept(off, n int64) []byte {
	for _, k := range p.kept {
		if at := off - k.off; at >= 0 && n <= int64(len(k.data))-at {
			return k.data[at:][:n:n]
		}
	}
	return nil
}

// Range returns n bytes from off, or fewer if the stored object ends before.
func (p *Pieces) Range(off, n int64) ([]byte, error) {
	if n == 0 {
		return nil, nil
	}
	if data := p.Kept(off, n); data != nil {
		return data, nil
	}
	data, err := p.fetch(off, n)
	if err == nil {
		p.Keep(off, data)
	}
	return data, err
}

// ReadAt implements [io.ReaderAt].
func (p *Pieces) ReadAt(b []byte, off int64) (int, error) {
	data, err := p.Range(off, int64(len(b)))
	n := copy(b, data)
	if err == nil && n < len(b) {
		err = io.EOF
	}
	return n, err
}

// Pieces returns the pieces of the version seen of the object at key. A piece is
// [stored.ErrChanged] if the store serves another version.
func (s *Store) Pieces(ctx context.Context, key string, seen stored.Version, opts *gcblob.ReaderOptions) *Pieces {
	return &Pieces{fetch: func(off, n int64) ([]byte, error) {
		r, err := s.OpenVersion(ctx, key, seen, off, n, opts)
		if err != nil {
			return nil, err
		}
		defer r.Close()
		return io.ReadAll(io.LimitReader(r, n))
	}}
}

// Trailer is the trailer of a composite object in a store.
type Trailer struct {
	*sse.Trailer
	pieces *Pieces // of the version of which it is
	size   int64   // of the stored object
}

// Trailer reads the trailer of the version seen of a composite object, of which head
// is the first bytes, if the caller has them. Its errors are those of the store and of
// [sse.ReadTrailer].
func (s *Store) Trailer(ctx context.Context, key string, seen stored.Version, head []byte) (*Trailer, error) {
	if seen.Size < 0 {
		return nil, ErrUnpacked
	}
	p := s.Pieces(ctx, key, seen, nil)
	if len(head) > 0 {
		p.Keep(0, head)
	} else if seen.Size > tailSize {
		if err := p.fetchEnds(seen.Size); err != nil {
			return nil, err
		}
	}
	t, err := sse.ReadTrailer(p, seen.Size)
	if err != nil {
		return nil, err
	}
	return &Trailer{t, p, seen.Size}, nil
}

// fetchEnds requests both ends of an object of size bytes at once.
func (p *Pieces) fetchEnds(size int64) error {
	var head, tail []byte
	var ends errgroup.Group
	ends.Go(func() (err error) {
		head, err = p.fetch(0, headSize)
		return err
	})
	ends.Go(func() (err error) {
		tail, err = p.fetch(size-tailSize, tailSize)
		return err
	})
	if err := ends.Wait(); err != nil {
		return err
	}
	p.Keep(0, head)
	p.Keep(size-tailSize, tail)
	return nil
}

// Tail is the new end of a composite object, for an envelope in the place of its own.
type Tail struct {
	Envelope *sse.Envelope
	Off      int64 // where it begins; the bytes before it stay
	Data     []byte
}

// Size returns the size of the stored object.
func (t *Tail) Size() int64 { return t.Off + int64(len(t.Data)) }

// Replace returns the tail of a composite object for an envelope that is about to be
// written. It pads the envelope so that the object's size tells lists to look at the
// object, also if the object was not uploaded for this bucket.
func (s *Store) Replace(t *Trailer, env *sse.Envelope) (*Tail, error) {
	if err := s.Admit(env); err != nil {
		return nil, err
	}
	data, off, err := t.Trailer.Replace(env)
	if err != nil {
		return nil, err
	}
	tail := &Tail{env, off, data}
	plain, err := stored.PlaintextSize(tail.Size(), s.EnvelopeSize)
	if err != nil { // no other object has that size
		return tail, nil
	}
	size := int64(t.Envelope().Size()) + tail.Size() - t.size
	padded, err := env.WithSize(int(size + sse.ChunkSize - plain%sse.ChunkSize))
	if err != nil { // too large
		return tail, nil
	}
	tail.Data, _, err = t.Trailer.Replace(padded)
	return tail, err
}

// Copy returns a reader of the object with its new tail. src reads the object as it
// is, from its start. The reader fails with [stored.ErrChanged] if src reads another
// object than the trailer is of, whose list of parts is not the same. If src ends
// early, it is [sse.ErrTruncated].
func (t *Trailer) Copy(src io.Reader, tail *Tail) io.Reader {
	parts := stored.ExactReader(io.LimitReader(src, tail.Off), tail.Off, sse.ErrTruncated)
	return io.MultiReader(&partsReader{src: parts, known: t.pieces.kept}, bytes.NewReader(tail.Data))
}

// partsReader reads the bytes of a composite object and compares them with what is
// known of them, which includes the sealed list of parts.
type partsReader struct {
	src   io.Reader
	at    int64
	known []piece
}

func (r *partsReader) Read(p []byte) (int, error) {
	n, err := r.src.Read(p)
	for _, k := range r.known {
		from, to := max(r.at, k.off), min(r.at+int64(n), k.off+int64(len(k.data)))
		if from < to && !bytes.Equal(p[from-r.at:to-r.at], k.data[from-k.off:to-k.off]) {
			return 0, stored.ErrChanged
		}
	}
	r.at += int64(n)
	return n, err
}

// StartReplaceEnd calls ReplaceEnd for the composite object with attrs. opts are those
// of the write that it stands for.
func (s *Store) StartReplaceEnd(ctx context.Context, key string, attrs *gcblob.Attributes, tail *Tail, opts *gcblob.WriterOptions) (publish, abort func() error, err error) {
	if s.ReplaceEnd == nil {
		return nil, nil, errors.ErrUnsupported
	}
	as, err := s.upload(ctx, key, tail.Envelope, opts)
	if err != nil {
		return nil, nil, err
	}
	return s.ReplaceEnd(ctx, as, attrs.ETag, tail.Off, tail.Data)
}

// upload returns what the BeforeWrite hook of a write gets. The write does not take
// place.
func (s *Store) upload(ctx context.Context, key string, env *sse.Envelope, opts *gcblob.WriterOptions) (as func(any) bool, err error) {
	stop := errors.New("blob: the store copies the object")
	before := opts.BeforeWrite
	opts.BeforeWrite = func(got func(any) bool) error {
		if before != nil {
			if err := before(got); err != nil {
				return err
			}
		}
		as = got
		return stop
	}
	w, err := s.CreateComposite(ctx, key, env, opts)
	if err == nil { // by a driver without BeforeWrite
		w.Abort()
		return nil, errors.ErrUnsupported
	}
	if as == nil {
		return nil, err
	}
	return as, nil
}
