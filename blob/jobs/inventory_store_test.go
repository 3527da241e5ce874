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
)

// rigged is a store with a hook before everything that is done to it, which may
// do something itself, or fail. Operations are attributes, list, open, read,
// create, write, close and delete.
type rigged struct {
	inner *gcblob.Bucket

	coarse   bool // attributes do not tell one version from another of its size
	reversed bool // pages are in descending order

	mu   sync.Mutex
	hook func(op, key string) error
	seen map[string]int // by operation
}

// rig puts a rigged store before inner.
func rig(t testing.TB, inner *gcblob.Bucket) (*rigged, *gcblob.Bucket) {
	r := &rigged{inner: inner, seen: make(map[string]int)}
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

func (r *rigged) before(op, key string) error {
	r.mu.Lock()
	r.seen[op]++
	hook := r.hook
	r.mu.Unlock()
	if hook == nil {
		return nil
	}
	return hook(op, key)
}

func (r *rigged) As(i any) bool                 { return r.inner.As(i) }
func (r *rigged) ErrorAs(err error, i any) bool { return r.inner.ErrorAs(err, i) }
func (r *rigged) Close() error                  { return nil }

func (r *rigged) ErrorCode(err error) gcerrors.ErrorCode {
	if errors.Is(err, gcerrors.ErrFailedPrecondition) {
		return gcerrors.FailedPrecondition
	}
	return gcerrors.Code(err)
}

func (r *rigged) Attributes(ctx context.Context, key string) (*driver.Attributes, error) {
	if err := r.before("attributes", key); err != nil {
		return nil, err
	}
	a, err := r.inner.Attributes(ctx, key)
	if err != nil {
		return nil, err
	}
	if r.coarse {
		a.ETag, a.ModTime = "", time.Time{}
	}
	return &driver.Attributes{
		CacheControl: a.CacheControl, ContentDisposition: a.ContentDisposition, ContentEncoding: a.ContentEncoding,
		ContentLanguage: a.ContentLanguage, ContentType: a.ContentType, Metadata: a.Metadata,
		CreateTime: a.CreateTime, ModTime: a.ModTime, Size: a.Size, MD5: a.MD5, ETag: a.ETag,
	}, nil
}

func (r *rigged) ListPaged(ctx context.Context, opts *driver.ListOptions) (*driver.ListPage, error) {
	if err := r.before("list", string(opts.PageToken)); err != nil {
		return nil, err
	}
	token := opts.PageToken
	if len(token) == 0 {
		token = gcblob.FirstPageToken
	}
	size := opts.PageSize
	if size == 0 {
		size = 1000
	}
	objects, next, err := r.inner.ListPage(ctx, token, size, &gcblob.ListOptions{Prefix: opts.Prefix, Delimiter: opts.Delimiter})
	if err != nil {
		return nil, err
	}
	page := &driver.ListPage{NextPageToken: next}
	for _, o := range objects {
		page.Objects = append(page.Objects, &driver.ListObject{Key: o.Key, ModTime: o.ModTime, Size: o.Size, MD5: o.MD5, IsDir: o.IsDir})
	}
	if r.reversed {
		slices.Reverse(page.Objects)
	}
	return page, nil
}

type riggedReader struct {
	*gcblob.Reader
	r   *rigged
	key string
}

func (r *rigged) NewRangeReader(ctx context.Context, key string, offset, length int64, opts *driver.ReaderOptions) (driver.Reader, error) {
	if err := r.before("open", key); err != nil {
		return nil, err
	}
	inner, err := r.inner.NewRangeReader(ctx, key, offset, length, &gcblob.ReaderOptions{BeforeRead: opts.BeforeRead})
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
	if err := r.r.before("read", r.key); err != nil {
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
	if err := r.before("create", key); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	inner, err := r.inner.NewWriter(ctx, key, &gcblob.WriterOptions{
		CacheControl: opts.CacheControl, ContentDisposition: opts.ContentDisposition, ContentEncoding: opts.ContentEncoding,
		ContentLanguage: opts.ContentLanguage, ContentType: contentType, Metadata: opts.Metadata,
		DisableContentTypeDetection: true, IfNotExist: opts.IfNotExist, BeforeWrite: opts.BeforeWrite,
	})
	if err != nil {
		cancel()
		return nil, err
	}
	return &riggedWriter{inner, cancel, r, key}, nil
}

func (w *riggedWriter) Write(p []byte) (int, error) {
	if err := w.r.before("write", w.key); err != nil {
		return 0, err
	}
	return w.Writer.Write(p)
}

func (w *riggedWriter) Close() error {
	defer w.cancel()
	if err := w.r.before("close", w.key); err != nil {
		w.cancel()
		w.Writer.Close()
		return err
	}
	return w.Writer.Close()
}

func (r *rigged) Copy(ctx context.Context, dstKey, srcKey string, opts *driver.CopyOptions) error {
	return r.inner.Copy(ctx, dstKey, srcKey, nil)
}

func (r *rigged) Delete(ctx context.Context, key string, opts *driver.DeleteOptions) error {
	if err := r.before("delete", key); err != nil {
		return err
	}
	return r.inner.Delete(ctx, key)
}

func (r *rigged) SignedURL(context.Context, string, *driver.SignedURLOptions) (string, error) {
	return "", gcerrors.ErrUnimplemented
}
