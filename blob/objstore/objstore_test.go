package objstore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
	thanos "github.com/thanos-io/objstore"
	"github.com/thanos-io/objstore/providers/filesystem"
	"gocloud.dev/gcerrors"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/blob/jobs"
	"github.com/blobseal/blobseal/blob/objstore"
	"github.com/blobseal/blobseal/blob/stored"
	"github.com/blobseal/blobseal/internal/testbed/ssetest"
	"github.com/blobseal/blobseal/keyring/keyringtest"
	"github.com/blobseal/blobseal/sse"
)

// ciphers returns a cipher of each mode.
func ciphers(t *testing.T) map[string]sse.Cipher {
	return map[string]sse.Cipher{
		"SSE-S3": sse.NewManaged(keyringtest.NewRing(t, nil)), "SSE-KMS": ssetest.NewKMS(t, "photos"), "SSE-C": ssetest.NewCustomer(t, 7),
	}
}

func newBucket(t *testing.T, inner thanos.Bucket, cipher sse.Cipher) *objstore.Bucket {
	b, err := objstore.NewBucket(inner, "b", cipher, nil)
	require.NoError(t, err)
	return b
}

// onFiles returns a bucket of objstore's file system provider.
func onFiles(t *testing.T) thanos.Bucket {
	b, err := filesystem.NewBucket(t.TempDir())
	require.NoError(t, err)
	return b
}

// TestAcceptance runs objstore's own test, in all modes, over two providers.
func TestAcceptance(t *testing.T) {
	for mode, cipher := range ciphers(t) {
		t.Run(mode, func(t *testing.T) {
			t.Run("memory", func(t *testing.T) {
				inner := thanos.NewInMemBucket()
				thanos.AcceptanceTest(t, newBucket(t, inner, cipher))
				for name, stored := range inner.Objects() {
					require.True(t, sse.IsEnvelope(stored), name)
					require.NotContains(t, string(stored), "@test-data")
				}
			})
			if mode == "SSE-S3" { // each run uploads 200 MiB
				t.Run("files", func(t *testing.T) { thanos.AcceptanceTest(t, newBucket(t, onFiles(t), cipher)) })
			}
		})
	}
}

// TestLayout: package blob reads what this package writes, and the reverse. Sizes are
// told before the upload.
func TestLayout(t *testing.T) {
	ctx := t.Context()
	for mode, cipher := range ciphers(t) {
		t.Run(mode, func(t *testing.T) {
			inner := &counter{Bucket: thanos.NewInMemBucket()}
			b := newBucket(t, inner, cipher)
			for _, size := range []int{0, 1, 100, 16383, 16384, 16385, 100_000} {
				p := bytes.Repeat([]byte("m"), size)
				name := fmt.Sprintf("%d/a", size)
				require.NoError(t, b.Upload(ctx, name, bytes.NewReader(p)))
				body, _ := sse.CiphertextSize(int64(size))
				require.EqualValues(t, blob.DefaultEnvelopeSize+body, inner.size.Load())
				got, err := b.Encrypted().ReadAll(ctx, name)
				require.NoError(t, err)
				require.True(t, bytes.Equal(p, got))

				name = fmt.Sprintf("%d/b", size)
				require.NoError(t, b.Encrypted().WriteAll(ctx, name, p, nil))
				require.EqualValues(t, blob.DefaultEnvelopeSize+body, inner.size.Load())
				inner.requests.Store(0)
				r, err := b.Get(ctx, name)
				require.NoError(t, err)
				require.NoError(t, iotest.TestReader(r, p))
				require.NoError(t, r.Close())
				require.EqualValues(t, 1, inner.requests.Load(), "a whole read of %d is one request", size)
				for _, c := range [][2]int64{{0, 1}, {0, -1}, {int64(size) / 2, 20}, {int64(size), -1}, {int64(size), 5}} {
					if size == 0 && c[0] == 0 && c[1] > 0 {
						continue
					}
					r, err := b.GetRange(ctx, name, c[0], c[1])
					require.NoError(t, err)
					n, err := thanos.TryToGetSize(r)
					require.NoError(t, err)
					got, err := io.ReadAll(r)
					require.NoError(t, err)
					require.EqualValues(t, len(got), n)
					end := int64(size)
					if c[1] >= 0 {
						end = min(end, c[0]+c[1])
					}
					require.True(t, bytes.Equal(p[c[0]:end], got))
					require.NoError(t, r.Close())
				}
				attrs, err := b.Attributes(ctx, name)
				require.NoError(t, err)
				require.EqualValues(t, size, attrs.Size)
				require.False(t, attrs.LastModified.IsZero())
			}
		})
	}
}

// counter counts requests, and remembers the size that the last upload announced.
type counter struct {
	thanos.Bucket
	requests, size atomic.Int64
}

func (c *counter) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	c.requests.Add(1)
	return c.Bucket.Get(ctx, name)
}

func (c *counter) GetRange(ctx context.Context, name string, off, length int64) (io.ReadCloser, error) {
	c.requests.Add(1)
	return c.Bucket.GetRange(ctx, name, off, length)
}

func (c *counter) Attributes(ctx context.Context, name string) (thanos.ObjectAttributes, error) {
	c.requests.Add(1)
	return c.Bucket.Attributes(ctx, name)
}

func (c *counter) Upload(ctx context.Context, name string, r io.Reader, opts ...thanos.ObjectUploadOption) error {
	size, err := thanos.TryToGetSize(r)
	if err != nil {
		size = -1
	}
	c.size.Store(size)
	return c.Bucket.Upload(ctx, name, r, opts...)
}

// TestRefusals: damage, moves, cuts and wrong keys are errors, and an upload whose
// source fails leaves nothing.
func TestRefusals(t *testing.T) {
	ctx := t.Context()
	inner := thanos.NewInMemBucket()
	b := newBucket(t, inner, sse.NewManaged(keyringtest.NewRing(t, nil)))
	require.NoError(t, b.Upload(ctx, "a", strings.NewReader(strings.Repeat("meow", 10_000))))
	whole := bytes.Clone(inner.Objects()["a"])
	read := func(name string) error {
		r, err := b.Get(ctx, name)
		if err != nil {
			return err
		}
		defer r.Close()
		_, err = io.ReadAll(r)
		return err
	}
	store := func(name string, p []byte) { require.NoError(t, inner.Upload(ctx, name, bytes.NewReader(p))) }
	t.Run("moved", func(t *testing.T) {
		store("moved", whole)
		require.ErrorIs(t, read("moved"), sse.ErrKey)
		require.True(t, b.IsAccessDeniedErr(read("moved")))
	})
	t.Run("cut", func(t *testing.T) {
		for _, n := range []int{len(whole) - 1, len(whole) - 16400, 1024, 1000, 10} {
			store("a", whole[:n])
			require.Error(t, read("a"), n)
		}
	})
	t.Run("changed", func(t *testing.T) {
		for _, i := range []int{0, 20, 1000, 1024, len(whole) - 1} {
			p := bytes.Clone(whole)
			p[i] ^= 1
			store("a", p)
			require.Error(t, read("a"), i)
		}
	})
	t.Run("plain", func(t *testing.T) {
		store("plain", []byte("meow"))
		require.ErrorIs(t, read("plain"), blob.ErrPlain)
		_, err := b.Attributes(ctx, "plain")
		require.ErrorIs(t, err, blob.ErrPlain)
		allows, err := objstore.NewBucket(inner, "b", sse.NewManaged(keyringtest.NewRing(t, nil)), &objstore.Options{AllowPlain: true})
		require.NoError(t, err)
		r, err := allows.Get(ctx, "plain")
		require.NoError(t, err)
		p, err := io.ReadAll(r)
		require.NoError(t, err)
		require.Equal(t, "meow", string(p))
	})
	t.Run("failed source", func(t *testing.T) {
		broken := errors.New("disk failed")
		err := b.Upload(ctx, "failed", io.MultiReader(strings.NewReader("meow"), iotest.ErrReader(broken)))
		require.ErrorIs(t, err, broken)
		ok, err := b.Exists(ctx, "failed")
		require.NoError(t, err)
		require.False(t, ok)
	})
	t.Run("names", func(t *testing.T) {
		for _, name := range []string{"", "/a", "a/", "a//b", "../a", "a/../b", ".", "..", "./a"} {
			err := b.Upload(ctx, name, strings.NewReader("meow"))
			require.Error(t, err, name)
			require.False(t, b.IsObjNotFoundErr(err))
			require.Error(t, b.Encrypted().WriteAll(ctx, name, nil, nil), name)
			require.Error(t, read(name), name)
		}
	})
	t.Run("arguments", func(t *testing.T) {
		_, err := objstore.NewBucket(nil, "b", sse.NewManaged(keyringtest.NewRing(t, nil)), nil)
		require.ErrorIs(t, err, sse.ErrInvalid)
		_, err = objstore.NewBucket(inner, "b", nil, nil)
		require.ErrorIs(t, err, sse.ErrInvalid)
		_, err = objstore.NewBucket(inner, "", sse.NewManaged(keyringtest.NewRing(t, nil)), nil)
		require.ErrorIs(t, err, sse.ErrInvalid)
		for _, c := range [][2]int64{{-1, 1}, {0, 0}, {0, -2}} {
			_, err := b.GetRange(ctx, "a", c[0], c[1])
			require.Error(t, err)
			require.False(t, b.IsObjNotFoundErr(err))
		}
	})
	t.Run("denied", func(t *testing.T) {
		require.False(t, b.IsAccessDeniedErr(nil))
		require.False(t, b.IsObjNotFoundErr(nil))
		require.True(t, b.IsObjNotFoundErr(fmt.Errorf("wrapped: %w", b.Delete(ctx, "nothing"))))
		require.True(t, b.IsObjNotFoundErr(read("nothing")))
	})
}

// TestJobs: inventory, check and rewrap run on an objstore bucket, over memory and
// over files.
func TestJobs(t *testing.T) {
	for name, inner := range map[string]thanos.Bucket{"memory": thanos.NewInMemBucket(), "files": onFiles(t)} {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			ring := keyringtest.NewRing(t, nil)
			b := newBucket(t, inner, sse.NewManaged(ring))
			contents := map[string]string{"a": "", "a.txt": "meow", "a/b": strings.Repeat("m", 100_000), "a/c/d": "purr", "big": strings.Repeat("b", 3<<20)}
			for name, p := range contents {
				require.NoError(t, b.Upload(ctx, strings.ReplaceAll(name, "a/", "dir/"), strings.NewReader(p)))
			}
			old := ring.Versions()[0].ID
			_, err := ring.Rotate(ctx)
			require.NoError(t, err)
			report, err := jobs.Rewrap(ctx, b.Encrypted(), nil)
			require.NoError(t, err)
			require.EqualValues(t, len(contents), report.Done)
			var keys []string
			for entry, err := range jobs.Inventory(ctx, b.Encrypted(), nil) {
				require.NoError(t, err)
				require.NoError(t, entry.Err)
				require.Equal(t, stored.KindEncrypted, entry.Kind)
				require.NotEqual(t, old, entry.Seal.KeyID)
				keys = append(keys, entry.Key)
			}
			require.Equal(t, []string{"a", "a.txt", "big", "dir/b", "dir/c/d"}, keys)
			_, err = jobs.Retire(ctx, ring, old, nil, b.Encrypted())
			require.NoError(t, err)
			for name, p := range contents {
				r, err := b.Get(ctx, strings.ReplaceAll(name, "a/", "dir/"))
				require.NoError(t, err)
				got, err := io.ReadAll(r)
				require.NoError(t, err)
				require.True(t, p == string(got), name)
				require.NoError(t, r.Close())
			}
			require.NoError(t, jobs.ShredObject(ctx, b.Encrypted(), "dir/b", io.Discard))
			bad := 0
			for finding, err := range jobs.Check(ctx, b.Encrypted(), nil) {
				require.NoError(t, err)
				if finding.Err != nil {
					bad++
				}
			}
			require.Zero(t, bad)
		})
	}
}

// TestDriver: what objstore cannot do is refused, and a file system's directories are
// no objects.
func TestDriver(t *testing.T) {
	ctx := t.Context()
	inner := onFiles(t)
	b := objstore.OpenBucket(inner)
	defer b.Close()
	require.NoError(t, b.WriteAll(ctx, "dir/a", []byte("meow"), nil))
	var as thanos.Bucket
	require.True(t, b.As(&as))
	require.Equal(t, inner, as)
	t.Run("directories", func(t *testing.T) {
		_, err := b.Attributes(ctx, "dir")
		require.Equal(t, gcerrors.NotFound, gcerrors.Code(err))
		_, err = b.ReadAll(ctx, "dir")
		require.Equal(t, gcerrors.NotFound, gcerrors.Code(err))
		require.Equal(t, gcerrors.NotFound, gcerrors.Code(b.Delete(ctx, "dir")))
		ok, err := b.Exists(ctx, "dir/a")
		require.NoError(t, err)
		require.True(t, ok)
	})
	t.Run("ranges", func(t *testing.T) {
		_, err := b.NewRangeReader(ctx, "dir/a", 5, 1, nil)
		require.Equal(t, gcerrors.InvalidArgument, gcerrors.Code(err))
		r, err := b.NewRangeReader(ctx, "dir/a", 1, 100, nil)
		require.NoError(t, err)
		p, err := io.ReadAll(r)
		require.NoError(t, err)
		require.Equal(t, "eow", string(p))
		require.EqualValues(t, 4, r.Size())
		require.NoError(t, r.Close())
	})
	t.Run("copies", func(t *testing.T) {
		large := bytes.Repeat([]byte("m"), 3<<20)
		require.NoError(t, b.WriteAll(ctx, "large", large, nil))
		require.NoError(t, b.Copy(ctx, "dir/copy", "large", nil))
		p, err := b.ReadAll(ctx, "dir/copy")
		require.NoError(t, err)
		require.True(t, bytes.Equal(large, p))
		require.Equal(t, gcerrors.NotFound, gcerrors.Code(b.Copy(ctx, "x", "nothing", nil)))
	})
	t.Run("unsupported", func(t *testing.T) {
		_, err := b.SignedURL(ctx, "dir/a", nil)
		require.Equal(t, gcerrors.Unimplemented, gcerrors.Code(err))
		for _, opts := range unsupported {
			require.Equal(t, gcerrors.Unimplemented, gcerrors.Code(b.WriteAll(ctx, "x", nil, opts)))
		}
	})
	t.Run("canceled", func(t *testing.T) {
		dir := t.TempDir()
		t.Setenv("TMPDIR", dir)
		for _, size := range []int{10, 3 << 20} {
			ctx, cancel := context.WithCancel(ctx)
			w, err := b.NewWriter(ctx, "canceled", nil)
			require.NoError(t, err)
			_, err = w.Write(make([]byte, size))
			require.NoError(t, err)
			cancel()
			require.ErrorIs(t, w.Close(), context.Canceled)
			ok, err := inner.Exists(t.Context(), "canceled")
			require.NoError(t, err)
			require.False(t, ok)
		}
		left, err := os.ReadDir(dir)
		require.NoError(t, err)
		require.Empty(t, left)
	})
}
