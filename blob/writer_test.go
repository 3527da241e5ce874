package blob_test

import (
	"bytes"
	"context"
	"crypto/md5"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
	gcblob "gocloud.dev/blob"
	"gocloud.dev/gcerrors"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/blob/internal/blobtest"
	"github.com/blobseal/blobseal/blob/stored"
	"github.com/blobseal/blobseal/internal/testbed/ssetest"
	"github.com/blobseal/blobseal/kms"
	"github.com/blobseal/blobseal/kms/kmstest"
	"github.com/blobseal/blobseal/sse"
)

var errBoom = errors.New("boom")

// TestFailedWrites: whatever fails, nothing is published, the old object stays, and the
// store's write is cancelled before it is closed.
func TestFailedWrites(t *testing.T) {
	background := context.Background()
	old, p := []byte("what was there before"), blobtest.Content(3*chunk)
	upload := func(ctx context.Context, b *gcblob.Bucket, r io.Reader) error {
		return b.Upload(ctx, "k", r, &gcblob.WriterOptions{ContentType: "text/plain"})
	}
	for _, test := range []struct {
		name string
		hook string // the call of the store that fails
		do   func(ctx context.Context, cancel func(), b *gcblob.Bucket) error
		want error
	}{
		{"the store's write", "write k", func(ctx context.Context, _ func(), b *gcblob.Bucket) error {
			return b.WriteAll(ctx, "k", p, nil)
		}, errBoom},
		{"opening the store's write", "PUT k", func(ctx context.Context, _ func(), b *gcblob.Bucket) error {
			return b.WriteAll(ctx, "k", p, nil)
		}, errBoom},
		{"a source that is uploaded", "", func(ctx context.Context, _ func(), b *gcblob.Bucket) error {
			return upload(ctx, b, io.MultiReader(bytes.NewReader(p), iotest.ErrReader(errBoom)))
		}, errBoom},
		{"a source that writes itself", "", func(ctx context.Context, _ func(), b *gcblob.Bucket) error {
			return upload(ctx, b, writesItself{p})
		}, errBoom},
		{"cancelled before the end", "", func(ctx context.Context, cancel func(), b *gcblob.Bucket) error {
			w, err := b.NewWriter(ctx, "k", &gcblob.WriterOptions{ContentType: "text/plain"})
			if err != nil {
				return err
			}
			w.Write(p)
			cancel()
			return w.Close()
		}, context.Canceled},
		{"cancelled before anything", "", func(ctx context.Context, cancel func(), b *gcblob.Bucket) error {
			w, err := b.NewWriter(ctx, "k", &gcblob.WriterOptions{ContentType: "text/plain"})
			if err != nil {
				return err
			}
			cancel()
			return w.Close()
		}, context.Canceled},
		{"a wrong MD5", "", func(ctx context.Context, _ func(), b *gcblob.Bucket) error {
			sum := md5.Sum(old)
			return b.WriteAll(ctx, "k", p, &gcblob.WriterOptions{ContentMD5: sum[:]})
		}, gcerrors.ErrFailedPrecondition},
		{"reserved metadata", "", func(ctx context.Context, _ func(), b *gcblob.Bucket) error {
			return b.WriteAll(ctx, "k", p, &gcblob.WriterOptions{Metadata: map[string]string{"BlobSeal-Mode": "SSE-C"}})
		}, stored.ErrReserved},
		{"a hook", "", func(ctx context.Context, _ func(), b *gcblob.Bucket) error {
			return b.WriteAll(ctx, "k", p, &gcblob.WriterOptions{BeforeWrite: func(func(any) bool) error { return errBoom }})
		}, errBoom},
		{"a hook after it asked for an inner type", "", func(ctx context.Context, _ func(), b *gcblob.Bucket) error {
			return b.WriteAll(ctx, "k", p, &gcblob.WriterOptions{BeforeWrite: func(as func(any) bool) error {
				as(new(int))
				return errBoom
			}})
		}, errBoom},
	} {
		t.Run(test.name, func(t *testing.T) {
			spy, inner := blobtest.NewSpy(t)
			b := blobtest.NewBucket(t, inner, nil)
			require.NoError(t, b.WriteAll(background, "k", old, nil))
			_, _, before := spy.State()
			ctx, cancel := context.WithCancel(background)
			defer cancel()
			if test.hook != "" {
				spy.Hook = func(_ context.Context, call string) error {
					if call == test.hook {
						return errBoom
					}
					return nil
				}
			}
			require.ErrorIs(t, test.do(ctx, cancel, b.Bucket), test.want)
			spy.Hook = nil
			reading, writing, commits := spy.State()
			require.Zero(t, reading)
			require.Zero(t, writing)
			require.Equal(t, before, commits, "closed while its ctx was alive")
			require.Equal(t, old, blobtest.ReadAll(t, b.Bucket, "k"))
		})
	}
}

// writesItself is a source with a WriteTo that stops early.
type writesItself struct{ p []byte }

func (w writesItself) Read([]byte) (int, error) { return 0, errBoom }

func (w writesItself) WriteTo(dst io.Writer) (int64, error) {
	n, _ := dst.Write(w.p)
	return int64(n), errBoom
}

// TestFailedCommit: the caller gets the error of the commit.
func TestFailedCommit(t *testing.T) {
	spy, inner := blobtest.NewSpy(t)
	b := blobtest.NewBucket(t, inner, nil)
	spy.Hook = func(_ context.Context, call string) error {
		if call == "commit k" {
			return errBoom
		}
		return nil
	}
	require.ErrorIs(t, b.WriteAll(context.Background(), "k", nil, nil), errBoom)
}

// TestFailedOpen: if a write cannot begin because the key or the store is down for a moment,
// Close does not begin it again; that would publish an object without its content.
func TestFailedOpen(t *testing.T) {
	ctx := context.Background()
	spy, inner := blobtest.NewSpy(t)
	fake := kmstest.NewFake("a")
	cipher, err := sse.NewKMS(fake, "a", nil)
	require.NoError(t, err)
	b := blobtest.NewBucketWith(t, inner, cipher, nil)
	require.NoError(t, b.WriteAll(ctx, "old", []byte("old"), nil))
	for _, test := range []struct {
		name string
		fail func() *gcblob.WriterOptions // the first of what a write asks for
	}{
		{"key", func() *gcblob.WriterOptions { fake.Fail(errBoom, 1); return nil }},
		{"store", func() *gcblob.WriterOptions {
			spy.Hook = func(_ context.Context, call string) error {
				if strings.HasPrefix(call, "PUT") {
					spy.Hook = nil
					return errBoom
				}
				return nil
			}
			return nil
		}},
		{"hook", func() *gcblob.WriterOptions {
			calls := 0
			return &gcblob.WriterOptions{BeforeWrite: func(func(any) bool) error {
				if calls++; calls == 1 {
					return errBoom
				}
				return nil
			}}
		}},
	} {
		for _, size := range []int{0, 100, 600, 3 * chunk} {
			for _, step := range []int{300, 1 << 20} {
				t.Run(fmt.Sprintf("%s/%d/%d", test.name, size, step), func(t *testing.T) {
					for _, key := range []string{"old", "new"} {
						w, err := b.NewWriter(ctx, key, test.fail())
						require.NoError(t, err)
						for part := range slices.Chunk(blobtest.Content(size), step) {
							if _, err = w.Write(part); err != nil {
								require.ErrorIs(t, err, errBoom)
								break
							}
						}
						require.ErrorIs(t, w.Close(), errBoom)
					}
					require.Equal(t, "old", string(blobtest.ReadAll(t, b.Bucket, "old")))
					there, err := b.Exists(ctx, "new")
					require.NoError(t, err)
					require.False(t, there)
					reading, writing, _ := spy.State()
					require.Zero(t, reading+writing)
				})
			}
		}
	}
}

// TestWhatIsStored: the store sees no plaintext and no MD5 of the plaintext, but the content
// type that was found in it. A reader sees the caller's metadata only.
func TestWhatIsStored(t *testing.T) {
	ctx := context.Background()
	spy, inner := blobtest.NewSpy(t)
	b := blobtest.NewBucketWith(t, inner, ssetest.NewKMS(t, "arn:photos-key"), nil)
	page := []byte("<!DOCTYPE html><html>" + strings.Repeat("a secret ", 100) + "</html>")
	sum := md5.Sum(page)
	require.NoError(t, b.WriteAll(ctx, "k", page, &gcblob.WriterOptions{
		BufferSize: 123, MaxConcurrency: 4, ContentMD5: sum[:], CacheControl: "no-cache", ContentEncoding: "gzip", Metadata: map[string]string{"Owner": "me"},
	}))
	require.Empty(t, spy.Wrote.ContentMD5)
	require.Equal(t, 123, spy.Wrote.BufferSize)
	require.Equal(t, 4, spy.Wrote.MaxConcurrency)
	raw := blobtest.ReadAll(t, inner, "k")
	require.NotContains(t, string(raw), "secret")
	require.Len(t, raw, blob.DefaultEnvelopeSize+len(page)+16)

	bare, err := inner.Attributes(ctx, "k")
	require.NoError(t, err)
	require.Equal(t, "text/html; charset=utf-8", bare.ContentType)
	require.Equal(t, map[string]string{
		"owner": "me", "blobseal-mode": "SSE-KMS", "blobseal-key-id": "arn:photos-key", "blobseal-envelope-size": "1024",
		"blobseal-content-encoding": "gzip", "blobseal-body-id": bare.Metadata["blobseal-body-id"],
	}, bare.Metadata)
	require.Empty(t, bare.ContentEncoding, "a store or a client would unpack what is no gzip")

	attrs, err := b.Attributes(ctx, "k")
	require.NoError(t, err)
	require.Equal(t, map[string]string{"owner": "me"}, attrs.Metadata)
	require.Nil(t, attrs.MD5)
	require.EqualValues(t, len(page), attrs.Size)
	require.Equal(t, bare.ETag, attrs.ETag)
	require.Equal(t, bare.ModTime, attrs.ModTime)
	require.Equal(t, "no-cache", attrs.CacheControl)
	require.Equal(t, "gzip", attrs.ContentEncoding)
	var hint stored.Hint
	require.True(t, attrs.As(&hint))
	require.Equal(t, stored.Hint{Mode: sse.ModeKMS, KeyID: "arn:photos-key", EnvelopeSize: 1024, BodyID: hint.BodyID}, hint)

	o, err := b.List(nil).Next(ctx)
	require.NoError(t, err)
	require.EqualValues(t, len(page), o.Size)
	require.Nil(t, o.MD5)

	// A key id that is too long for metadata is left out.
	long := strings.Repeat("k", 600)
	require.NoError(t, blobtest.NewBucketWith(t, inner, ssetest.NewKMS(t, long), nil).WriteAll(ctx, "long", page, nil))
	attrs, err = b.Attributes(ctx, "long")
	require.NoError(t, err)
	require.True(t, attrs.As(&hint))
	require.Equal(t, stored.Hint{Mode: sse.ModeKMS, EnvelopeSize: 1024, BodyID: hint.BodyID}, hint)

	// Without a content type nothing looks for one in the ciphertext.
	require.NoError(t, b.WriteAll(ctx, "typeless", page, &gcblob.WriterOptions{DisableContentTypeDetection: true}))
	bare, err = inner.Attributes(ctx, "typeless")
	require.NoError(t, err)
	require.Empty(t, bare.ContentType)
}

// TestIfNotExist: one of many writers of a key wins, even on a store that checks and
// publishes in two steps.
func TestIfNotExist(t *testing.T) {
	for _, store := range blobtest.Stores {
		t.Run(store.Name, func(t *testing.T) {
			b := blobtest.NewBucket(t, store.Open(t), nil)
			var writers sync.WaitGroup
			var mu sync.Mutex
			won := ""
			for i := range 8 {
				writers.Go(func() {
					p := fmt.Sprint("writer ", i)
					err := b.WriteAll(context.Background(), "k", []byte(p), &gcblob.WriterOptions{IfNotExist: true})
					mu.Lock()
					defer mu.Unlock()
					if err == nil {
						require.Empty(t, won, "two won")
						won = p
					} else {
						require.Equal(t, gcerrors.FailedPrecondition, gcerrors.Code(err))
					}
				})
			}
			writers.Wait()
			require.Equal(t, won, string(blobtest.ReadAll(t, b.Bucket, "k")))
		})
	}
}

// TestWith: a request brings its own key and context.
func TestWith(t *testing.T) {
	ctx := context.Background()
	b := blobtest.NewBucket(t, blobtest.NewMem(t), &blob.Options{Policy: blob.Policy{AllowCustomerKeys: true}})
	mine, other := ssetest.NewCustomer(t, 1), ssetest.NewCustomer(t, 2)
	project := kms.Context{"project": "p"}
	require.NoError(t, blobtest.With(t, b, blob.Request{Cipher: mine, Context: project}).WriteAll(ctx, "k", blobtest.Content(2*chunk), nil))
	read := func(off, n int64, req blob.Request) error {
		p, err := blobtest.ReadRange(blobtest.With(t, b, req).Bucket, "k", off, n)
		if err == nil {
			end := int64(2 * chunk)
			if n >= 0 {
				end = off + n
			}
			require.True(t, bytes.Equal(blobtest.Content(2 * chunk)[off:end], p))
		}
		return err
	}
	for _, part := range [][2]int64{{0, -1}, {0, 5}, {chunk, 5}} {
		off, n := part[0], part[1]
		require.NoError(t, read(off, n, blob.Request{Cipher: mine, Context: project}))
		require.NoError(t, read(off, n, blob.Request{Cipher: mine, AnyContext: true}))
		require.NoError(t, read(off, n, blob.Request{Decrypters: sse.ByMode{sse.ModeCustomer: mine}, Context: project}))
		require.ErrorIs(t, read(off, n, blob.Request{Cipher: mine}), sse.ErrKey, "a missing context is no wildcard")
		require.ErrorIs(t, read(off, n, blob.Request{Cipher: mine, Context: kms.Context{"project": "q"}}), sse.ErrKey)
		err := read(off, n, blob.Request{Cipher: other, Context: project})
		require.ErrorIs(t, err, sse.ErrKey)
		require.Equal(t, gcerrors.PermissionDenied, gcerrors.Code(err))
		for _, req := range []blob.Request{
			{Context: project}, {Decrypters: sse.ByMode{sse.ModeManaged: mine}, Context: project},
		} {
			err = read(off, n, req)
			require.ErrorIs(t, err, sse.ErrMode)
			require.Equal(t, gcerrors.InvalidArgument, gcerrors.Code(err))
		}
	}
	require.NoError(t, b.WriteAll(ctx, "managed", nil, nil))
	_, err := blobtest.With(t, b, blob.Request{Cipher: mine}).NewReader(ctx, "managed", nil)
	require.ErrorIs(t, err, sse.ErrMode, "a customer's key for an object that has none")
	view := blobtest.With(t, blobtest.With(t, b, blob.Request{Cipher: mine}), blob.Request{Context: project})
	require.Equal(t, blobtest.Content(2*chunk), blobtest.ReadAll(t, view.Bucket, "k"), "a view of a view keeps its key")
	require.NoError(t, view.Close())
	require.Equal(t, []byte{}, blobtest.ReadAll(t, b.Bucket, "managed"))
}

// TestWithWhatNoObjectCanHave: With refuses a context that no write could store.
func TestWithWhatNoObjectCanHave(t *testing.T) {
	b := blobtest.NewBucket(t, blobtest.NewMem(t), nil)
	for name, req := range map[string]blob.Request{
		"both":         {Context: kms.Context{"a": "b"}, AnyContext: true},
		"reserved":     {Context: kms.Context{"blobseal:x": "y"}},
		"empty name":   {Context: kms.Context{"": "y"}},
		"not UTF-8":    {Context: kms.Context{"a": "\xff"}},
		"too long":     {Context: kms.Context{"a": strings.Repeat("x", blob.DefaultEnvelopeSize)}},
		"far too long": {Context: kms.Context{"a": strings.Repeat("x", 1<<20)}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := b.With(req)
			require.True(t, errors.Is(err, sse.ErrInvalid) || errors.Is(err, sse.ErrTooLarge), "%v", err)
		})
	}
}

// TestKeyErrors: an error of the key service stays visible. It never makes an object look
// absent, or a stream look finished.
func TestKeyErrors(t *testing.T) {
	ctx := context.Background()
	notFound := func() error { _, err := blobtest.NewMem(t).Attributes(ctx, "the service's own key"); return err }()
	for _, test := range []struct {
		err  error
		code gcerrors.ErrorCode
	}{
		{kms.ErrDenied, gcerrors.PermissionDenied},
		{kms.ErrDisabled, gcerrors.FailedPrecondition},
		{kms.ErrPendingDeletion, gcerrors.FailedPrecondition},
		{kms.ErrUnavailable, gcerrors.Unknown},
		{io.EOF, gcerrors.Unknown},
		{notFound, gcerrors.Unknown},
		{errBoom, gcerrors.Unknown},
		{context.DeadlineExceeded, gcerrors.DeadlineExceeded},
	} {
		t.Run(test.err.Error(), func(t *testing.T) {
			fake := kmstest.NewFake("arn:photos-key")
			cipher, err := sse.NewKMS(fake, "arn:photos-key", nil)
			require.NoError(t, err)
			b := blobtest.NewBucketWith(t, blobtest.NewMem(t), cipher, nil)
			require.NoError(t, b.WriteAll(ctx, "k", blobtest.Content(10), nil))
			fake.Hook(func(context.Context, kmstest.Call) error { return test.err })
			_, readErr := b.ReadAll(ctx, "k")
			writeErr := b.WriteAll(ctx, "k2", nil, nil)
			copyErr := b.Copy(ctx, "k2", "k", nil)
			for _, err := range []error{readErr, writeErr, copyErr} {
				require.Error(t, err)
				require.Equal(t, test.code, gcerrors.Code(err), "%v", err)
				if test.err != io.EOF && test.err != notFound {
					require.ErrorIs(t, err, test.err)
				}
				require.False(t, errors.Is(err, io.EOF))
			}
			fake.Hook(nil)
			exists, err := b.Exists(ctx, "k2")
			require.NoError(t, err)
			require.False(t, exists)
		})
	}
}

// TestNewBucketRefuses: what no write could honour is refused at construction.
func TestNewBucketRefuses(t *testing.T) {
	inner := blobtest.NewMem(t)
	enc, err := ssetest.NewCustomer(t, 1).Encrypt(ctx, sse.Object{Bucket: "photos", Key: "k"})
	require.NoError(t, err)
	least := enc.Envelope().Size()
	customers := blob.Policy{AllowCustomerKeys: true}
	for name, open := range map[string]func() (*blob.Bucket, error){
		"no name":   func() (*blob.Bucket, error) { return blob.NewBucket(inner, "", ssetest.NewKMS(t, "a"), nil) },
		"no cipher": func() (*blob.Bucket, error) { return blob.NewBucket(inner, "photos", nil, nil) },
		"a negative envelope": func() (*blob.Bucket, error) {
			return blob.NewBucket(inner, "photos", ssetest.NewKMS(t, "a"), &blob.Options{EnvelopeSize: -1})
		},
		"a tiny envelope": func() (*blob.Bucket, error) {
			return blob.NewBucket(inner, "photos", ssetest.NewKMS(t, "a"), &blob.Options{EnvelopeSize: 10})
		},
		"an envelope too small for the cipher": func() (*blob.Bucket, error) {
			return blob.NewBucket(inner, "photos", ssetest.NewCustomer(t, 1), &blob.Options{EnvelopeSize: least - 1, Policy: customers})
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := open()
			require.ErrorIs(t, err, sse.ErrInvalid)
		})
	}
	b, err := blob.NewBucket(inner, "photos", ssetest.NewCustomer(t, 1), &blob.Options{EnvelopeSize: least, Policy: customers})
	require.NoError(t, err)
	require.NoError(t, b.WriteAll(ctx, "k", nil, nil))
}

// TestBucketsOverOneInnerBucket: buckets that requests make for themselves take turns,
// so that of several writers with IfNotExist one wins.
func TestBucketsOverOneInnerBucket(t *testing.T) {
	inner, cipher := blobtest.NewMem(t), sse.NewManaged(blobtest.NewRing(t))
	for i := range 50 {
		key := fmt.Sprint(i)
		var wins atomic.Int32
		var group sync.WaitGroup
		for range 8 {
			group.Go(func() {
				b, err := blob.NewBucket(inner, "photos", cipher, nil)
				if err == nil && b.WriteAll(ctx, key, blobtest.Content(10), &gcblob.WriterOptions{IfNotExist: true}) == nil {
					wins.Add(1)
				}
			})
		}
		group.Wait()
		require.EqualValues(t, 1, wins.Load(), key)
	}
}
