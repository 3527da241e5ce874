package store

import (
	"context"
	"math"
	"slices"

	gcblob "gocloud.dev/blob"

	"github.com/blobseal/blobseal/blob/stored"
	"github.com/blobseal/blobseal/sse"
)

// Writer writes one stored object. Nothing of it is visible before [Writer.Commit].
type Writer struct {
	ctx    context.Context // of the inner write
	cancel context.CancelFunc
	inner  *gcblob.Writer
	head   []byte // the envelope, until it is written
}

// Create begins to write a stored object with the envelope env. opts are those of
// the caller, or of the stored object that this one replaces. Create adds the hint
// and keeps the inner bucket from sniffing a content type in the ciphertext.
func (s *Store) Create(ctx context.Context, key string, env *sse.Envelope, opts *gcblob.WriterOptions) (*Writer, error) {
	const small = 2 << 10 // a body of that size is written together with its envelope
	head, err := env.MarshalBinary()
	if err != nil {
		return nil, err
	}
	head = slices.Grow(head, small)
	w, err := s.create(ctx, key, stored.HintOf(env), opts)
	if err == nil {
		w.head = head
	}
	return w, err
}

// CreateComposite is Create for a composite object. The caller writes all of it,
// with env in its trailer.
func (s *Store) CreateComposite(ctx context.Context, key string, env *sse.Envelope, opts *gcblob.WriterOptions) (*Writer, error) {
	return s.create(ctx, key, stored.HintOf(env), opts)
}

func (s *Store) create(ctx context.Context, key string, hint stored.Hint, opts *gcblob.WriterOptions) (*Writer, error) {
	opts.Metadata = hint.Metadata(opts.Metadata)
	if opts.ContentEncoding != "" {
		opts.Metadata[stored.ContentEncoding], opts.ContentEncoding = opts.ContentEncoding, ""
	}
	return s.CreatePlain(ctx, key, opts)
}

// CreatePlain begins to write an object as it is. Create and CreatePlain leave the
// detection of a content type to the caller.
func (s *Store) CreatePlain(ctx context.Context, key string, opts *gcblob.WriterOptions) (*Writer, error) {
	opts.DisableContentTypeDetection = true
	w := new(Writer)
	var err error
	w.ctx, w.cancel = context.WithCancel(ctx)
	if w.inner, err = s.Inner.NewWriter(w.ctx, key, opts); err != nil {
		w.cancel()
		return nil, OpenError(err)
	}
	return w, nil
}

// Head returns the marshaled envelope, until the first Write.
func (w *Writer) Head() []byte { return w.head }

// Write writes the next bytes of the body.
func (w *Writer) Write(p []byte) (int, error) {
	if w.head == nil {
		return w.inner.Write(p)
	}
	head := w.head
	w.head = nil
	if len(p) <= cap(head)-len(head) {
		n, err := w.inner.Write(append(head, p...))
		return max(0, n-len(head)), err
	}
	if _, err := w.inner.Write(head); err != nil {
		return 0, err
	}
	return w.inner.Write(p)
}

// Abort ends the write without a trace. It cancels the write before it closes the
// inner writer, since Close commits.
func (w *Writer) Abort() {
	w.cancel()
	w.inner.Close()
}

// Commit makes the object visible. publish runs its argument, which does that, or
// returns without running it, which aborts the write.
func (w *Writer) Commit(publish func(func() error) error) error {
	closed := false
	err := publish(func() error {
		if err := w.ctx.Err(); err != nil {
			return err
		}
		closed = true
		return w.inner.Close()
	})
	if !closed {
		w.Abort()
	}
	w.cancel()
	return err
}

// partSize returns the [gcblob.WriterOptions].BufferSize, which s3blob and
// azureblob take for the size of parts, for a copy of a stored object of size
// bytes; 0 is their default, 8 MiB. S3 takes 10,000 parts: with the default, an
// object that was written in larger parts could not be copied. The copy may be a
// little larger than the object.
func partSize(size int64) int {
	const parts, usual = 9_000, 8 << 20
	if size <= parts*usual {
		return 0
	}
	return int(min(size/parts+1, math.MaxInt32))
}

// OptionsLike returns the options for writing an object that replaces the one with
// attrs. They keep all that gocloud knows of it.
func OptionsLike(attrs *gcblob.Attributes) *gcblob.WriterOptions {
	return &gcblob.WriterOptions{
		BufferSize:         partSize(attrs.Size),
		CacheControl:       attrs.CacheControl,
		ContentDisposition: attrs.ContentDisposition,
		ContentEncoding:    attrs.ContentEncoding,
		ContentLanguage:    attrs.ContentLanguage,
		ContentType:        attrs.ContentType,
		Metadata:           attrs.Metadata,
	}
}
