package blob_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"testing"

	gcblob "gocloud.dev/blob"
)

// BenchmarkBucket measures writes and reads beside the bare bucket's, so that one
// run compares like with like.
func BenchmarkBucket(b *testing.B) {
	for _, store := range stores {
		for _, size := range []int{1 << 10, 64 << 20} {
			for _, kind := range []string{"bare", "encrypted"} {
				name := fmt.Sprintf("%s/%s/%s", store.name, byteCount(size), kind)
				open := func(b *testing.B) *gcblob.Bucket {
					bucket := store.open(b)
					if kind == "encrypted" {
						bucket = newBucket(b, bucket, nil).Bucket
					}
					return bucket
				}
				b.Run(name+"/write", func(b *testing.B) { benchmarkWrite(b, open(b), size) })
				b.Run(name+"/upload", func(b *testing.B) { benchmarkUpload(b, open(b), size) })
				b.Run(name+"/read", func(b *testing.B) { benchmarkRead(b, open(b), size) })
				b.Run(name+"/download", func(b *testing.B) { benchmarkDownload(b, open(b), size) })
			}
		}
	}
}

func byteCount(n int) string {
	if n >= 1<<20 {
		return fmt.Sprintf("%dMiB", n>>20)
	}
	return fmt.Sprintf("%dKiB", n>>10)
}

func benchmarkWrite(b *testing.B, bucket *gcblob.Bucket, size int) {
	p := content(size)
	b.SetBytes(int64(size))
	b.ReportAllocs()
	opts := &gcblob.WriterOptions{ContentType: "application/octet-stream"}
	for b.Loop() {
		w, err := bucket.NewWriter(context.Background(), "key", opts)
		if err != nil {
			b.Fatal(err)
		}
		for part := range slices.Chunk(p, 1<<20) {
			if _, err := w.Write(part); err != nil {
				b.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

func benchmarkUpload(b *testing.B, bucket *gcblob.Bucket, size int) {
	p := content(size)
	b.SetBytes(int64(size))
	b.ReportAllocs()
	opts := &gcblob.WriterOptions{ContentType: "application/octet-stream"}
	for b.Loop() {
		if err := bucket.Upload(context.Background(), "key", onlyReader{bytes.NewReader(p)}, opts); err != nil {
			b.Fatal(err)
		}
	}
}

func benchmarkRead(b *testing.B, bucket *gcblob.Bucket, size int) {
	if err := bucket.WriteAll(context.Background(), "key", content(size), nil); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(size))
	b.ReportAllocs()
	buf := make([]byte, 1<<20)
	for b.Loop() {
		r, err := bucket.NewReader(context.Background(), "key", nil)
		if err != nil {
			b.Fatal(err)
		}
		n, err := io.CopyBuffer(onlyWriter{io.Discard}, onlyReader{r}, buf)
		if err != nil || n != int64(size) {
			b.Fatal(n, err)
		}
		if err := r.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

func benchmarkDownload(b *testing.B, bucket *gcblob.Bucket, size int) {
	if err := bucket.WriteAll(context.Background(), "key", content(size), nil); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(size))
	b.ReportAllocs()
	for b.Loop() {
		if err := bucket.Download(context.Background(), "key", onlyWriter{io.Discard}, nil); err != nil {
			b.Fatal(err)
		}
	}
}

// onlyReader and onlyWriter hide what else a reader or writer can do.
type (
	onlyReader struct{ io.Reader }
	onlyWriter struct{ io.Writer }
)
