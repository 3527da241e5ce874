package objstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"syscall"
	"time"

	thanos "github.com/thanos-io/objstore"
	gcblob "gocloud.dev/blob"
	"gocloud.dev/blob/driver"
	"gocloud.dev/gcerrors"

	"github.com/blobseal/blobseal/blob/stored"
)

// OpenBucket returns a Go CDK bucket over an objstore bucket, for packages blob and
// jobs; [NewBucket] calls it. It is not encrypted. Closing it leaves inner open.
//
// Keys must be clean paths, since some providers clean them: "a//b", "../a" and "a/" are
// InvalidArgument. objstore keeps no metadata, so writes with metadata are Unimplemented;
// only the hint of package stored is dropped. Conditional writes and signed URLs are
// Unimplemented, too. A writer keeps up to 1 MiB in memory, or else a file in [os.TempDir],
// until Close uploads the object. A list requests the attributes of each object, 16 at a
// time.
//
// As returns the objstore.Bucket.
func OpenBucket(inner thanos.Bucket) *gcblob.Bucket { return gcblob.NewBucket(&bucketDriver{inner}) }

// bucketDriver implements gocloud's driver.
type bucketDriver struct{ inner thanos.Bucket }

var _ driver.Bucket = (*bucketDriver)(nil)

// codedError is an error with a code of gocloud.
type codedError struct {
	code gcerrors.ErrorCode
	text string
}

func (e *codedError) Error() string { return "objstore: " + e.text }

// checkName refuses names that some providers would clean.
func checkName(name string) error {
	if name == "" || name != path.Clean(name) || name[0] == '/' || name == "." || name == ".." || strings.HasPrefix(name, "../") {
		return &codedError{gcerrors.InvalidArgument, fmt.Sprintf("%q is not a clean path (use names like a/b)", name)}
	}
	return nil
}

// ErrorCode implements [driver.Bucket].
func (d *bucketDriver) ErrorCode(err error) gcerrors.ErrorCode {
	var coded *codedError
	switch {
	case errors.As(err, &coded):
		return coded.code
	case isInner(err, d.inner.IsObjNotFoundErr), errors.Is(err, syscall.ENOTDIR): // "a/b" of a file "a"
		return gcerrors.NotFound
	case isInner(err, d.inner.IsAccessDeniedErr):
		return gcerrors.PermissionDenied
	}
	return gcerrors.Unknown
}

// As implements [driver.Bucket].
func (d *bucketDriver) As(i any) bool {
	if p, ok := i.(*thanos.Bucket); ok {
		*p = d.inner
		return true
	}
	return false
}

// ErrorAs implements [driver.Bucket].
func (d *bucketDriver) ErrorAs(error, any) bool { return false }

func asNothing(any) bool { return false }

// contentType is the content type of every object, since objstore has none.
const contentType = "application/octet-stream"

// Attributes implements [driver.Bucket].
func (d *bucketDriver) Attributes(ctx context.Context, key string) (*driver.Attributes, error) {
	attrs, err := d.stat(ctx, key)
	if err != nil {
		return nil, err
	}
	return &driver.Attributes{ContentType: contentType, ModTime: attrs.LastModified, Size: attrs.Size, AsFunc: asNothing}, nil
}

func (d *bucketDriver) stat(ctx context.Context, key string) (thanos.ObjectAttributes, error) {
	if err := checkName(key); err != nil {
		return thanos.ObjectAttributes{}, err
	}
	if d.inner.Provider() == thanos.FILESYSTEM { // whose directories have attributes
		if err := d.mustExist(ctx, key); err != nil {
			return thanos.ObjectAttributes{}, err
		}
	}
	return d.inner.Attributes(ctx, key)
}

func (d *bucketDriver) mustExist(ctx context.Context, key string) error {
	switch ok, err := d.inner.Exists(ctx, key); {
	case err != nil:
		return err
	case !ok:
		return &codedError{gcerrors.NotFound, fmt.Sprintf("no object %q", key)}
	}
	return nil
}

// reader is the driver's reader.
type reader struct {
	io.ReadCloser
	attrs driver.ReaderAttributes
}

func (r *reader) Attributes() *driver.ReaderAttributes { return &r.attrs }
func (r *reader) As(any) bool                          { return false }

// NewRangeReader implements [driver.Bucket]. Reading a whole object takes one request if the
// provider returns the size with it. A range takes two, one after the other.
func (d *bucketDriver) NewRangeReader(ctx context.Context, key string, off, length int64, opts *driver.ReaderOptions) (driver.Reader, error) {
	if opts.BeforeRead != nil {
		if err := opts.BeforeRead(asNothing); err != nil {
			return nil, err
		}
	}
	if off == 0 && length < 0 {
		if r, err := d.openWhole(ctx, key); r != nil || err != nil {
			return r, err
		}
	}
	attrs, err := d.stat(ctx, key)
	if err != nil {
		return nil, err
	}
	if off > attrs.Size {
		return nil, &codedError{gcerrors.InvalidArgument, fmt.Sprintf("offset %d is beyond the %d bytes of %q", off, attrs.Size, key)}
	}
	if rest := attrs.Size - off; length < 0 || length > rest {
		length = rest
	}
	r := &reader{ReadCloser: io.NopCloser(strings.NewReader("")), attrs: readerAttributes(attrs.Size, attrs.LastModified)}
	if length > 0 { // some providers refuse empty ranges
		if r.ReadCloser, err = d.inner.GetRange(ctx, key, off, length); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// openWhole opens an object without asking for its attributes first. It returns nil if
// the provider does not tell the size.
func (d *bucketDriver) openWhole(ctx context.Context, key string) (driver.Reader, error) {
	if d.inner.Provider() == thanos.FILESYSTEM {
		return nil, nil // which opens directories
	}
	if err := checkName(key); err != nil {
		return nil, err
	}
	body, err := d.inner.Get(ctx, key)
	if err != nil {
		return nil, err
	}
	size, err := thanos.TryToGetSize(body)
	if err != nil {
		return nil, body.Close()
	}
	return &reader{ReadCloser: body, attrs: readerAttributes(size, time.Time{})}, nil
}

func readerAttributes(size int64, modified time.Time) driver.ReaderAttributes {
	return driver.ReaderAttributes{ContentType: contentType, ModTime: modified, Size: size}
}

// Copy implements [driver.Bucket]. The object passes through this process.
func (d *bucketDriver) Copy(ctx context.Context, dstKey, srcKey string, opts *driver.CopyOptions) error {
	if err := checkName(dstKey); err != nil {
		return err
	}
	if opts.BeforeCopy != nil {
		if err := opts.BeforeCopy(asNothing); err != nil {
			return err
		}
	}
	w := &writer{ctx: ctx, d: d, key: dstKey}
	r, err := d.NewRangeReader(ctx, srcKey, 0, -1, new(driver.ReaderOptions))
	if err != nil {
		return err
	}
	_, err = io.Copy(w, r)
	if err := errors.Join(err, r.Close()); err != nil {
		w.discard()
		return err
	}
	return w.Close()
}

// Delete implements [driver.Bucket]. It first checks that the object exists: some providers
// report no error if it does not, and that of the file system would delete a directory.
func (d *bucketDriver) Delete(ctx context.Context, key string, opts *driver.DeleteOptions) error {
	if err := checkName(key); err != nil {
		return err
	}
	if opts.BeforeDelete != nil {
		if err := opts.BeforeDelete(asNothing); err != nil {
			return err
		}
	}
	if err := d.mustExist(ctx, key); err != nil {
		return err
	}
	return d.inner.Delete(ctx, key)
}

// SignedURL implements [driver.Bucket].
func (d *bucketDriver) SignedURL(context.Context, string, *driver.SignedURLOptions) (string, error) {
	return "", &codedError{gcerrors.Unimplemented, "objstore has no signed URLs"}
}

// Close implements [driver.Bucket].
func (d *bucketDriver) Close() error { return nil }

// checkOptions refuses options that objstore cannot keep. Reading an object takes no hint, but
// it takes the content encoding.
func checkOptions(opts *driver.WriterOptions) error {
	for name := range opts.Metadata {
		if !strings.HasPrefix(name, stored.ReservedPrefix) || name == stored.ContentEncoding {
			return &codedError{gcerrors.Unimplemented, fmt.Sprintf("objstore keeps no metadata, such as %q", name)}
		}
	}
	if opts.CacheControl != "" || opts.ContentDisposition != "" || opts.ContentEncoding != "" || opts.ContentLanguage != "" {
		return &codedError{gcerrors.Unimplemented, "objstore keeps no cache control, and no content disposition, encoding or language"}
	}
	if opts.IfNotExist {
		return &codedError{gcerrors.Unimplemented, "objstore has no conditional writes"}
	}
	return nil
}
