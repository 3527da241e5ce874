package jobs_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	gcblob "gocloud.dev/blob"
	"gocloud.dev/blob/driver"
	"gocloud.dev/gcerrors"

	"github.com/blobseal/blobseal/blob/internal/blobtest"
)

// rigged is a store with a hook before everything that is done to it, which may
// do something itself, or fail. Operations are attributes, list, open, read,
// create, write, close and delete.
type rigged struct {
	blobtest.Passing

	coarse   bool // attributes do not tell one version from another of its size
	reversed bool // pages are in descending order

	mu   sync.Mutex
	hook func(op, key string) error
	seen map[string]int // by operation
}

// rig puts a rigged store before inner.
func rig(t testing.TB, inner *gcblob.Bucket) (*rigged, *gcblob.Bucket) {
	r := &rigged{Passing: blobtest.Passing{Bucket: inner}, seen: make(map[string]int)}
	b := gcblob.NewBucket(r)
	t.Cleanup(func() { b.Close() })
	return r, b
}

// set replaces the hook, which nil turns off, and forgets what was counted.
func (r *rigged) set(hook func(op, key string) error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hook, r.seen = hook, make(map[string]int)
}

// count returns how often an operation was done.
func (r *rigged) count(op string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.seen[op]
}

func (r *rigged) runHook(op, key string) error {
	r.mu.Lock()
	r.seen[op]++
	hook := r.hook
	r.mu.Unlock()
	if hook == nil {
		return nil
	}
	return hook(op, key)
}

func (r *rigged) ErrorCode(err error) gcerrors.ErrorCode {
	if errors.Is(err, gcerrors.ErrFailedPrecondition) {
		return gcerrors.FailedPrecondition
	}
	return gcerrors.Code(err)
}

func (r *rigged) Attributes(ctx context.Context, key string) (*driver.Attributes, error) {
	if err := r.runHook("attributes", key); err != nil {
		return nil, err
	}
	a, err := r.Passing.Attributes(ctx, key)
	if err == nil && r.coarse {
		a.ETag, a.ModTime = "", time.Time{}
	}
	return a, err
}

func (r *rigged) ListPaged(ctx context.Context, opts *driver.ListOptions) (*driver.ListPage, error) {
	if err := r.runHook("list", string(opts.PageToken)); err != nil {
		return nil, err
	}
	page, err := r.Passing.ListPaged(ctx, opts)
	if r.reversed {
		slices.Reverse(page.Objects)
	}
	return page, err
}

type riggedReader struct {
	*gcblob.Reader
	r   *rigged
	key string
}

func (r *rigged) NewRangeReader(ctx context.Context, key string, offset, length int64, opts *driver.ReaderOptions) (driver.Reader, error) {
	if err := r.runHook("open", key); err != nil {
		return nil, err
	}
	inner, err := r.Open(ctx, key, offset, length, opts)
	if err != nil {
		return nil, err
	}
	if inner.Size() == 0 && length > 0 {
		inner.Close()
		return nil, errors.New("InvalidRange") // as S3 says
	}
	return &riggedReader{inner, r, key}, nil
}

func (r *riggedReader) Attributes() *driver.ReaderAttributes {
	attrs := &driver.ReaderAttributes{ContentType: r.ContentType(), ModTime: r.ModTime(), Size: r.Size()}
	if r.r.coarse {
		attrs.ModTime = time.Time{}
	}
	return attrs
}

// Read gives little at a time, so that there is a middle for a hook to be in.
func (r *riggedReader) Read(p []byte) (int, error) {
	if err := r.r.runHook("read", r.key); err != nil {
		return 0, err
	}
	return r.Reader.Read(p[:min(len(p), 700)])
}

type riggedWriter struct {
	*gcblob.Writer
	cancel context.CancelFunc
	r      *rigged
	key    string
}

func (r *rigged) NewTypedWriter(ctx context.Context, key, contentType string, opts *driver.WriterOptions) (driver.Writer, error) {
	if err := r.runHook("create", key); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	inner, err := r.Create(ctx, key, contentType, opts)
	if err != nil {
		cancel()
		return nil, err
	}
	return &riggedWriter{inner, cancel, r, key}, nil
}

func (w *riggedWriter) Write(p []byte) (int, error) {
	if err := w.r.runHook("write", w.key); err != nil {
		return 0, err
	}
	return w.Writer.Write(p)
}

func (w *riggedWriter) Close() error {
	defer w.cancel()
	if err := w.r.runHook("close", w.key); err != nil {
		w.cancel()
		w.Writer.Close()
		return err
	}
	return w.Writer.Close()
}

func (r *rigged) Delete(ctx context.Context, key string, opts *driver.DeleteOptions) error {
	if err := r.runHook("delete", key); err != nil {
		return err
	}
	return r.Passing.Delete(ctx, key, opts)
}
