package blob_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	gcblob "gocloud.dev/blob"
	"gocloud.dev/gcerrors"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/blob/internal/blobtest"
	"github.com/blobseal/blobseal/blob/stored"
	"github.com/blobseal/blobseal/internal/testbed/ssetest"
	"github.com/blobseal/blobseal/sse"
)

// compositeSizes are sizes of parts: empty objects, small ones, an empty last part, and
// more than a read takes into memory.
var compositeSizes = [][]int{
	{0}, {1}, {chunk}, {5, 7}, {chunk, 0}, {chunk - 1, 1, 3*chunk + 5}, {10 * chunk, 100, 2 * chunk, 0},
}

// TestComposite: an object that was uploaded in parts reads as any other does, in each mode
// and from each store: as a whole, in ranges, its attributes and in lists.
func TestComposite(t *testing.T) {
	for _, mode := range blobtest.Modes {
		for _, store := range blobtest.Stores {
			t.Run(mode.Name+"/"+store.Name, func(t *testing.T) {
				inner, cipher := store.Open(t), mode.Cipher(t)
				b := blobtest.NewBucketWith(t, inner, cipher, &blob.Options{Policy: mode.Policy})
				for _, sizes := range compositeSizes {
					key := fmt.Sprint(sizes)
					want := blobtest.PutComposite(t, inner, key, cipher, sizes...)
					checkComposite(t, b, key, want)
					attrs, err := b.Attributes(ctx, key)
					require.NoError(t, err)
					require.EqualValues(t, len(want), attrs.Size)
					require.Equal(t, "image/jpeg", attrs.ContentType)
					require.Equal(t, map[string]string{"owner": "me"}, attrs.Metadata)
					var hint stored.Hint
					require.True(t, attrs.As(&hint))
					require.True(t, hint.Composite)
					require.Equal(t, mode.Name, map[sse.Mode]string{sse.ModeManaged: "managed", sse.ModeKMS: "kms", sse.ModeCustomer: "customer"}[hint.Mode])
					explained, err := b.ExplainRead(ctx, key)
					require.NoError(t, err)
					require.NoError(t, explained.Err)
					require.Equal(t, stored.KindEncrypted, explained.Kind)

					// Without its metadata, too.
					require.NoError(t, inner.WriteAll(ctx, key, blobtest.ReadAll(t, inner, key), nil))
					bare, err := b.Attributes(ctx, key)
					require.NoError(t, err)
					require.EqualValues(t, len(want), bare.Size)
					var bareHint stored.Hint
					require.True(t, bare.As(&bareHint))
					require.Equal(t, hint, bareHint)
				}
				objects := b.List(nil)
				for {
					o, err := objects.Next(ctx)
					if err == io.EOF {
						break
					}
					require.NoError(t, err)
					attrs, err := b.Attributes(ctx, o.Key)
					require.NoError(t, err)
					require.Equal(t, attrs.Size, o.Size, o.Key)
				}
			})
		}
	}
}

// checkComposite reads an object as a whole and in ranges around the borders of chunks.
func checkComposite(t *testing.T, b *blob.Bucket, key string, want []byte) {
	t.Helper()
	size := int64(len(want))
	require.True(t, bytes.Equal(want, blobtest.ReadAll(t, b.Bucket, key)), key)
	var dst bytes.Buffer
	require.NoError(t, b.Download(ctx, key, &dst, nil))
	require.True(t, bytes.Equal(want, dst.Bytes()), key)
	for _, off := range []int64{0, 5, chunk - 1, chunk, 10*chunk + 50, size - 1, size, 1 << 40} {
		for _, n := range []int64{-1, 0, 7, chunk, 9 * chunk} {
			if off < 0 {
				continue
			}
			r, err := b.NewRangeReader(ctx, key, off, n, nil)
			require.NoError(t, err, "%s: %d+%d", key, off, n)
			require.Equal(t, size, r.Size())
			var env *sse.Envelope
			require.True(t, r.As(&env))
			got, err := io.ReadAll(r)
			require.NoError(t, err)
			require.NoError(t, r.Close())
			from := min(off, size)
			to := size
			if n >= 0 && n < size-from {
				to = from + n
			}
			require.True(t, bytes.Equal(want[from:to], got), "%s: %d+%d", key, off, n)
		}
	}
}

// TestCompositeRequests lists the requests that reads of composite objects make. No response
// is held while another is awaited.
func TestCompositeRequests(t *testing.T) {
	const small, large = "small", "large"
	get := func(key string, off, n int64) string { return fmt.Sprintf("GET %s %d %d", key, off, n) }
	sizes := map[string][]int{small: {chunk, 5}, large: {20 * chunk, 100}}
	end := int64(68 + 20*sealedChunk + 16 + 68 + 100 + 16) // of the parts of the large object
	var stored int64                                       // its size
	read := func(key string, off, n int64) func(*gcblob.Bucket) error {
		return func(b *gcblob.Bucket) error { _, err := blobtest.ReadRange(b, key, off, n); return err }
	}
	const envelope = blob.DefaultEnvelopeSize
	tail := func() string { return get(large, stored-64<<10, 64<<10) }
	for _, test := range []struct {
		name string
		do   func(*gcblob.Bucket) error
		want func() []string
	}{
		{"small", read(small, 0, -1), func() []string { return []string{get(small, 0, -1)} }},
		{"whole", read(large, 0, -1), func() []string { return []string{get(large, 0, -1), get(large, 0, end), tail()} }},
		{"download", func(b *gcblob.Bucket) error { return b.Download(ctx, large, io.Discard, nil) },
			func() []string { return []string{get(large, 0, -1), get(large, 0, end), tail()} }},
		{"start", read(large, 5, 5), func() []string {
			return []string{get(large, 0, envelope+sealedChunk), tail()}
		}},
		{"long range", read(large, chunk, 10*chunk), func() []string {
			return []string{get(large, 0, envelope), tail(), get(large, 68+sealedChunk, 10*sealedChunk+16+1)}
		}},
		{"end", read(large, 20*chunk+5, -1), func() []string { return []string{get(large, 0, envelope), tail()} }},
		{"attributes", func(b *gcblob.Bucket) error { _, err := b.Attributes(ctx, large); return err },
			func() []string { return []string{"HEAD large", get(large, 0, 64), tail()} }},
	} {
		t.Run(test.name, func(t *testing.T) {
			spy, inner := blobtest.NewSpy(t)
			cipher := ssetest.NewKMS(t, "key")
			b := blobtest.NewBucketWith(t, inner, cipher, nil)
			for key, parts := range sizes {
				blobtest.PutComposite(t, inner, key, cipher, parts...)
			}
			attrs, err := inner.Attributes(ctx, large)
			require.NoError(t, err)
			stored = attrs.Size
			spy.Take()
			if test.name != "attributes" { // which asks for both ends at once, and holds neither
				spy.Hook = func(_ context.Context, call string) error {
					if reading, _, _ := spy.State(); reading > 0 && !strings.HasPrefix(call, "read") {
						return errors.New("a response is held")
					}
					return nil
				}
			}
			require.NoError(t, test.do(b.Bucket))
			want := test.want()
			slices.Sort(want)
			require.Equal(t, want, spy.Take())
			reading, writing, _ := spy.State()
			require.Zero(t, reading)
			require.Zero(t, writing)
		})
	}
}

// TestCompositeListLooks: a list looks only at objects that were uploaded in parts.
func TestCompositeListLooks(t *testing.T) {
	spy, inner := blobtest.NewSpy(t)
	cipher := sse.NewManaged(blobtest.NewRing(t))
	b := blobtest.NewBucketWith(t, inner, cipher, nil)
	for n := range 50 {
		require.NoError(t, b.WriteAll(ctx, fmt.Sprintf("whole/%02d", n), blobtest.Content(n*1000), nil))
	}
	want := blobtest.PutComposite(t, inner, "parts", cipher, 3*chunk, chunk/2)
	spy.Take()
	page, _, err := b.ListPage(ctx, gcblob.FirstPageToken, 100, nil)
	require.NoError(t, err)
	require.Len(t, page, 51)
	require.EqualValues(t, len(want), page[0].Size)
	for n, o := range page[1:] {
		require.EqualValues(t, n*1000, o.Size)
	}
	require.Len(t, spy.Take(), 3, "the list, and the object's head and trailer")

	// An archived one has no size, and does not hide the others.
	spy.Hook = func(_ context.Context, call string) error {
		if strings.HasPrefix(call, "GET parts") {
			return errBoom
		}
		return nil
	}
	page, _, err = b.ListPage(ctx, gcblob.FirstPageToken, 100, nil)
	require.NoError(t, err)
	require.EqualValues(t, -1, page[0].Size)
}

// TestCompositeCopy: a copy of a composite object, to another mode, another name or onto
// itself, keeps its parts, and its hint says under which key it is.
func TestCompositeCopy(t *testing.T) {
	for _, from := range blobtest.Modes {
		for _, to := range blobtest.Modes {
			for _, dst := range []string{"dir/copy", "k"} {
				t.Run(fmt.Sprintf("%s to %s at %s", from.Name, to.Name, dst), func(t *testing.T) {
					inner := blobtest.NewFile(t)
					source, target := from.Cipher(t), to.Cipher(t)
					b := blobtest.NewBucket(t, inner, &blob.Options{Policy: blob.Policy{AllowCustomerKeys: true}})
					want := blobtest.PutComposite(t, inner, "k", source, 11*chunk, 77)
					before := blobtest.ReadAll(t, inner, "k")
					reads := blobtest.With(t, b, blob.Request{Cipher: target})
					require.NoError(t, reads.CopyFrom(ctx, dst, blobtest.With(t, b, blob.Request{Cipher: source}), "k", nil))
					require.True(t, bytes.Equal(want, blobtest.ReadAll(t, reads.Bucket, dst)))
					after := blobtest.ReadAll(t, inner, dst)
					end := 68 + 11*sealedChunk + 16 + 68 + 77 + 16
					require.Equal(t, before[:end], after[:end])
					require.NotEqual(t, before, after)
					attrs, err := reads.Attributes(ctx, dst)
					require.NoError(t, err)
					require.Equal(t, map[string]string{"owner": "me"}, attrs.Metadata)
					raw, err := inner.Attributes(ctx, dst)
					require.NoError(t, err)
					hint, _ := stored.ParseHint(raw.Metadata)
					require.True(t, hint.Composite)
					require.Equal(t, target.Mode(), hint.Mode)
					_, err = stored.PlaintextSize(raw.Size, blob.DefaultEnvelopeSize)
					require.Error(t, err, "a list would take it for an object of another size")
				})
			}
		}
	}
}

// TestCompositeOfAnotherBucket: a copy of a composite object that was uploaded for another
// size of envelopes, or for none, has a size that tells lists to look at it.
func TestCompositeOfAnotherBucket(t *testing.T) {
	cipher := sse.NewManaged(blobtest.NewRing(t))
	for _, envelope := range []int{0, 1024, 2048, 5001} {
		for size := range 100 {
			inner := blobtest.NewMem(t)
			b := blobtest.NewBucketWith(t, inner, cipher, nil)
			u := blobtest.StartUpload(t, cipher, "k")
			u.EnvelopeSize = envelope
			u.Part(t, 1, blobtest.Content(333*size))
			want := u.Put(t, inner)
			require.NoError(t, b.Copy(ctx, "copy", "k", nil))
			o, err := b.List(nil).Next(ctx)
			require.NoError(t, err)
			require.Equal(t, "copy", o.Key)
			require.EqualValues(t, len(want), o.Size, "for envelopes of %d bytes", envelope)
			require.True(t, bytes.Equal(want, blobtest.ReadAll(t, b.Bucket, "copy")))
		}
	}
}

// TestCompositeRefusals: a composite object opens only under its key, in its name and in its
// context, and what only begins like one is damaged or of a later version, never plain.
func TestCompositeRefusals(t *testing.T) {
	inner := blobtest.NewMem(t)
	b := blobtest.NewBucket(t, inner, &blob.Options{AllowPlain: true, Policy: blob.Policy{AllowCustomerKeys: true}})
	blobtest.PutComposite(t, inner, "k", ssetest.NewCustomer(t, 1), 3*chunk, 9)
	require.NoError(t, inner.WriteAll(ctx, "moved", blobtest.ReadAll(t, inner, "k"), nil))
	right := blobtest.With(t, b, blob.Request{Cipher: ssetest.NewCustomer(t, 1)})
	require.Equal(t, 3*chunk+9, len(blobtest.ReadAll(t, right.Bucket, "k")))

	require.NoError(t, b.WriteAll(ctx, "envelope", blobtest.Content(3*chunk), nil))
	misplaced := blobtest.ReadAll(t, inner, "envelope")
	misplaced[8] = 2
	replaceStored(t, inner, "envelope", misplaced)
	require.NoError(t, inner.WriteAll(ctx, "parts", append([]byte("\x89SSE\r\n\x1a\n\x02\x00\x00\x01"), blobtest.Content(3*chunk)...), nil))
	for _, test := range []struct {
		name, key string
		b         *blob.Bucket
		want      error
		code      gcerrors.ErrorCode
	}{
		{"another key", "k", blobtest.With(t, b, blob.Request{Cipher: ssetest.NewCustomer(t, 2)}), sse.ErrKey, gcerrors.PermissionDenied},
		{"no key", "k", b, sse.ErrMode, gcerrors.InvalidArgument},
		{"another name", "moved", right, sse.ErrKey, gcerrors.PermissionDenied},
		{"an envelope at the head", "envelope", b, sse.ErrVersion, gcerrors.Unimplemented},
		{"no footer", "parts", b, sse.ErrFormat, gcerrors.Internal},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, whole := test.b.ReadAll(ctx, test.key)
			_, part := blobtest.ReadRange(test.b.Bucket, test.key, 5, 5)
			_, rest := blobtest.ReadRange(test.b.Bucket, test.key, chunk, -1)
			for _, err := range []error{whole, part, rest, test.b.Copy(ctx, "copy", test.key, nil)} {
				require.ErrorIs(t, err, test.want)
				require.NotErrorIs(t, err, blob.ErrPlain)
				require.Equal(t, test.code, gcerrors.Code(err))
			}
		})
	}
}

// TestCompositeCopyOfACutSource: a copy notices that its source's parts end too early
// without an error.
func TestCompositeCopyOfACutSource(t *testing.T) {
	ctx := context.Background()
	spy, inner := blobtest.NewSpy(t)
	cipher := sse.NewManaged(blobtest.NewRing(t))
	b := blobtest.NewBucketWith(t, inner, cipher, nil)
	blobtest.PutComposite(t, inner, "k", cipher, 10*chunk, 10*chunk)
	var cutting atomic.Bool
	var reads atomic.Int32
	spy.Hook = func(_ context.Context, call string) error {
		var n int64
		if _, err := fmt.Sscanf(call, "GET k 0 %d", &n); err == nil && n > 10*chunk { // all parts
			cutting.Store(true)
		}
		if cutting.Load() && call == "read k" && reads.Add(1) > 1 {
			return io.EOF
		}
		return nil
	}
	require.ErrorIs(t, b.Copy(ctx, "copy", "k", nil), sse.ErrTruncated)
	require.NotZero(t, reads.Load())
	exists, err := b.Exists(ctx, "copy")
	require.NoError(t, err)
	require.False(t, exists)
}
