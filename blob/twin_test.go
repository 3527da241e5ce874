package blob_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	gcblob "gocloud.dev/blob"
	"gocloud.dev/gcerrors"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/blob/internal/blobtest"
)

// TestTwins runs random operations on a plain and an encrypted bucket. Both show the same,
// except what only the store knows. A mixed bucket, half of whose writes are plain, does too.
func TestTwins(t *testing.T) {
	for _, store := range blobtest.Stores {
		for _, mixed := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/mixed=%v", store.Name, mixed), func(t *testing.T) {
				seed := rand.Uint64()
				t.Logf("seed %d", seed)
				rng := rand.New(rand.NewPCG(seed, 0))
				sealed := blobtest.NewBucket(t, store.Open(t), &blob.Options{AllowPlain: mixed})
				testTwins(t, rng, store.Open(t), sealed, mixed)
			})
		}
	}
}

// twinKeys are few, so that operations meet on one key.
var twinKeys = []string{"a", "a/b", "a/c/d", "a-b", "b/", "ü/ñ", "..a", "x//y", "%41", " "}

// testTwins does random operations to a plain and to an encrypted bucket, and expects
// the same of both. It is long because each operation is a case of one switch.
func testTwins(t *testing.T, rng *rand.Rand, plain *gcblob.Bucket, sealed *blob.Bucket, mixed bool) {
	ctx := context.Background()
	pick := func(from ...string) string { return from[rng.IntN(len(from))] }
	size := func() int {
		return max(0, []int{0, 1, 16, 511, 512, 1024, chunk, 2 * chunk, 3 * chunk}[rng.IntN(9)]+rng.IntN(3)-1)
	}
	offset := func() int64 { return int64(size()) }
	for range 400 {
		key, other := pick(twinKeys...), pick(twinKeys...)
		var what string
		var do func(b *gcblob.Bucket) (seen any, err error)
		switch rng.IntN(7) {
		case 0, 1:
			p := blobtest.Content(size())
			if rng.IntN(2) == 0 {
				copy(p, "<html>")
			}
			opts := &gcblob.WriterOptions{
				CacheControl: pick("", "no-cache"), ContentDisposition: pick("", "inline"), ContentLanguage: pick("", "en"),
				ContentEncoding: pick("", "gzip"), ContentType: pick("", "", "text/PLAIN; x=y"), IfNotExist: rng.IntN(4) == 0,
				DisableContentTypeDetection: rng.IntN(4) == 0,
			}
			if rng.IntN(2) == 0 {
				opts.Metadata = map[string]string{"Owner": pick("me", "ü"), "x-y_z": ""}
			}
			asIs, step := mixed && rng.IntN(2) == 0, 1+rng.IntN(len(p)+1)
			what = fmt.Sprintf("write %d bytes to %q, %+v", len(p), key, *opts)
			do = func(b *gcblob.Bucket) (any, error) {
				if asIs && b == sealed.Bucket {
					b = sealed.Inner()
				}
				w, err := b.NewWriter(ctx, key, opts)
				if err != nil {
					return nil, err
				}
				for part := range slices.Chunk(p, step) {
					if _, err := w.Write(part); err != nil {
						w.Close()
						return nil, err
					}
				}
				return nil, w.Close()
			}
		case 2:
			off, n := offset(), int64(size())-2
			if rng.IntN(3) == 0 {
				off, n = 0, -1
			}
			what = fmt.Sprintf("read %d bytes of %q from %d", n, key, off)
			do = func(b *gcblob.Bucket) (any, error) {
				r, err := b.NewRangeReader(ctx, key, off, n, nil)
				if err != nil {
					return nil, err
				}
				defer r.Close()
				p, err := io.ReadAll(r)
				return []any{p, r.Size(), r.ContentType()}, err
			}
		case 3:
			what = fmt.Sprintf("attributes of %q", key)
			do = func(b *gcblob.Bucket) (any, error) {
				a, err := b.Attributes(ctx, key)
				if err != nil {
					return nil, err
				}
				return []any{a.CacheControl, a.ContentDisposition, a.ContentEncoding, a.ContentLanguage, a.ContentType, maps.Collect(maps.All(a.Metadata)), a.Size}, nil
			}
		case 4:
			what = fmt.Sprintf("copy %q to %q", key, other)
			do = func(b *gcblob.Bucket) (any, error) { return nil, b.Copy(ctx, other, key, nil) }
		case 5:
			what = fmt.Sprintf("delete %q", key)
			do = func(b *gcblob.Bucket) (any, error) { return nil, b.Delete(ctx, key) }
		case 6:
			opts := &gcblob.ListOptions{Prefix: pick("", "a", "a/", key), Delimiter: pick("", "/")}
			n := 1 + rng.IntN(4)
			what = fmt.Sprintf("list %+v in pages of %d", *opts, n)
			do = func(b *gcblob.Bucket) (any, error) {
				var seen []string
				for token := gcblob.FirstPageToken; len(token) > 0; {
					page, next, err := b.ListPage(ctx, token, n, opts)
					if err != nil {
						return nil, err
					}
					for _, o := range page {
						seen = append(seen, fmt.Sprint(o.Key, " ", o.Size, o.IsDir))
					}
					token = next
				}
				return strings.Join(seen, "\n"), nil
			}
		}
		want, wantErr := do(plain)
		got, gotErr := do(sealed.Bucket)
		require.Equal(t, gcerrors.Code(wantErr), gcerrors.Code(gotErr), "%s: %v and %v", what, wantErr, gotErr)
		require.Equal(t, wantErr == nil, gotErr == nil, what)
		require.Equal(t, want, got, what)
	}
	for _, key := range twinKeys {
		var want, got bytes.Buffer
		require.Equal(t, gcerrors.Code(plain.Download(ctx, key, &want, nil)), gcerrors.Code(sealed.Download(ctx, key, &got, nil)))
		require.True(t, bytes.Equal(want.Bytes(), got.Bytes()), key)
	}
}
