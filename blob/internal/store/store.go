// Package store reads and writes stored objects in a gocloud bucket. The
// encrypted bucket of package blob and the jobs of package jobs share it, so that
// a job sees objects as the bucket does.
package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"time"

	gcblob "gocloud.dev/blob"
	"gocloud.dev/gcerrors"

	"github.com/blobseal/blobseal/blob/stored"
	"github.com/blobseal/blobseal/sse"
)

// Store is an encrypted bucket's view of the gocloud bucket under it. An encrypted
// bucket gives its Store to code of this module through As(**Store).
type Store struct {
	Inner        *gcblob.Bucket
	Name         string // the bucket name that envelopes are bound to
	EnvelopeSize int
	Cipher       sse.Cipher // of new objects
	Decrypter    sse.Decrypter
	Locks        *stored.Locks
	AllowPlain   bool // whether objects may be plain

	// Precheck checks a cipher against the bucket's policy, as far as it tells
	// without touching a key.
	Precheck func(enc sse.Encrypter) error

	// Admit checks a new envelope against the bucket's policy.
	Admit func(env *sse.Envelope) error

	// IfUnchanged adds the store's condition to a write; see blob.Options.
	IfUnchanged func(as func(any) bool, attrs *gcblob.Attributes) error

	// ReplaceEnd replaces the end of a composite object; see blob.Options.
	ReplaceEnd func(ctx context.Context, as func(any) bool, etag string, off int64, tail []byte) (publish, abort func() error, err error)

	// OnClose is called when the encrypted bucket is closed; nil leaves Inner open.
	OnClose func() error

	directory bool      // Inner is a fileblob bucket, or a driver over one
	files     *fileLock // nil unless Inner is a bare fileblob bucket
}

// New completes s, which has its exported fields.
func New(s Store) *Store {
	s.directory = isDirectory(s.Inner)
	if dir := bareDirectory(s.Inner); s.directory && dir != "" {
		s.files = newFileLock(dir)
	}
	return &s
}

// Commit runs publish, which writes or deletes the object at key, while no other
// writer of that key runs: none of this process, and in a fileblob bucket none of
// another process that uses this library.
func (s *Store) Commit(ctx context.Context, key string, publish func() error) error {
	w := s.Locks.Watch(key)
	defer w.End()
	return s.Change(ctx, w, func(bool) error { return publish() })
}

// Change is [stored.Watch.Change], which excludes other processes as Commit does.
func (s *Store) Change(ctx context.Context, w *stored.Watch, fn func(changed bool) error) error {
	return w.Change(ctx, func(changed bool) error {
		if s.files == nil {
			return fn(changed)
		}
		return s.files.run(ctx, func() error { return fn(changed) })
	})
}

// Object returns the identity of a new object at key, without a context.
func (s *Store) Object(key string) sse.Object { return sse.Object{Bucket: s.Name, Key: key} }

// Existing is Object for a stored object, whatever context that has.
func (s *Store) Existing(key string) sse.Object {
	return sse.Object{Bucket: s.Name, Key: key, AnyContext: true}
}

// Fit checks an envelope that is about to be written and pads it to the bucket's
// envelope size.
func (s *Store) Fit(env *sse.Envelope) (*sse.Envelope, error) {
	if err := s.Admit(env); err != nil {
		return nil, err
	}
	return env.WithSize(s.EnvelopeSize)
}

// Open begins to read n bytes of the stored object from off, or all that follows
// off if n is negative.
func (s *Store) Open(ctx context.Context, key string, off, n int64, opts *gcblob.ReaderOptions) (*gcblob.Reader, error) {
	for attempt := 1; ; attempt++ {
		r, err := s.Inner.NewRangeReader(ctx, key, off, n, opts)
		if err != nil {
			return nil, OpenError(err)
		}
		if size, ok := fileSize(r); !ok || size == r.Size() {
			return r, nil
		}
		r.Close()
		if attempt == stored.MaxTries {
			return nil, stored.ErrChanged
		}
	}
}

// OpenVersion is [Store.Open] for the version seen of the object. It returns
// [stored.ErrChanged] if the store serves another version.
func (s *Store) OpenVersion(ctx context.Context, key string, seen stored.Version, off, n int64, opts *gcblob.ReaderOptions) (*gcblob.Reader, error) {
	r, err := s.Open(ctx, key, off, n, opts)
	if err != nil {
		return nil, err
	}
	if !VersionRead(r).Same(seen) {
		r.Close()
		return nil, stored.ErrChanged
	}
	return r, nil
}

// Pause waits before another attempt at an object whose metadata may belong to a
// version that is about to be published. Without it, all attempts would end while
// a writer of files is between two calls.
func Pause(ctx context.Context, attempt int) {
	timer := time.NewTimer(time.Millisecond << attempt)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// ErrUnpacked means that the store decompresses the object as it serves it, as
// Google's does for gzip, so that the stored bytes cannot be read.
var ErrUnpacked = errors.New("blob: store decompresses object (remove its Content-Encoding)")

// ErrSize means that the store served more or fewer bytes than it said.
var ErrSize = fmt.Errorf("blob: object has another size than the store reported (retry): %w", io.ErrUnexpectedEOF)

// opaque hides from gocloud what it would read into an error: a code, since a key
// service that keeps its keys in a bucket must not make an object look deleted;
// and the end of a stream. errors.Is and errors.As see through it otherwise.
type opaque struct{ err error }

func (o opaque) Error() string { return o.err.Error() }

func (o opaque) Is(target error) bool {
	return target != io.EOF && target != gcerrors.ErrNotFound && errors.Is(o.err, target)
}

func (o opaque) As(target any) bool {
	// gocloud's error type is internal. Its xerrors method identifies it.
	_, coded := reflect.TypeOf(target).Elem().MethodByName("FormatError")
	return !coded && errors.As(o.err, target)
}

// KeyError wraps the error of a key operation, which may be any error, since
// ciphers come from the caller.
func KeyError(err error) error {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return opaque{err}
}

// OpenError wraps the error of a request to the store. A store may return io.EOF
// when its own files end too early; a reader must not take that for the object's
// end.
func OpenError(err error) error {
	if errors.Is(err, io.EOF) {
		return opaque{err}
	}
	return err
}
