package blob_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	gcblob "gocloud.dev/blob"
	"gocloud.dev/gcerrors"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/blob/internal/blobtest"
	"github.com/blobseal/blobseal/blob/jobs"
	"github.com/blobseal/blobseal/blob/stored"
	"github.com/blobseal/blobseal/sse"
)

// TestReplacedBetweenLooks: an operation that looks at an object twice and meets two
// versions reports one of them, and calls neither damaged.
func TestReplacedBetweenLooks(t *testing.T) {
	ctx := context.Background()
	const was, is = 5000, 7000 // bytes
	for _, test := range []struct {
		name, before string // the second look
		size         func(b *blob.Bucket) (int64, error)
	}{
		{"attributes", "GET k", func(b *blob.Bucket) (int64, error) {
			attrs, err := b.Attributes(ctx, "k")
			return attrs.Size, err
		}},
		{"list", "GET k", func(b *blob.Bucket) (int64, error) {
			page, _, err := b.ListPage(ctx, gcblob.FirstPageToken, 10, nil)
			return page[0].Size, err
		}},
		{"inventory", "HEAD k", func(b *blob.Bucket) (int64, error) {
			for e, err := range jobs.Inventory(ctx, b, nil) {
				return e.Size, errors.Join(err, e.Err)
			}
			return 0, nil
		}},
		{"check", "HEAD k", func(b *blob.Bucket) (int64, error) {
			for f, err := range jobs.Check(ctx, b, nil) {
				return f.Size, errors.Join(err, f.Err)
			}
			return 0, nil
		}},
	} {
		for _, sealed := range []bool{false, true} { // before
			t.Run(fmt.Sprintf("%s/sealed=%v", test.name, sealed), func(t *testing.T) {
				spy, inner := blobtest.NewSpy(t)
				b := blobtest.NewBucket(t, inner, &blob.Options{AllowPlain: true})
				old, renew := inner, b.Bucket
				if sealed {
					old, renew = renew, old
				}
				require.NoError(t, old.WriteAll(ctx, "k", blobtest.Content(was), nil))
				if sealed { // without the hint, to be looked at
					require.NoError(t, inner.WriteAll(ctx, "k", blobtest.ReadAll(t, inner, "k"), nil))
				}
				spy.Hook = func(_ context.Context, call string) error {
					if !strings.HasPrefix(call, test.before) {
						return nil
					}
					spy.Hook = nil
					return renew.WriteAll(ctx, "k", blobtest.Content(is), nil)
				}
				size, err := test.size(b)
				require.NoError(t, err)
				require.Contains(t, []int64{was, is}, size)
			})
		}
	}
}

// TestListOfArchived: an archived object, which cannot be read now, is listed with the size
// that its metadata tells, and does not hide other objects.
func TestListOfArchived(t *testing.T) {
	ctx := context.Background()
	spy, inner := blobtest.NewSpy(t)
	b := blobtest.NewBucket(t, inner, &blob.Options{AllowPlain: true})
	for key, write := range map[string]*gcblob.Bucket{"plain": inner, "sealed": b.Bucket} {
		require.NoError(t, write.WriteAll(ctx, key, blobtest.Content(2*chunk), nil))
		require.NoError(t, write.WriteAll(ctx, "archived "+key, blobtest.Content(2*chunk), nil))
	}
	spy.Hook = func(_ context.Context, call string) error {
		if strings.HasPrefix(call, "GET archived") {
			return errBoom
		}
		return nil
	}
	page, _, err := b.ListPage(ctx, gcblob.FirstPageToken, 10, nil)
	require.NoError(t, err)
	require.Len(t, page, 4)
	for _, o := range page {
		require.EqualValues(t, 2*chunk, o.Size, o.Key)
	}
	spy.Hook = func(_ context.Context, call string) error {
		if strings.HasSuffix(call, "archived sealed") || strings.HasPrefix(call, "GET archived") {
			return errBoom
		}
		return nil
	}
	_, _, err = b.ListPage(ctx, gcblob.FirstPageToken, 10, nil)
	require.ErrorIs(t, err, errBoom, "nothing tells its size")
}

// TestCancelList: a listing returns ctx's own error, whose code gocloud knows, and not the
// cause, whose code it does not.
func TestCancelList(t *testing.T) {
	spy, inner := blobtest.NewSpy(t)
	require.NoError(t, inner.WriteAll(context.Background(), "k", blobtest.Content(100), nil))
	b := blobtest.NewBucket(t, inner, &blob.Options{AllowPlain: true})
	ctx, cancel := context.WithCancelCause(context.Background())
	spy.Hook = func(ctx context.Context, call string) error {
		if strings.HasPrefix(call, "GET") {
			cancel(errBoom)
		}
		return ctx.Err()
	}
	_, _, err := b.ListPage(ctx, gcblob.FirstPageToken, 10, nil)
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, gcerrors.Canceled, gcerrors.Code(err))
}

// TestWithoutHint: an object that lost its metadata, as in a copy tool, reads the same, with
// one more request.
func TestWithoutHint(t *testing.T) {
	ctx := context.Background()
	inner := blobtest.NewMem(t)
	b := blobtest.NewBucket(t, inner, nil)
	for _, size := range []int{0, 100, 2 * chunk} {
		key := fmt.Sprint(size)
		require.NoError(t, b.WriteAll(ctx, key, blobtest.Content(size), nil))
		require.NoError(t, inner.WriteAll(ctx, key, blobtest.ReadAll(t, inner, key), nil))
		attrs, err := b.Attributes(ctx, key)
		require.NoError(t, err)
		require.EqualValues(t, size, attrs.Size)
		require.Equal(t, blobtest.Content(size), blobtest.ReadAll(t, b.Bucket, key))
	}
	// Nor does a hint that lies do harm.
	require.NoError(t, inner.WriteAll(ctx, "100", blobtest.ReadAll(t, inner, "100"), &gcblob.WriterOptions{
		Metadata: map[string]string{"blobseal-mode": "SSE-C", "blobseal-envelope-size": "7777777"},
	}))
	attrs, err := b.Attributes(ctx, "100")
	require.NoError(t, err)
	require.EqualValues(t, 100, attrs.Size)
	var hint stored.Hint
	require.True(t, attrs.As(&hint))
	require.Equal(t, sse.ModeManaged, hint.Mode, "as the envelope says")
	require.Equal(t, blobtest.Content(100), blobtest.ReadAll(t, b.Bucket, "100"))
}

// TestListOfWhatWasSealedMeanwhile: a list computes a size from two numbers of one version.
func TestListOfWhatWasSealedMeanwhile(t *testing.T) {
	spy, inner := blobtest.NewSpy(t)
	b := blobtest.NewBucket(t, inner, &blob.Options{AllowPlain: true})
	require.NoError(t, inner.WriteAll(ctx, "k", blobtest.Content(5000), nil))
	spy.Hook = func(_ context.Context, call string) error {
		if call != "read k" {
			return nil
		}
		spy.Hook = nil
		require.NoError(t, b.WriteAll(ctx, "k", blobtest.Content(7000), nil))
		return errBoom
	}
	page, _, err := b.ListPage(ctx, gcblob.FirstPageToken, 10, nil)
	require.NoError(t, err)
	require.EqualValues(t, 7000, page[0].Size)
}

// TestAttributesOfAStaleSize: attributes and content that both report the size of the
// version before do not make the object look truncated.
func TestAttributesOfAStaleSize(t *testing.T) {
	spy, inner := blobtest.NewSpy(t)
	b := blobtest.NewBucket(t, inner, &blob.Options{AllowPlain: true})
	require.NoError(t, b.WriteAll(ctx, "k", blobtest.Content(100), nil))
	sealed := blobtest.ReadAll(t, inner, "k")
	require.NoError(t, inner.WriteAll(ctx, "k", blobtest.Content(1), nil))
	looks := 0
	spy.Hook = func(_ context.Context, call string) error {
		if strings.HasPrefix(call, "GET k") {
			if looks++; looks == 1 {
				return spy.Bucket.WriteAll(ctx, "k", sealed, nil)
			}
		}
		return nil
	}
	spy.Stale = func() int64 {
		if looks == 1 {
			return 1
		}
		return 0
	}
	attrs, err := b.Attributes(ctx, "k")
	require.NoError(t, err)
	require.EqualValues(t, 100, attrs.Size)
}

// TestListOfAnotherEnvelopeSize: a list reports no size by arithmetic if objects may
// have envelopes of another size.
func TestListOfAnotherEnvelopeSize(t *testing.T) {
	inner, cipher := blobtest.NewMem(t), sse.NewManaged(blobtest.NewRing(t))
	require.NoError(t, blobtest.NewBucketWith(t, inner, cipher, nil).WriteAll(ctx, "k", blobtest.Content(5000), nil))
	for look, want := range map[bool]int64{false: -1, true: 5000} {
		b := blobtest.NewBucketWith(t, inner, cipher, &blob.Options{EnvelopeSize: 2048, LookWhenListing: look})
		o, err := b.List(nil).Next(ctx)
		require.NoError(t, err)
		require.Equal(t, want, o.Size, "look %v", look)
	}
}
