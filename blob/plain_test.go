package blob_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	gcblob "gocloud.dev/blob"
	"gocloud.dev/gcerrors"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/blob/internal/blobtest"
	"github.com/blobseal/blobseal/blob/jobs"
	"github.com/blobseal/blobseal/internal/testbed/ssetest"
	"github.com/blobseal/blobseal/sse"
)

var ctx = context.Background()

// TestErrorsOfAPlainBucket: a bad request has the same code as in a plain bucket.
func TestErrorsOfAPlainBucket(t *testing.T) {
	ctx := context.Background()
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	type request struct {
		name string
		do   func(b *gcblob.Bucket) error
	}
	read := func(ctx context.Context, key string, off, n int64) func(*gcblob.Bucket) error {
		return func(b *gcblob.Bucket) error {
			r, err := b.NewRangeReader(ctx, key, off, n, nil)
			if err != nil {
				return err
			}
			defer r.Close()
			_, err = r.Read(make([]byte, 100))
			return err
		}
	}
	write := func(ctx context.Context, key string, opts *gcblob.WriterOptions) func(*gcblob.Bucket) error {
		return func(b *gcblob.Bucket) error { return b.WriteAll(ctx, key, []byte("p"), opts) }
	}
	invalid := "\xff"
	require.False(t, utf8.ValidString(invalid))
	requests := []request{
		{"read what is not there", read(ctx, "none", 0, -1)},
		{"range of what is not there", read(ctx, "none", 20000, 5)},
		{"negative offset", read(ctx, "k", -1, 5)},
		{"offset at the end", read(ctx, "k", 11, 5)},
		{"offset beyond the end", read(ctx, "k", 12, -1)},
		{"offset far beyond the end", read(ctx, "k", 1<<62, 5)},
		{"nothing", read(ctx, "k", 3, 0)},
		{"read an invalid key", read(ctx, invalid, 0, -1)},
		{"read an empty key", read(ctx, "", 0, -1)},
		{"read with a cancelled ctx", read(cancelled, "none", 0, -1)},
		{"write an empty key", write(ctx, "", nil)},
		{"write an invalid key", write(ctx, invalid, nil)},
		{"write an empty key with a content type", write(ctx, "", &gcblob.WriterOptions{ContentType: "text/plain"})},
		{"write with a cancelled ctx", write(cancelled, "k2", nil)},
		{"write with an invalid content type", write(ctx, "k2", &gcblob.WriterOptions{ContentType: "a/b/c"})},
		{"write with invalid metadata", write(ctx, "k2", &gcblob.WriterOptions{Metadata: map[string]string{"": "x"}})},
		{"write what exists", write(ctx, "k", &gcblob.WriterOptions{IfNotExist: true})},
		{"write with a wrong MD5", write(ctx, "k2", &gcblob.WriterOptions{ContentMD5: make([]byte, 16)})},
		{"attributes of what is not there", func(b *gcblob.Bucket) error { _, err := b.Attributes(ctx, "none"); return err }},
		{"attributes of an invalid key", func(b *gcblob.Bucket) error { _, err := b.Attributes(ctx, invalid); return err }},
		{"delete what is not there", func(b *gcblob.Bucket) error { return b.Delete(ctx, "none") }},
		{"delete an invalid key", func(b *gcblob.Bucket) error { return b.Delete(ctx, invalid) }},
		{"copy what is not there", func(b *gcblob.Bucket) error { return b.Copy(ctx, "k2", "none", nil) }},
		{"attributes with a cancelled ctx", func(b *gcblob.Bucket) error { _, err := b.Attributes(cancelled, "k"); return err }},
		{"write a name of the store's own", write(ctx, "k.attrs", nil)},
		{"write outside", write(ctx, "../../k", nil)},
		{"copy outside", func(b *gcblob.Bucket) error { return b.Copy(ctx, "../../k", "k", nil) }},
		{"copy what is not there onto itself", func(b *gcblob.Bucket) error { return b.Copy(ctx, "none", "none", nil) }},
		{"copy from an invalid key", func(b *gcblob.Bucket) error { return b.Copy(ctx, "k2", invalid, nil) }},
		{"a page of an empty token", func(b *gcblob.Bucket) error { _, _, err := b.ListPage(ctx, nil, 10, nil); return err }},
		{"upload without a content type", func(b *gcblob.Bucket) error { return b.Upload(ctx, "k2", strings.NewReader("p"), nil) }},
		{"copy to an invalid key", func(b *gcblob.Bucket) error { return b.Copy(ctx, invalid, "k", nil) }},
		{"a page of no objects", func(b *gcblob.Bucket) error { _, _, err := b.ListPage(ctx, gcblob.FirstPageToken, 0, nil); return err }},
		{"sign", func(b *gcblob.Bucket) error { _, err := b.SignedURL(ctx, "k", nil); return err }},
	}
	for _, off := range []int64{0, 10, chunk, 1 << 52, math.MaxInt64} { // the largest object is of less than 1 << 52 bytes
		for _, n := range []int64{math.MinInt64, 0, 1, 1 << 52, math.MaxInt64} {
			requests = append(requests, request{fmt.Sprintf("range %d+%d", off, n), read(ctx, "k", off, n)})
		}
	}
	// Stores that do not look at ctx delete; whether we do is not left to chance.
	for i := range 10 {
		key := fmt.Sprint("delete me ", i)
		requests = append(requests, request{"write " + key, write(ctx, key, nil)},
			request{"delete with a cancelled ctx " + key, func(b *gcblob.Bucket) error { return b.Delete(cancelled, key) }})
	}
	for _, store := range blobtest.Stores {
		t.Run(store.Name, func(t *testing.T) {
			bare, encrypted := store.Open(t), blobtest.NewBucket(t, store.Open(t), nil).Bucket
			for _, b := range []*gcblob.Bucket{bare, encrypted} {
				require.NoError(t, b.WriteAll(ctx, "k", []byte("hello world"), nil))
			}
			for _, request := range requests {
				t.Run(request.name, func(t *testing.T) {
					want, got := request.do(bare), request.do(encrypted)
					require.Equal(t, gcerrors.Code(want), gcerrors.Code(got), "%v and %v", want, got)
					require.Equal(t, want == nil, got == nil)
				})
			}
			require.NoError(t, bare.Close())
			require.NoError(t, encrypted.Close())
			for _, request := range requests {
				if strings.HasPrefix(request.name, "sign") {
					continue
				}
				t.Run("closed/"+request.name, func(t *testing.T) {
					want, got := request.do(bare), request.do(encrypted)
					require.Equal(t, gcerrors.Code(want), gcerrors.Code(got), "%v and %v", want, got)
				})
			}
			require.Equal(t, gcerrors.FailedPrecondition, gcerrors.Code(encrypted.Close()))
		})
	}
}

// TestErrorsOfTheStore: an error of the store keeps its identity and its code, in every
// request.
func TestErrorsOfTheStore(t *testing.T) {
	ctx := context.Background()
	mem := blobtest.NewMem(t)
	codes := map[string]error{
		"not found":         func() error { _, err := mem.Attributes(ctx, "none"); return err }(),
		"invalid":           func() error { _, err := mem.NewRangeReader(ctx, "k", -1, 1, nil); return err }(),
		"unimplemented":     func() error { _, err := mem.SignedURL(ctx, "k", nil); return err }(),
		"cancelled":         context.Canceled,
		"deadline":          context.DeadlineExceeded,
		"unknown":           errBoom,
		"failed":            func() error { b := blobtest.NewFile(t); b.Close(); return b.Delete(ctx, "k") }(),
		"permission denied": nil,
	}
	delete(codes, "permission denied") // no bucket at hand gives it
	for name, fault := range codes {
		for _, when := range []string{"HEAD", "GET", "PUT", "LIST", "DELETE", "read", "write", "commit"} {
			t.Run(name+"/"+when, func(t *testing.T) {
				spy, inner := blobtest.NewSpy(t)
				b := blobtest.NewBucket(t, inner, nil)
				require.NoError(t, b.WriteAll(ctx, "k", blobtest.Content(3*chunk), nil))
				spy.Hook = func(_ context.Context, call string) error {
					if strings.HasPrefix(call, when) {
						return fault
					}
					return nil
				}
				failed := 0
				for _, do := range []func() error{
					func() error { _, err := b.Attributes(ctx, "k"); return err },
					func() error { _, err := b.ReadAll(ctx, "k"); return err },
					func() error { _, err := blobtest.ReadRange(b.Bucket, "k", chunk, 5); return err },
					func() error { return b.WriteAll(ctx, "k2", blobtest.Content(10), nil) },
					func() error { return b.Copy(ctx, "k2", "k", nil) },
					func() error { return b.Delete(ctx, "k3") },
					func() error { _, _, err := b.ListPage(ctx, gcblob.FirstPageToken, 10, nil); return err },
				} {
					if err := do(); errors.Is(err, fault) {
						failed++
						require.Equal(t, gcerrors.Code(fault), gcerrors.Code(err), "%v", err)
					}
				}
				require.NotZero(t, failed)
				reading, writing, _ := spy.State()
				require.Zero(t, reading)
				require.Zero(t, writing)
			})
		}
	}
}

// TestStoreThatEnds: a store that returns io.EOF because its own file ended too early does
// not end the caller's stream.
func TestStoreThatEnds(t *testing.T) {
	ctx := context.Background()
	spy, inner := blobtest.NewSpy(t)
	b := blobtest.NewBucket(t, inner, nil)
	require.NoError(t, b.WriteAll(ctx, "k", blobtest.Content(3*chunk), nil))
	spy.Hook = func(_ context.Context, call string) error {
		for _, request := range []string{"HEAD", "GET", "PUT", "LIST", "DELETE"} {
			if strings.HasPrefix(call, request) {
				return io.EOF
			}
		}
		return nil
	}
	_, attrsErr := b.Attributes(ctx, "k")
	_, readErr := b.ReadAll(ctx, "k")
	_, rangeErr := blobtest.ReadRange(b.Bucket, "k", chunk, 5)
	_, _, listErr := b.ListPage(ctx, gcblob.FirstPageToken, 10, nil)
	for _, err := range []error{
		attrsErr, readErr, rangeErr, listErr,
		b.WriteAll(ctx, "k2", nil, nil), b.Copy(ctx, "k2", "k", nil), b.Delete(ctx, "k"),
	} {
		require.Error(t, err)
		require.NotErrorIs(t, err, io.EOF)
	}
}

// TestMixedBucket: objects from before encryption are readable if the bucket allows them and
// refused if not; sizes are right in both.
func TestMixedBucket(t *testing.T) {
	ctx := context.Background()
	for _, store := range blobtest.Stores {
		t.Run(store.Name, func(t *testing.T) {
			inner := gcblob.NewBucket(&blobtest.Spy{Passing: blobtest.Passing{Bucket: store.Open(t)}})
			cipher := sse.NewManaged(blobtest.NewRing(t))
			mixed := blobtest.NewBucketWith(t, inner, cipher, &blob.Options{AllowPlain: true})
			strict := blobtest.NewBucketWith(t, inner, cipher, nil)
			sizes := map[string]int{"empty": 0, "tiny": 3, "small": 100, "sized": 1040, "large": 3*chunk + 5}
			for name, size := range sizes {
				packed := &gcblob.WriterOptions{ContentEncoding: "gzip"}
				require.NoError(t, inner.WriteAll(ctx, "plain/"+name, blobtest.Content(size), packed))
				require.NoError(t, mixed.WriteAll(ctx, "sealed/"+name, blobtest.Content(size), packed))
			}
			for name, size := range sizes {
				for _, folder := range []string{"plain/", "sealed/"} {
					key := folder + name
					require.Equal(t, blobtest.Content(size), blobtest.ReadAll(t, mixed.Bucket, key))
					attrs, err := mixed.Attributes(ctx, key)
					require.NoError(t, err)
					require.EqualValues(t, size, attrs.Size)
					require.Equal(t, "gzip", attrs.ContentEncoding)
					for _, off := range []int64{2, chunk + 3} {
						off = min(off, int64(size))
						got, err := blobtest.ReadRange(mixed.Bucket, key, off, 100000)
						require.NoError(t, err)
						require.Equal(t, blobtest.Content(size)[off:], got)
					}
				}
				for _, err := range []error{
					func() error { _, err := strict.ReadAll(ctx, "plain/"+name); return err }(),
					func() error { _, err := blobtest.ReadRange(strict.Bucket, "plain/"+name, 1, 1); return err }(),
					func() error { _, err := strict.Attributes(ctx, "plain/"+name); return err }(),
					strict.Copy(ctx, "copy", "plain/"+name, nil),
				} {
					require.ErrorIs(t, err, blob.ErrPlain)
					require.ErrorIs(t, err, sse.ErrFormat)
					require.Equal(t, gcerrors.FailedPrecondition, gcerrors.Code(err))
				}
			}
			listed := 0
			objects, errs := mixed.List(nil).All(ctx)
			for o := range objects {
				_, name, _ := strings.Cut(o.Key, "/")
				require.EqualValues(t, sizes[name], o.Size, o.Key)
				listed++
			}
			require.NoError(t, errs())
			require.Equal(t, 2*len(sizes), listed)

			// A copy of a plain object is encrypted: nothing else can be written.
			require.NoError(t, mixed.Copy(ctx, "copied", "plain/large", nil))
			require.Equal(t, blobtest.Content(sizes["large"]), blobtest.ReadAll(t, strict.Bucket, "copied"))
			require.NoError(t, mixed.Copy(ctx, "plain/large", "plain/large", nil))
			require.Equal(t, blobtest.Content(sizes["large"]), blobtest.ReadAll(t, strict.Bucket, "plain/large"))
			for _, key := range []string{"copied", "plain/large"} {
				attrs, err := strict.Attributes(ctx, key)
				require.NoError(t, err)
				require.Equal(t, "gzip", attrs.ContentEncoding)
				raw, err := inner.Attributes(ctx, key)
				require.NoError(t, err)
				require.Empty(t, raw.ContentEncoding)
			}

			// A key for an object that has none is a mistake.
			_, err := blobtest.With(t, mixed, blob.Request{Cipher: ssetest.NewCustomer(t, 1)}).NewReader(ctx, "plain/small", nil)
			require.ErrorIs(t, err, sse.ErrMode)
		})
	}
}

// TestUnpackedObject: a plain object that the store decompresses reads as from a plain
// bucket.
func TestUnpackedObject(t *testing.T) {
	ctx := context.Background()
	spy, inner := blobtest.NewSpy(t)
	spy.Unpack = true
	require.NoError(t, inner.WriteAll(ctx, "k", blobtest.Content(100), nil))
	b := blobtest.NewBucket(t, inner, &blob.Options{AllowPlain: true})
	require.Equal(t, blobtest.Content(100), blobtest.ReadAll(t, b.Bucket, "k"))
	got, err := blobtest.ReadRange(b.Bucket, "k", 5, 10)
	require.NoError(t, err)
	require.Equal(t, blobtest.Content(100)[5:15], got)
}

// TestMovedObject: a stored object that was moved to another key, or to a bucket of another
// name, does not open.
func TestMovedObject(t *testing.T) {
	ctx := context.Background()
	inner := blobtest.NewMem(t)
	cipher := sse.NewManaged(blobtest.NewRing(t))
	b := blobtest.NewBucketWith(t, inner, cipher, nil)
	require.NoError(t, b.WriteAll(ctx, "k", blobtest.Content(10), nil))
	require.NoError(t, inner.Copy(ctx, "k2", "k", nil))
	_, err := b.ReadAll(ctx, "k2")
	require.ErrorIs(t, err, sse.ErrKey)
	other, err := blob.NewBucket(inner, "other", cipher, nil)
	require.NoError(t, err)
	_, err = other.ReadAll(ctx, "k")
	require.ErrorIs(t, err, sse.ErrKey)
}

// TestSignedURLWithoutSigner: the bucket never returns the store's own URL, which would serve
// ciphertext.
func TestSignedURLWithoutSigner(t *testing.T) {
	_, inner := blobtest.NewSpy(t)
	url, err := blobtest.NewBucket(t, inner, nil).SignedURL(context.Background(), "k", nil)
	require.ErrorIs(t, err, blob.ErrNoSigner)
	require.Equal(t, gcerrors.Unimplemented, gcerrors.Code(err))
	require.Empty(t, url)
}

// TestMetadataComesFirst: on a store that publishes metadata a moment before content, a
// plain object that is being replaced is not called damaged.
func TestMetadataComesFirst(t *testing.T) {
	for name, do := range map[string]func(b *blob.Bucket) error{
		"read":       func(b *blob.Bucket) error { _, err := b.ReadAll(ctx, "k"); return err },
		"part":       func(b *blob.Bucket) error { _, err := blobtest.ReadRange(b.Bucket, "k", 3, 5); return err },
		"attributes": func(b *blob.Bucket) error { _, err := b.Attributes(ctx, "k"); return err },
		"copy":       func(b *blob.Bucket) error { return b.Copy(ctx, "k2", "k", nil) },
		"inventory": func(b *blob.Bucket) error {
			for e, err := range jobs.Inventory(ctx, b, nil) {
				return errors.Join(err, e.Err)
			}
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				spy, inner := blobtest.NewSpy(t)
				b := blobtest.NewBucket(t, inner, &blob.Options{AllowPlain: true})
				require.NoError(t, b.WriteAll(ctx, "k", blobtest.Content(100), nil))
				sealed, err := inner.Attributes(ctx, "k")
				require.NoError(t, err)
				p := blobtest.ReadAll(t, inner, "k")
				require.NoError(t, inner.WriteAll(ctx, "k", blobtest.Content(50), &gcblob.WriterOptions{Metadata: sealed.Metadata}))
				published := time.AfterFunc(5*time.Millisecond, func() {
					require.NoError(t, spy.Bucket.WriteAll(context.Background(), "k", p, &gcblob.WriterOptions{Metadata: sealed.Metadata}))
				})
				defer published.Stop()
				require.NoError(t, do(b))
			})
		})
	}
}

// TestRangeOfAnEmptyObject: a range of an empty stored object is empty, or plain, on
// stores that refuse every range of it, as three do with a raw 416.
func TestRangeOfAnEmptyObject(t *testing.T) {
	spy, inner := blobtest.NewSpy(t)
	mixed, strict := blobtest.NewBucket(t, inner, &blob.Options{AllowPlain: true}), blobtest.NewBucket(t, inner, nil)
	require.NoError(t, inner.WriteAll(ctx, "k", nil, nil))
	spy.Hook = func(_ context.Context, call string) error {
		if strings.HasPrefix(call, "GET k ") && call != "GET k 0 -1" {
			return errBoom
		}
		return nil
	}
	for _, part := range [][2]int64{{0, 5}, {3, 5}, {3, -1}, {40_000, 5}} {
		p, err := blobtest.ReadRange(mixed.Bucket, "k", part[0], part[1])
		require.NoError(t, err, part)
		require.Empty(t, p)
		_, err = blobtest.ReadRange(strict.Bucket, "k", part[0], part[1])
		require.ErrorIs(t, err, blob.ErrPlain, part)
		require.Equal(t, gcerrors.FailedPrecondition, gcerrors.Code(err))
	}
	require.NoError(t, inner.WriteAll(ctx, "k", []byte("x"), nil))
	_, err := blobtest.ReadRange(mixed.Bucket, "k", 0, 5)
	require.ErrorIs(t, err, errBoom, "an error of the store is no empty object")
}
