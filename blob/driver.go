package blob

import (
	"context"
	"errors"

	"gocloud.dev/blob/driver"
	"gocloud.dev/gcerrors"
)

// bucketDriver implements gocloud's driver over the inner bucket.
type bucketDriver struct{ b *Bucket }

var _ driver.Bucket = (*bucketDriver)(nil)

var errTODO = errors.New("blob: not there yet")

func (d *bucketDriver) ErrorCode(err error) gcerrors.ErrorCode { return errorCode(err) }
func (d *bucketDriver) As(i any) bool                          { return false }
func (d *bucketDriver) ErrorAs(err error, i any) bool          { return false }
func (d *bucketDriver) Attributes(ctx context.Context, key string) (*driver.Attributes, error) {
	return nil, errTODO
}
func (d *bucketDriver) ListPaged(ctx context.Context, opts *driver.ListOptions) (*driver.ListPage, error) {
	return nil, errTODO
}
func (d *bucketDriver) NewRangeReader(ctx context.Context, key string, offset, length int64, opts *driver.ReaderOptions) (driver.Reader, error) {
	return nil, errTODO
}
func (d *bucketDriver) NewTypedWriter(ctx context.Context, key, contentType string, opts *driver.WriterOptions) (driver.Writer, error) {
	return nil, errTODO
}
func (d *bucketDriver) Copy(ctx context.Context, dstKey, srcKey string, opts *driver.CopyOptions) error {
	return errTODO
}
func (d *bucketDriver) Delete(ctx context.Context, key string, opts *driver.DeleteOptions) error {
	return errTODO
}
func (d *bucketDriver) SignedURL(ctx context.Context, key string, opts *driver.SignedURLOptions) (string, error) {
	return "", errTODO
}
func (d *bucketDriver) Close() error { return nil }
