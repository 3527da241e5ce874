package blob_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"slices"
	"testing"
	"time"

	gcblob "gocloud.dev/blob"

	"github.com/blobseal/blobseal/blob/internal/blobtest"
)

// operations are what is measured. Those that read find the object at "key".
var operations = []struct {
	name string
	do   func(ctx context.Context, b *gcblob.Bucket, p []byte) error
}{
	{"write", func(ctx context.Context, b *gcblob.Bucket, p []byte) error {
		w, err := b.NewWriter(ctx, "key", &gcblob.WriterOptions{ContentType: "application/octet-stream"})
		if err != nil {
			return err
		}
		for part := range slices.Chunk(p, 1<<20) {
			if _, err := w.Write(part); err != nil {
				return err
			}
		}
		return w.Close()
	}},
	{"upload", func(ctx context.Context, b *gcblob.Bucket, p []byte) error {
		return b.Upload(ctx, "key", onlyReader{bytes.NewReader(p)}, &gcblob.WriterOptions{ContentType: "application/octet-stream"})
	}},
	{"read", func(ctx context.Context, b *gcblob.Bucket, p []byte) error {
		r, err := b.NewReader(ctx, "key", nil)
		if err != nil {
			return err
		}
		buf := make([]byte, min(len(p)+1, 1<<20))
		if _, err := io.CopyBuffer(onlyWriter{io.Discard}, onlyReader{r}, buf); err != nil {
			return err
		}
		return r.Close()
	}},
	{"download", func(ctx context.Context, b *gcblob.Bucket, p []byte) error {
		return b.Download(ctx, "key", onlyWriter{io.Discard}, nil)
	}},
	// A bare bucket in memory, or in the page cache, is memory that is copied or
	// not even that, which nothing that looks at each byte comes near. A hash is
	// the least that a service does with what it reads.
	{"download+sha256", func(ctx context.Context, b *gcblob.Bucket, p []byte) error {
		return b.Download(ctx, "key", onlyWriter{sha256.New()}, nil)
	}},
}

var benchSizes = []struct {
	name string
	size int
}{{"1KiB", 1 << 10}, {"64MiB", 64 << 20}}

// BenchmarkBucket measures an encrypted bucket.
func BenchmarkBucket(b *testing.B) {
	for _, store := range blobtest.Stores {
		for _, size := range benchSizes {
			for _, operation := range operations {
				b.Run(fmt.Sprintf("%s/%s/%s", store.Name, size.name, operation.name), func(b *testing.B) {
					ctx, p := context.Background(), blobtest.Content(size.size)
					bucket := blobtest.NewBucket(b, store.Open(b), nil).Bucket
					prepare(b, ctx, bucket, p)
					b.SetBytes(int64(len(p)))
					b.ReportAllocs()
					for b.Loop() {
						if err := operation.do(ctx, bucket, p); err != nil {
							b.Fatal(err)
						}
					}
				})
			}
		}
	}
}

// BenchmarkBesideBare measures an encrypted bucket and the bare one in turns, and
// reports the best of each: their ratio, and what encryption adds.
func BenchmarkBesideBare(b *testing.B) {
	for _, store := range blobtest.Stores {
		for _, size := range benchSizes {
			for _, operation := range operations {
				b.Run(fmt.Sprintf("%s/%s/%s", store.Name, size.name, operation.name), func(b *testing.B) {
					ctx, p := context.Background(), blobtest.Content(size.size)
					buckets := []*gcblob.Bucket{store.Open(b), blobtest.NewBucket(b, store.Open(b), nil).Bucket}
					best := []time.Duration{time.Hour, time.Hour}
					for _, bucket := range buckets {
						prepare(b, ctx, bucket, p)
					}
					for b.Loop() {
						for i, bucket := range buckets {
							start := time.Now()
							if err := operation.do(ctx, bucket, p); err != nil {
								b.Fatal(err)
							}
							best[i] = min(best[i], time.Since(start))
						}
					}
					b.ReportMetric(float64(best[0])/float64(best[1]), "of-bare")
					b.ReportMetric(float64(best[1]-best[0])/1e3, "µs-extra")
				})
			}
		}
	}
}

func prepare(b *testing.B, ctx context.Context, bucket *gcblob.Bucket, p []byte) {
	if err := bucket.WriteAll(ctx, "key", p, nil); err != nil {
		b.Fatal(err)
	}
}

// onlyReader and onlyWriter hide what else a reader or writer can do.
type (
	onlyReader struct{ io.Reader }
	onlyWriter struct{ io.Writer }
)
