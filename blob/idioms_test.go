package blob_test

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	gcblob "gocloud.dev/blob"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/blob/internal/blobtest"
	"github.com/blobseal/blobseal/internal/testbed/httpget"
)

// idioms are the ways in which Go programs read an object that they take for whole.
// Each returns what it read and whether it noticed an error.
var idioms = []struct {
	name string
	read func(b *gcblob.Bucket) ([]byte, error)
}{
	{"ReadAll", withReader(func(r *gcblob.Reader, dst *bytes.Buffer) error {
		p, err := io.ReadAll(r)
		dst.Write(p)
		return err
	})},
	{"Copy", withReader(func(r *gcblob.Reader, dst *bytes.Buffer) error {
		_, err := io.Copy(dst, r)
		return err
	})},
	{"Copy of reads", withReader(func(r *gcblob.Reader, dst *bytes.Buffer) error {
		_, err := io.Copy(dst, struct{ io.Reader }{r})
		return err
	})},
	{"CopyN", withReader(func(r *gcblob.Reader, dst *bytes.Buffer) error {
		_, err := io.CopyN(dst, r, r.Size())
		return err
	})},
	{"LimitReader", withReader(func(r *gcblob.Reader, dst *bytes.Buffer) error {
		_, err := io.Copy(dst, io.LimitReader(r, r.Size()))
		return noticed(err, dst.Len(), r.Size())
	})},
	{"ReadFull", withReader(func(r *gcblob.Reader, dst *bytes.Buffer) error {
		p := make([]byte, r.Size())
		n, err := io.ReadFull(r, p)
		dst.Write(p[:n])
		return err
	})},
	{"ReadFull in pieces", withReader(func(r *gcblob.Reader, dst *bytes.Buffer) error {
		for left := r.Size(); left > 0; {
			p := make([]byte, min(left, 1000))
			n, err := io.ReadFull(r, p)
			dst.Write(p[:n])
			if left -= int64(n); err != nil {
				return err
			}
		}
		return nil
	})},
	{"Copy with a Content-Length", func(b *gcblob.Bucket) ([]byte, error) {
		return httpget.Get(func(w http.ResponseWriter, _ *http.Request) {
			r, err := b.NewReader(ctx, "k", nil)
			if err != nil {
				panic(http.ErrAbortHandler)
			}
			defer r.Close()
			w.Header().Set("Content-Length", fmt.Sprint(r.Size()))
			if _, err := io.Copy(w, r); err != nil {
				panic(http.ErrAbortHandler)
			}
		}, "")
	}},
	{"ServeContent", func(b *gcblob.Bucket) ([]byte, error) { return httpget.Get(serveContent(b), "") }},
	{"ServeContent of the last range", func(b *gcblob.Bucket) ([]byte, error) {
		return httpget.Get(serveContent(b), "bytes=0-")
	}},
	{"Download", func(b *gcblob.Bucket) ([]byte, error) {
		var dst bytes.Buffer
		err := b.Download(ctx, "k", &dst, nil)
		return dst.Bytes(), err
	}},
	{"fs.ReadFile", func(b *gcblob.Bucket) ([]byte, error) { return fs.ReadFile(b, "k") }},
	{"range from the start", func(b *gcblob.Bucket) ([]byte, error) {
		a, err := b.Attributes(ctx, "k")
		if err != nil {
			return nil, err
		}
		r, err := b.NewRangeReader(ctx, "k", 0, a.Size, nil)
		if err != nil {
			return nil, err
		}
		defer r.Close()
		p := make([]byte, a.Size)
		n, err := io.ReadFull(r, p)
		return p[:n], err
	}},
}

func withReader(read func(r *gcblob.Reader, dst *bytes.Buffer) error) func(*gcblob.Bucket) ([]byte, error) {
	return func(b *gcblob.Bucket) ([]byte, error) {
		r, err := b.NewReader(ctx, "k", nil)
		if err != nil {
			return nil, err
		}
		defer r.Close()
		var dst bytes.Buffer
		err = read(r, &dst)
		return dst.Bytes(), err
	}
}

// noticed is the check that a careful user of LimitReader adds.
func noticed(err error, n int, want int64) error {
	if err == nil && int64(n) != want {
		return io.ErrUnexpectedEOF
	}
	return err
}

func serveContent(b *gcblob.Bucket) http.HandlerFunc {
	return func(w http.ResponseWriter, req *http.Request) {
		r, err := b.NewReader(req.Context(), "k", nil)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		defer r.Close()
		http.ServeContent(w, req, "k.bin", time.Time{}, r)
	}
}

// TestIdiomsNoticeTruncation: no way to read an object takes a truncated one for
// whole, wherever it was cut, and each reads a whole one.
func TestIdiomsNoticeTruncation(t *testing.T) {
	inner := blobtest.NewMem(t)
	b := blobtest.NewBucket(t, inner, nil)
	for _, size := range []int{0, 1, chunk - 1, chunk, chunk + 1, 3 * chunk, 3*chunk + 5} {
		want := blobtest.Content(size)
		require.NoError(t, b.WriteAll(ctx, "k", want, nil))
		whole := blobtest.ReadAll(t, inner, "k")
		body := len(whole) - blob.DefaultEnvelopeSize
		for _, cut := range []int{0, 1, 15, 16, 17, chunk, sealedChunk - 1, sealedChunk, sealedChunk + 16, 2 * sealedChunk} {
			if cut > body {
				continue
			}
			replaceStored(t, inner, "k", whole[:len(whole)-cut])
			for _, idiom := range idioms {
				t.Run(fmt.Sprintf("%d bytes without %d/%s", size, cut, idiom.name), func(t *testing.T) {
					got, err := idiom.read(b.Bucket)
					if cut == 0 {
						if size == 0 && idiom.name == "ServeContent of the last range" {
							return // 416
						}
						require.NoError(t, err)
						require.True(t, bytes.Equal(want, got))
						return
					}
					require.Error(t, err)
					require.True(t, bytes.HasPrefix(want, got), "wrong bytes")
				})
			}
		}
		replaceStored(t, inner, "k", whole)
	}
}
