package blob_test

import (
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	gcblob "gocloud.dev/blob"
	"gocloud.dev/gcerrors"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/blob/internal/blobtest"
	"github.com/blobseal/blobseal/blob/stored"
	"github.com/blobseal/blobseal/internal/testbed/ssetest"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/sse"
)

// TestCopy copies from each mode to each, to another name and onto itself. The body and
// the metadata do not change.
func TestCopy(t *testing.T) {
	ctx := context.Background()
	ciphers := map[string]sse.Cipher{
		"managed": sse.NewManaged(blobtest.NewRing(t)), "kms": ssetest.NewKMS(t, "photos-key"), "kms2": ssetest.NewKMS(t, "other-key"),
		"customer": ssetest.NewCustomer(t, 1), "customer2": ssetest.NewCustomer(t, 2),
	}
	for from, source := range ciphers {
		for to, target := range ciphers {
			for _, dst := range []string{"dir/copy", "k"} {
				t.Run(fmt.Sprintf("%s to %s at %s", from, to, dst), func(t *testing.T) {
					inner := blobtest.NewMem(t)
					b := blobtest.NewBucket(t, inner, &blob.Options{Policy: blob.Policy{AllowCustomerKeys: true}})
					p := blobtest.Content(2*chunk + 9)
					src := blobtest.With(t, b, blob.Request{Cipher: source, Context: kms.Context{"a": "b"}})
					to := blobtest.With(t, b, blob.Request{Cipher: target, AnyContext: true})
					require.NoError(t, src.WriteAll(ctx, "k", p, &gcblob.WriterOptions{
						CacheControl: "no-cache", ContentDisposition: "inline", ContentEncoding: "identity",
						ContentLanguage: "en", ContentType: "image/x-test", Metadata: map[string]string{"owner": "me"},
					}))
					before := blobtest.ReadAll(t, inner, "k")
					calls := 0
					require.NoError(t, to.CopyFrom(ctx, dst, src, "k", &gcblob.CopyOptions{BeforeCopy: func(func(any) bool) error {
						calls++
						return nil
					}}))
					require.Equal(t, 1, calls)
					after := blobtest.ReadAll(t, inner, dst)
					require.Equal(t, len(before), len(after))
					const body = blob.DefaultEnvelopeSize - 56 // from the body's head on
					require.Equal(t, before[body:], after[body:])
					require.NotEqual(t, before[:body], after[:body])

					r, err := blobtest.With(t, b, blob.Request{Cipher: target, Context: kms.Context{"a": "b"}}).NewReader(ctx, dst, nil)
					require.NoError(t, err)
					var env *sse.Envelope
					require.True(t, r.As(&env))
					require.NoError(t, r.Close())
					attrs, err := b.Attributes(ctx, dst)
					require.NoError(t, err)
					require.Equal(t, []any{"no-cache", "inline", "identity", "en", "image/x-test", map[string]string{"owner": "me"}, int64(len(p))},
						[]any{attrs.CacheControl, attrs.ContentDisposition, attrs.ContentEncoding, attrs.ContentLanguage, attrs.ContentType, attrs.Metadata, attrs.Size})
					raw, err := inner.Attributes(ctx, dst)
					require.NoError(t, err)
					require.Empty(t, raw.ContentEncoding)
					var hint stored.Hint
					require.True(t, attrs.As(&hint))
					require.Equal(t, stored.Hint{Mode: env.Mode(), KeyID: env.KeyID(), EnvelopeSize: blob.DefaultEnvelopeSize, BodyID: env.BodyID()}, hint)
				})
			}
		}
	}
}

// TestCopyContext: a copy's context is what it asks for, or the source's.
func TestCopyContext(t *testing.T) {
	ctx := context.Background()
	b := blobtest.NewBucket(t, blobtest.NewMem(t), nil)
	ab, cd := blobtest.With(t, b, blob.Request{Context: kms.Context{"a": "b"}}), blobtest.With(t, b, blob.Request{Context: kms.Context{"c": "d"}})
	anyone := blobtest.With(t, b, blob.Request{AnyContext: true})
	require.NoError(t, ab.WriteAll(ctx, "k", nil, nil))
	require.NoError(t, cd.CopyFrom(ctx, "k2", ab, "k", nil))
	require.NoError(t, anyone.Copy(ctx, "k4", "k", nil))
	require.NoError(t, ab.Copy(ctx, "k5", "k", nil))
	for key, want := range map[string]kms.Context{"k": {"a": "b"}, "k2": {"c": "d"}, "k4": {"a": "b"}, "k5": {"a": "b"}} {
		r, err := blobtest.With(t, b, blob.Request{Context: want}).NewReader(ctx, key, nil)
		require.NoError(t, err)
		require.NoError(t, r.Close())
	}
	require.ErrorIs(t, cd.Copy(ctx, "k3", "k", nil), sse.ErrKey)
	require.ErrorIs(t, b.Copy(ctx, "k3", "k", nil), sse.ErrKey, "a missing context is no wildcard")
	require.Error(t, b.CopyFrom(ctx, "k3", anyone, "k", nil), "the context would get lost")
}

// TestCopyOfWhatChanges: a copy holds one version. A copy of an object onto itself never
// replaces a newer version by an older one, whichever process wrote it.
func TestCopyOfWhatChanges(t *testing.T) {
	ctx := context.Background()
	for _, dst := range []string{"k2", "k"} {
		for _, when := range []string{"GET k ", "PUT " + dst, "write " + dst} {
			for _, writer := range []string{"this process", "another"} {
				t.Run(when+"/"+dst+"/"+writer, func(t *testing.T) {
					spy, inner := blobtest.NewSpy(t)
					cipher := sse.NewManaged(blobtest.NewRing(t))
					b := blobtest.NewBucketWith(t, inner, cipher, nil)
					writes := b
					if writer == "another" { // which shares no locks
						writes = blobtest.NewBucketWith(t, spy.Bucket, cipher, nil)
					}
					write := func(n int) error {
						p := []byte(strings.Repeat(fmt.Sprint(n), 100))
						return writes.WriteAll(ctx, "k", p, &gcblob.WriterOptions{Metadata: map[string]string{"version": fmt.Sprint(n)}})
					}
					require.NoError(t, write(1))
					times := 1
					spy.Hook = func(_ context.Context, call string) error {
						if strings.HasPrefix(call, when) && times > 0 {
							times--
							return write(2)
						}
						return nil
					}
					require.NoError(t, b.Copy(ctx, dst, "k", nil))
					attrs, err := b.Attributes(ctx, dst)
					require.NoError(t, err)
					require.Equal(t, strings.Repeat(attrs.Metadata["version"], 100), string(blobtest.ReadAll(t, b.Bucket, dst)))
					require.Equal(t, strings.Repeat("2", 100), string(blobtest.ReadAll(t, b.Bucket, "k")))
				})
			}
		}
	}
}

// TestCopyOverAChange: on a store that does not tell versions apart, a copy of an object
// onto itself does not bring back a version that this process has replaced.
func TestCopyOverAChange(t *testing.T) {
	ctx := context.Background()
	for _, when := range []string{"GET k", "PUT k", "write k"} {
		t.Run(when, func(t *testing.T) {
			spy, inner := blobtest.NewSpy(t)
			spy.Coarse = 1000 * time.Hour
			b := blobtest.NewBucket(t, inner, nil)
			require.NoError(t, b.WriteAll(ctx, "k", []byte("old"), nil))
			spy.Hook = func(_ context.Context, call string) error {
				if strings.HasPrefix(call, when) {
					spy.Hook = nil
					return b.WriteAll(ctx, "k", []byte("new"), nil)
				}
				return nil
			}
			require.NoError(t, b.Copy(ctx, "k", "k", nil))
			require.Equal(t, "new", string(blobtest.ReadAll(t, b.Bucket, "k")))
		})
	}
}

// TestCopyOfWhatIsDeleted: if the source is deleted during a copy, there is no copy. A copy
// of an object onto itself never brings the object back.
func TestCopyOfWhatIsDeleted(t *testing.T) {
	ctx := context.Background()
	for _, test := range []struct {
		dst, when string
		behind    bool // the store's own delete, as of another process
		copied    bool
	}{
		{"k2", "GET k", false, false},
		{"k2", "PUT k2", false, false},
		{"k", "GET k", false, false},
		{"k", "PUT k", false, false},
		{"k", "PUT k", true, false},
		{"k", "write k", true, false},
	} {
		t.Run(fmt.Sprintf("%+v", test), func(t *testing.T) {
			spy, inner := blobtest.NewSpy(t)
			b := blobtest.NewBucket(t, inner, nil)
			require.NoError(t, b.WriteAll(ctx, "k", blobtest.Content(10), nil))
			remove := b.Delete
			if test.behind {
				remove = spy.Bucket.Delete
			}
			spy.Hook = func(_ context.Context, call string) error {
				if strings.HasPrefix(call, test.when) {
					spy.Hook = nil
					return remove(ctx, "k")
				}
				return nil
			}
			err := b.Copy(ctx, test.dst, "k", nil)
			require.Nil(t, spy.Hook)
			exists, existsErr := b.Exists(ctx, test.dst)
			require.NoError(t, existsErr)
			require.Equal(t, test.copied, exists)
			if test.copied {
				require.NoError(t, err)
				require.Equal(t, blobtest.Content(10), blobtest.ReadAll(t, b.Bucket, test.dst))
				return
			}
			require.Equal(t, gcerrors.NotFound, gcerrors.Code(err), "%v", err)
			_, writing, _ := spy.State()
			require.Zero(t, writing)
		})
	}
}

// TestCopyOfDamage: a copy refuses the damage that it sees and preserves the rest; it never
// heals an object.
func TestCopyOfDamage(t *testing.T) {
	ctx := context.Background()
	inner := blobtest.NewMem(t)
	b := blobtest.NewBucket(t, inner, nil)
	require.NoError(t, b.WriteAll(ctx, "k", blobtest.Content(2*chunk), nil))
	good := blobtest.ReadAll(t, inner, "k")

	replaceStored(t, inner, "k", good[:len(good)-10])
	require.ErrorIs(t, b.Copy(ctx, "k2", "k", nil), sse.ErrTruncated)
	replaceStored(t, inner, "k", good[:10])
	require.ErrorIs(t, b.Copy(ctx, "k2", "k", nil), sse.ErrFormat)
	for _, bad := range [][]byte{
		good[:len(good)-sealedChunk], // which has the size of a shorter object
		append(good[:len(good)-1:len(good)-1], good[len(good)-1]^1),
	} {
		replaceStored(t, inner, "k", bad)
		require.NoError(t, b.Copy(ctx, "k2", "k", nil))
		_, err := b.ReadAll(ctx, "k2")
		require.ErrorIs(t, err, sse.ErrCorrupt)
	}
}

// TestCopyOfMixed: a copy refuses what a mixed bucket must not hold, and a source that
// ends too early without an error.
func TestCopyOfMixed(t *testing.T) {
	ctx := context.Background()
	spy, inner := blobtest.NewSpy(t)
	b := blobtest.NewBucket(t, inner, &blob.Options{AllowPlain: true})
	for _, key := range []string{"sealed", "damaged"} {
		require.NoError(t, b.WriteAll(ctx, key, blobtest.Content(2*chunk), nil))
	}
	require.NoError(t, inner.WriteAll(ctx, "plain", blobtest.Content(2*chunk), nil))
	replaceStored(t, inner, "damaged", blobtest.Content(2*chunk))
	brings := blobtest.With(t, b, blob.Request{Cipher: ssetest.NewCustomer(t, 1)})

	err := b.Copy(ctx, "copy", "damaged", nil)
	require.ErrorIs(t, err, sse.ErrFormat)
	require.Equal(t, gcerrors.Internal, gcerrors.Code(err))
	require.ErrorIs(t, b.CopyFrom(ctx, "copy", brings, "plain", nil), sse.ErrMode)
	for key, want := range map[string]error{"sealed": sse.ErrTruncated, "plain": io.ErrUnexpectedEOF} {
		reads := 0
		spy.Hook = func(_ context.Context, call string) error {
			if call == "read "+key {
				if reads++; reads > 1 { // after the envelope
					return io.EOF
				}
			}
			return nil
		}
		require.ErrorIs(t, b.Copy(ctx, "copy", key, nil), want)
	}
	exists, err := b.Exists(ctx, "copy")
	require.NoError(t, err)
	require.False(t, exists)
}

// TestCopyHookAgain: a copy that has to begin again calls its hook again.
func TestCopyHookAgain(t *testing.T) {
	ctx := context.Background()
	spy, inner := blobtest.NewSpy(t)
	b := blobtest.NewBucket(t, inner, nil)
	require.NoError(t, b.WriteAll(ctx, "k", []byte("old"), nil))
	spy.Hook = func(_ context.Context, call string) error {
		if call == "write k" {
			spy.Hook = nil
			return b.WriteAll(ctx, "k", []byte("new"), nil)
		}
		return nil
	}
	calls := 0
	require.NoError(t, b.Copy(ctx, "k", "k", &gcblob.CopyOptions{BeforeCopy: func(func(any) bool) error {
		calls++
		return nil
	}}))
	require.Equal(t, 2, calls)
	require.Equal(t, "new", string(blobtest.ReadAll(t, b.Bucket, "k")))
}

// TestIfUnchanged: a copy of an object onto itself carries the store's own
// condition, beside the caller's hook; a copy to elsewhere does not.
func TestIfUnchanged(t *testing.T) {
	ctx := context.Background()
	var etags []string
	refuse := false
	b := blobtest.NewBucket(t, blobtest.NewMem(t), &blob.Options{IfUnchanged: func(as func(any) bool, attrs *gcblob.Attributes) error {
		etags = append(etags, attrs.ETag)
		if refuse {
			return errBoom
		}
		return nil
	}})
	require.NoError(t, b.WriteAll(ctx, "k", blobtest.Content(10), nil))
	attrs, err := b.Attributes(ctx, "k")
	require.NoError(t, err)
	calls := 0
	require.NoError(t, b.Copy(ctx, "k", "k", &gcblob.CopyOptions{BeforeCopy: func(as func(any) bool) error {
		calls++
		as(new(int))
		return nil
	}}))
	require.Equal(t, 1, calls)
	require.Equal(t, []string{attrs.ETag}, etags)
	require.NoError(t, b.Copy(ctx, "k2", "k", nil))
	require.Len(t, etags, 1)

	refuse = true
	raw := blobtest.ReadAll(t, b.Inner(), "k")
	require.ErrorIs(t, b.Copy(ctx, "k", "k", nil), errBoom)
	require.Equal(t, raw, blobtest.ReadAll(t, b.Inner(), "k"))
}
