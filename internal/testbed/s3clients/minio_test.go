package s3clients

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/minio/minio-go/v7/pkg/encrypt"
	"github.com/stretchr/testify/require"
)

// minioGo is github.com/minio/minio-go.
var minioGo = client{name: "minio-go", start: startMinioGo, cannot: sdkCannot}

func startMinioGo(t *testing.T, b *bed) doer {
	c, err := minio.New(b.url[len("https://"):], &minio.Options{
		Creds: credentials.NewStaticV4(b.user, b.secret, ""), Secure: true, Region: region, Transport: b.http.Transport, MaxRetries: 1,
	})
	require.NoError(t, err)
	return func(ctx context.Context, do task) (answer, error) {
		got, err := minioDo(ctx, c, do, filepath.Join(b.work, do.File))
		if err != nil {
			got.Error, got.Code = err.Error(), minio.ToErrorResponse(err).Code
		}
		return got, nil
	}
}

func minioDo(ctx context.Context, c *minio.Client, do task, file string) (got answer, err error) {
	write, read := minioMode(do.Mode)
	switch do.Do {
	case "put":
		_, err = c.FPutObject(ctx, bucket, do.Key, file, minio.PutObjectOptions{ServerSideEncryption: write, PartSize: partSize, DisableMultipart: !do.Parts})
	case "get":
		err = c.FGetObject(ctx, bucket, do.Key, file, minio.GetObjectOptions{ServerSideEncryption: read})
	case "range":
		opts := minio.GetObjectOptions{ServerSideEncryption: read}
		if err = opts.SetRange(do.Offset, do.Offset+do.Length-1); err == nil {
			err = minioRange(ctx, c, do.Key, file, opts)
		}
	case "copy":
		err = minioCopy(ctx, c, do, write)
	case "list":
		got.Sizes = map[string]int64{}
		for o := range c.ListObjects(ctx, bucket, minio.ListObjectsOptions{Prefix: do.Key, Recursive: true}) {
			if o.Err != nil {
				return got, o.Err
			}
			got.Sizes[o.Key] = o.Size
		}
	case "presign-get", "presign-put":
		method, headers := http.MethodGet, do.Mode.readHeaders()
		if do.Do == "presign-put" {
			method, headers = http.MethodPut, do.Mode.writeHeaders()
		}
		signed := http.Header{}
		for name, value := range headers {
			signed.Set(name, value)
		}
		var u *url.URL
		if u, err = c.PresignHeader(ctx, method, bucket, do.Key, time.Hour, nil, signed); err == nil {
			got.URL, got.Headers = u.String(), headers
		}
	}
	return got, err
}

// minioRange gets a range without looking at the object before.
func minioRange(ctx context.Context, c *minio.Client, key, file string, opts minio.GetObjectOptions) error {
	body, _, _, err := (&minio.Core{Client: c}).GetObject(ctx, bucket, key, opts)
	if err != nil {
		return err
	}
	defer body.Close()
	content, err := io.ReadAll(body)
	if err != nil {
		return err
	}
	return os.WriteFile(file, content, 0o600)
}

// minioMode returns what a request that stores in a mode, and one that reads, brings.
func minioMode(m mode) (write, read encrypt.ServerSide) {
	var err error
	switch m.Name {
	case "SSE-S3":
		write = encrypt.NewSSE()
	case "SSE-KMS":
		write, err = encrypt.NewSSEKMS(m.KeyID, nil)
	case "SSE-C":
		write, err = encrypt.NewSSEC(m.Customer)
		read = write
	}
	if err != nil {
		panic(err)
	}
	return write, read
}

func minioCopy(ctx context.Context, c *minio.Client, do task, write encrypt.ServerSide) error {
	dst := minio.CopyDestOptions{Bucket: bucket, Object: do.Key, Encryption: write}
	_, read := minioMode(do.FromMode)
	src := minio.CopySrcOptions{Bucket: bucket, Object: do.From, Encryption: read}
	if !do.Parts {
		_, err := c.CopyObject(ctx, dst, src)
		return err
	}
	first, rest := src, src
	first.MatchRange, first.Start, first.End = true, 0, partSize-1
	rest.MatchRange, rest.Start, rest.End = true, partSize, bigSize-1
	_, err := c.ComposeObject(ctx, dst, first, rest)
	return err
}
