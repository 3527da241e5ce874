package blobtest

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	gcblob "gocloud.dev/blob"
	"gocloud.dev/blob/driver"
)

// Spy is a store that records its requests and fails on demand. It keeps its objects in
// another bucket.
type Spy struct {
	Passing

	Hook   func(ctx context.Context, call string) error
	Coarse time.Duration // rounds times to this, and leaves out ETags
	Google bool          // rounds times as Google's store does: milliseconds in attributes, seconds in readers
	Unpack bool          // hides the size from readers, as a store that decompresses objects does
	Stale  func() int64  // if set, returns the size that readers report, or 0 for the real size

	mu      sync.Mutex
	calls   []string
	reading int                  // readers that are open
	served  int                  // readers that were closed
	writing int                  // writers that are open
	commits int                  // writers that were closed while their ctx was alive
	Wrote   driver.WriterOptions // of the last write
}

// NewSpy returns a Spy and the bucket that it makes.
func NewSpy(t testing.TB) (*Spy, *gcblob.Bucket) {
	s := &Spy{Passing: Passing{NewMem(t)}}
	b := gcblob.NewBucket(s)
	t.Cleanup(func() { b.Close() })
	return s, b
}

// note records a call and asks the hook about it.
func (s *Spy) note(ctx context.Context, format string, args ...any) error {
	call := fmt.Sprintf(format, args...)
	s.mu.Lock()
	s.calls = append(s.calls, call)
	hook := s.Hook
	s.mu.Unlock()
	if hook != nil {
		return hook(ctx, call)
	}
	return ctx.Err() // as a store over a network, and not the one behind it, does
}

// Take returns the calls since the last Take, sorted, since some run side by side.
func (s *Spy) Take() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	calls := s.calls
	s.calls = nil
	slices.Sort(calls)
	return calls
}

func (s *Spy) count(n *int, by int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	*n += by
}

func (s *Spy) State() (reading, writing, commits int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reading, s.writing, s.commits
}

// Served returns how many readers were closed.
func (s *Spy) Served() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.served
}

func (s *Spy) Attributes(ctx context.Context, key string) (*driver.Attributes, error) {
	if err := s.note(ctx, "HEAD %s", key); err != nil {
		return nil, err
	}
	a, err := s.Passing.Attributes(ctx, key)
	if err != nil {
		return nil, err
	}
	if s.Coarse > 0 {
		a.ModTime, a.ETag = a.ModTime.Truncate(s.Coarse), ""
	}
	if s.Google {
		a.ModTime = a.ModTime.Truncate(time.Millisecond)
	}
	return a, nil
}

func (s *Spy) ListPaged(ctx context.Context, opts *driver.ListOptions) (*driver.ListPage, error) {
	if err := s.note(ctx, "LIST"); err != nil {
		return nil, err
	}
	return s.Passing.ListPaged(ctx, opts)
}

type spyReader struct {
	*gcblob.Reader
	s   *Spy
	ctx context.Context
	key string
}

func (s *Spy) NewRangeReader(ctx context.Context, key string, offset, length int64, opts *driver.ReaderOptions) (driver.Reader, error) {
	if err := s.note(ctx, "GET %s %d %d", key, offset, length); err != nil {
		return nil, err
	}
	r, err := s.Open(ctx, key, offset, length, opts)
	if err != nil {
		return nil, err
	}
	s.count(&s.reading, 1)
	return &spyReader{Reader: r, s: s, ctx: ctx, key: key}, nil
}

func (r *spyReader) Attributes() *driver.ReaderAttributes {
	size := r.Size()
	if r.s.Stale != nil {
		size = cmp.Or(r.s.Stale(), size)
	}
	if r.s.Unpack {
		size = -1
	}
	coarse := r.s.Coarse
	if r.s.Google {
		coarse = time.Second
	}
	return &driver.ReaderAttributes{ContentType: r.ContentType(), ModTime: r.ModTime().Truncate(coarse), Size: size}
}

func (r *spyReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	if hook := r.s.Hook; hook != nil {
		if err := hook(r.ctx, "read "+r.key); err != nil {
			return 0, err
		}
	}
	return r.Reader.Read(p)
}

func (r *spyReader) Close() error {
	r.s.count(&r.s.reading, -1)
	r.s.count(&r.s.served, 1)
	return r.Reader.Close()
}

type spyWriter struct {
	*gcblob.Writer
	s      *Spy
	ctx    context.Context
	cancel context.CancelFunc
	key    string
}

func (s *Spy) NewTypedWriter(ctx context.Context, key, contentType string, opts *driver.WriterOptions) (driver.Writer, error) {
	if err := s.note(ctx, "PUT %s", key); err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.Wrote = *opts
	s.mu.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	w, err := s.Create(ctx, key, contentType, opts)
	if err != nil {
		cancel()
		return nil, err
	}
	s.count(&s.writing, 1)
	return &spyWriter{Writer: w, s: s, ctx: ctx, cancel: cancel, key: key}, nil
}

func (w *spyWriter) Write(p []byte) (int, error) {
	if hook := w.s.Hook; hook != nil {
		if err := hook(w.ctx, "write "+w.key); err != nil {
			return 0, err
		}
	}
	return w.Writer.Write(p)
}

func (w *spyWriter) Close() error {
	defer w.cancel()
	w.s.count(&w.s.writing, -1)
	if w.ctx.Err() == nil {
		w.s.count(&w.s.commits, 1)
		if hook := w.s.Hook; hook != nil {
			if err := hook(w.ctx, "commit "+w.key); err != nil {
				w.cancel()
				w.Writer.Close()
				return err
			}
		}
	}
	return w.Writer.Close()
}

func (s *Spy) Copy(ctx context.Context, dst, src string, opts *driver.CopyOptions) error {
	if err := s.note(ctx, "COPY %s %s", src, dst); err != nil {
		return err
	}
	return s.Passing.Copy(ctx, dst, src, opts)
}

func (s *Spy) Delete(ctx context.Context, key string, opts *driver.DeleteOptions) error {
	if err := s.note(ctx, "DELETE %s", key); err != nil {
		return err
	}
	return s.Passing.Delete(ctx, key, opts)
}
