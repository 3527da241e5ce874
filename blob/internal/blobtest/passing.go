package blobtest

import (
	"context"

	gcblob "gocloud.dev/blob"
	"gocloud.dev/blob/driver"
	"gocloud.dev/gcerrors"
)

// Passing is a driver that passes everything to another bucket. Stores of tests embed
// it and change what they are about.
type Passing struct{ Bucket *gcblob.Bucket }

func (p Passing) ErrorCode(err error) gcerrors.ErrorCode { return gcerrors.Code(err) }
func (p Passing) As(i any) bool                          { return p.Bucket.As(i) }
func (p Passing) ErrorAs(err error, i any) bool          { return p.Bucket.ErrorAs(err, i) }
func (p Passing) Close() error                           { return nil }

func (p Passing) SignedURL(context.Context, string, *driver.SignedURLOptions) (string, error) {
	return "https://store.example/ciphertext", nil
}

func (p Passing) Attributes(ctx context.Context, key string) (*driver.Attributes, error) {
	a, err := p.Bucket.Attributes(ctx, key)
	if err != nil {
		return nil, err
	}
	return &driver.Attributes{
		CacheControl: a.CacheControl, ContentDisposition: a.ContentDisposition,
		ContentEncoding: a.ContentEncoding, ContentLanguage: a.ContentLanguage,
		ContentType: a.ContentType, Metadata: a.Metadata, CreateTime: a.CreateTime,
		ModTime: a.ModTime, Size: a.Size, MD5: a.MD5, ETag: a.ETag,
	}, nil
}

func (p Passing) ListPaged(ctx context.Context, opts *driver.ListOptions) (*driver.ListPage, error) {
	token, size := opts.PageToken, opts.PageSize
	if len(token) == 0 {
		token = gcblob.FirstPageToken
	}
	if size == 0 {
		size = 1000
	}
	objects, next, err := p.Bucket.ListPage(ctx, token, size, &gcblob.ListOptions{Prefix: opts.Prefix, Delimiter: opts.Delimiter, BeforeList: opts.BeforeList})
	page := &driver.ListPage{NextPageToken: next}
	for _, o := range objects {
		page.Objects = append(page.Objects, &driver.ListObject{Key: o.Key, ModTime: o.ModTime, Size: o.Size, MD5: o.MD5, IsDir: o.IsDir})
	}
	return page, err
}

// Open is NewRangeReader, with a reader to embed.
func (p Passing) Open(ctx context.Context, key string, offset, length int64, opts *driver.ReaderOptions) (*gcblob.Reader, error) {
	return p.Bucket.NewRangeReader(ctx, key, offset, length, &gcblob.ReaderOptions{BeforeRead: opts.BeforeRead})
}

// Create is NewTypedWriter, with a writer to embed.
func (p Passing) Create(ctx context.Context, key, contentType string, opts *driver.WriterOptions) (*gcblob.Writer, error) {
	return p.Bucket.NewWriter(ctx, key, &gcblob.WriterOptions{
		CacheControl: opts.CacheControl, ContentDisposition: opts.ContentDisposition,
		ContentEncoding: opts.ContentEncoding, ContentLanguage: opts.ContentLanguage,
		ContentType: contentType, DisableContentTypeDetection: true,
		Metadata: opts.Metadata, BeforeWrite: opts.BeforeWrite, IfNotExist: opts.IfNotExist,
	})
}

func (p Passing) Copy(ctx context.Context, dst, src string, opts *driver.CopyOptions) error {
	return p.Bucket.Copy(ctx, dst, src, &gcblob.CopyOptions{BeforeCopy: opts.BeforeCopy})
}

func (p Passing) Delete(ctx context.Context, key string, opts *driver.DeleteOptions) error {
	return p.Bucket.DeleteWithOptions(ctx, key, &gcblob.DeleteOptions{BeforeDelete: opts.BeforeDelete})
}
