package objstore

import (
	"context"
	"errors"
	"fmt"
	"io"

	thanos "github.com/thanos-io/objstore"
	gcblob "gocloud.dev/blob"
	"gocloud.dev/gcerrors"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/blob/stored"
	"github.com/blobseal/blobseal/sse"
)

// Options are for [NewBucket]. Most services leave them nil.
type Options struct {
	// EnvelopeSize is [blob.Options].EnvelopeSize.
	EnvelopeSize int

	// Decrypters open objects of other modes than the cipher's, or with other keys. The
	// mode of an envelope selects one of them. The cipher opens all other modes.
	Decrypters sse.ByMode

	// AllowPlain lets reads return objects that are not encrypted, as
	// [blob.Options].AllowPlain does. Uploads encrypt nevertheless.
	AllowPlain bool
}

// Bucket is an objstore.Bucket that encrypts. It is safe for concurrent use.
type Bucket struct {
	inner        thanos.Bucket
	cipher       sse.Cipher
	encrypted    *blob.Bucket
	envelopeSize int
}

var _ thanos.Bucket = (*Bucket)(nil)

// NewBucket returns a bucket that keeps its objects encrypted in inner. Envelopes
// are bound to name, which must not be empty and must never change, and to the
// object's whole name in inner: put prefixes around the result, not around inner.
// cipher encrypts new objects and opens those of its mode. Closing the bucket closes
// inner.
//
// NewBucket returns [sse.ErrInvalid] for arguments that no object could have.
func NewBucket(inner thanos.Bucket, name string, cipher sse.Cipher, opts *Options) (*Bucket, error) {
	if opts == nil {
		opts = new(Options)
	}
	if inner == nil || cipher == nil {
		return nil, fmt.Errorf("%w: objstore.NewBucket: no bucket or no cipher", sse.ErrInvalid)
	}
	encrypted, err := blob.NewBucket(OpenBucket(inner), name, cipher, &blob.Options{
		EnvelopeSize: opts.EnvelopeSize,
		Decrypters:   opts.Decrypters,
		AllowPlain:   opts.AllowPlain,
		Policy:       blob.Policy{AllowCustomerKeys: true}, // this cipher alone writes
	})
	if err != nil {
		return nil, err
	}
	b := &Bucket{inner: inner, cipher: cipher, encrypted: encrypted, envelopeSize: opts.EnvelopeSize}
	if b.envelopeSize == 0 {
		b.envelopeSize = blob.DefaultEnvelopeSize
	}
	return b, nil
}

// Encrypted returns the same bucket for Go CDK, and for the jobs of package jobs.
func (b *Bucket) Encrypted() *blob.Bucket { return b.encrypted }

// Upload implements objstore.Bucket. It does not hold the whole object in memory. If
// objstore.TryToGetSize finds the size of r, it also finds that of the reader that inner
// gets. Uploads of one name take turns.
func (b *Bucket) Upload(ctx context.Context, name string, r io.Reader, opts ...thanos.ObjectUploadOption) error {
	if err := checkName(name); err != nil {
		return err
	}
	obj := sse.Object{Bucket: b.encrypted.Name(), Key: name}
	plain, sizeErr := thanos.TryToGetSize(r)
	body, err := sse.NewEncryptingReader(ctx, r, b.cipher, obj, &sse.WriterOptions{EnvelopeSize: b.envelopeSize})
	if err != nil {
		return fmt.Errorf("objstore: %q: %w", name, err)
	}
	if size, err := sse.CiphertextSize(plain); sizeErr == nil && err == nil {
		body = sized{body, size + int64(b.envelopeSize)}
	}
	return stored.LocksOf(b.encrypted.Inner()).Commit(ctx, name, func() error { return b.inner.Upload(ctx, name, body, opts...) })
}

// sized is a reader with a known size.
type sized struct {
	io.Reader
	size int64
}

// ObjectSize implements objstore.ObjectSizer.
func (s sized) ObjectSize() (int64, error) { return s.size, nil }

// Get implements objstore.BucketReader. The plaintext is authentic, and ends with io.EOF only
// if the object is complete.
func (b *Bucket) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	r, err := b.encrypted.NewReader(ctx, name, nil)
	if err != nil {
		return nil, err
	}
	return sizedReader{r, r.Size()}, nil
}

// GetRange implements objstore.BucketReader. A length of -1 reads to the end. A range ends at
// the object's end at the latest.
func (b *Bucket) GetRange(ctx context.Context, name string, off, length int64) (io.ReadCloser, error) {
	if off < 0 || length == 0 || length < -1 {
		return nil, &codedError{gcerrors.InvalidArgument, fmt.Sprintf("range of %d bytes from %d", length, off)}
	}
	r, err := b.encrypted.NewRangeReader(ctx, name, off, length, nil)
	if err != nil {
		return nil, err
	}
	size := max(0, r.Size()-off)
	if length >= 0 {
		size = min(size, length)
	}
	return sizedReader{r, size}, nil
}

// sizedReader is a gocloud reader with a known size. It cannot seek.
type sizedReader struct {
	r    *gcblob.Reader
	size int64
}

func (r sizedReader) Read(p []byte) (int, error)         { return r.r.Read(p) }
func (r sizedReader) WriteTo(w io.Writer) (int64, error) { return r.r.WriteTo(w) }
func (r sizedReader) Close() error                       { return r.r.Close() }

// ObjectSize implements objstore.ObjectSizer.
func (r sizedReader) ObjectSize() (int64, error) { return r.size, nil }

// Attributes implements objstore.BucketReader. The size is that of the plaintext. Attributes
// reads the object's envelope but uses no key, so the size is only as authentic as the store.
func (b *Bucket) Attributes(ctx context.Context, name string) (thanos.ObjectAttributes, error) {
	attrs, err := b.encrypted.Attributes(ctx, name)
	if err != nil {
		return thanos.ObjectAttributes{}, err
	}
	return thanos.ObjectAttributes{Size: attrs.Size, LastModified: attrs.ModTime}, nil
}

// Delete implements objstore.Bucket. If the object does not exist, Delete returns an error for
// which IsObjNotFoundErr is true.
func (b *Bucket) Delete(ctx context.Context, name string) error { return b.encrypted.Delete(ctx, name) }

// IsObjNotFoundErr implements objstore.BucketReader.
func (b *Bucket) IsObjNotFoundErr(err error) bool {
	return err != nil && (gcerrors.Code(err) == gcerrors.NotFound || isInner(err, b.inner.IsObjNotFoundErr))
}

// IsAccessDeniedErr implements objstore.BucketReader. It is also true if a key service denies
// the use of a key, or if the key does not open the object.
func (b *Bucket) IsAccessDeniedErr(err error) bool {
	return err != nil && (gcerrors.Code(err) == gcerrors.PermissionDenied || isInner(err, b.inner.IsAccessDeniedErr))
}

// isInner reports whether is holds for err or for an error that err wraps. Providers do not
// unwrap errors.
func isInner(err error, is func(error) bool) bool {
	for ; err != nil; err = errors.Unwrap(err) {
		if is(err) {
			return true
		}
	}
	return false
}

// Iter implements objstore.BucketReader: names are those of the inner bucket.
func (b *Bucket) Iter(ctx context.Context, dir string, f func(string) error, options ...thanos.IterOption) error {
	return b.inner.Iter(ctx, dir, f, options...)
}

// IterWithAttributes implements objstore.BucketReader.
func (b *Bucket) IterWithAttributes(ctx context.Context, dir string, f func(thanos.IterObjectAttributes) error, options ...thanos.IterOption) error {
	return b.inner.IterWithAttributes(ctx, dir, f, options...)
}

// SupportedIterOptions implements objstore.BucketReader.
func (b *Bucket) SupportedIterOptions() []thanos.IterOptionType {
	return b.inner.SupportedIterOptions()
}

// Exists implements objstore.BucketReader.
func (b *Bucket) Exists(ctx context.Context, name string) (bool, error) {
	return b.inner.Exists(ctx, name)
}

// Name implements objstore.Bucket: the name of the inner bucket.
func (b *Bucket) Name() string { return b.inner.Name() }

// Provider implements objstore.Bucket.
func (b *Bucket) Provider() thanos.ObjProvider { return b.inner.Provider() }

// Close implements io.Closer. It closes the inner bucket.
func (b *Bucket) Close() error {
	return errors.Join(b.encrypted.Close(), b.encrypted.Inner().Close(), b.inner.Close())
}
