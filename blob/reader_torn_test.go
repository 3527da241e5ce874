package blob_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	gcblob "gocloud.dev/blob"
	"gocloud.dev/blob/fileblob"
	"gocloud.dev/gcerrors"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/blob/internal/blobtest"
	"github.com/blobseal/blobseal/sse"
)

// TestTornRead: a range read whose requests met two versions starts again and returns one
// version. If the object never stops changing, the read returns ErrChanged or one version.
func TestTornRead(t *testing.T) {
	ctx := context.Background()
	spy, inner := blobtest.NewSpy(t)
	b := blobtest.NewBucket(t, inner, nil)
	old, renewed := blobtest.Content(3*chunk), bytes.Repeat([]byte("new"), chunk)
	require.NoError(t, b.WriteAll(ctx, "k", old, nil))
	between := func(times int) {
		spy.Hook = func(_ context.Context, call string) error {
			if call == fmt.Sprintf("GET k %d %d", blob.DefaultEnvelopeSize+3*sealedChunk, sealedChunk) && times > 0 {
				times--
				hook := spy.Hook
				spy.Hook = nil
				defer func() { spy.Hook = hook }()
				return b.WriteAll(ctx, "k", renewed, nil)
			}
			return nil
		}
	}
	between(1)
	got, err := blobtest.ReadRange(b.Bucket, "k", chunk, 10)
	require.NoError(t, err)
	require.Equal(t, renewed[chunk:chunk+10], got)

	// Between the two requests that are made side by side, too.
	spy.Hook = nil
	require.NoError(t, b.WriteAll(ctx, "k", old, nil))
	var once sync.Once
	spy.Hook = func(_ context.Context, call string) (err error) {
		if call == fmt.Sprintf("GET k %d %d", blob.DefaultEnvelopeSize+sealedChunk, sealedChunk) {
			once.Do(func() { err = b.WriteAll(ctx, "k", renewed, nil) })
		}
		return err
	}
	got, err = blobtest.ReadRange(b.Bucket, "k", chunk, 10)
	require.NoError(t, err)
	require.Equal(t, renewed[chunk:chunk+10], got)

	between(1000)
	_, err = blobtest.ReadRange(b.Bucket, "k", chunk, 10)
	require.Error(t, err)
	require.ErrorIs(t, err, blob.ErrChanged)
	require.NotErrorIs(t, err, sse.ErrCorrupt)
}

// TestTornTwice: chunks older than their envelope, then chunks newer than the same envelope,
// are not called damage.
func TestTornTwice(t *testing.T) {
	ctx := context.Background()
	spy, inner := blobtest.NewSpy(t)
	spy.Coarse = 1000 * time.Hour // times tell nothing
	b := blobtest.NewBucket(t, inner, nil)
	version := func(n int) []byte { return bytes.Repeat([]byte{byte(n)}, 3*chunk) }
	require.NoError(t, b.WriteAll(ctx, "k", version(1), nil))
	// Each write comes when the other request of its attempt has been answered.
	write := func(n, served int) error {
		for wait := time.Now(); ; runtime.Gosched() {
			if spy.Served() >= served {
				return b.WriteAll(ctx, "k", version(n), nil)
			} else if time.Since(wait) > 10*time.Second {
				return errors.New("the other request does not come")
			}
		}
	}
	var envelopes, chunks atomic.Int32
	spy.Hook = func(_ context.Context, call string) error {
		switch {
		case call == fmt.Sprintf("GET k 0 %d", blob.DefaultEnvelopeSize) && envelopes.Add(1) == 1:
			return write(2, 1) // after the chunks
		case call == fmt.Sprintf("GET k %d %d", blob.DefaultEnvelopeSize+sealedChunk, sealedChunk) && chunks.Add(1) == 2:
			return write(3, 4) // after chunks, envelope and tail of the first attempt, and the envelope
		}
		return nil
	}
	got, err := blobtest.ReadRange(b.Bucket, "k", chunk, 10)
	require.NoError(t, err)
	require.Equal(t, version(3)[:10], got)
	require.EqualValues(t, 3, envelopes.Load())
}

// TestMetadataBeforeContent: a plain object that is being encrypted in place is not called
// damaged while the store shows its new metadata beside its old content.
func TestMetadataBeforeContent(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	inner, err := fileblob.OpenBucket(dir, &fileblob.Options{NoTempDir: true})
	require.NoError(t, err)
	defer inner.Close()
	b := blobtest.NewBucket(t, inner, &blob.Options{AllowPlain: true})
	require.NoError(t, b.WriteAll(ctx, "k", blobtest.Content(chunk), nil))
	name, sealed := filepath.Join(dir, "k"), filepath.Join(dir, "sealed")
	for _, off := range []int64{0, 5} {
		require.NoError(t, os.Rename(name, sealed))
		require.NoError(t, os.WriteFile(name, blobtest.Content(chunk), 0o600)) // and its metadata is there
		_, err = b.NewRangeReader(ctx, "k", off, -1, nil)
		require.ErrorIs(t, err, sse.ErrFormat, "it stays so")
		require.Equal(t, gcerrors.Internal, gcerrors.Code(err))

		calls := 0
		r, err := b.NewRangeReader(ctx, "k", off, -1, &gcblob.ReaderOptions{BeforeRead: func(func(any) bool) error {
			if calls++; calls == 2 {
				return os.Rename(sealed, name)
			}
			return nil
		}})
		require.NoError(t, err)
		got, err := io.ReadAll(r)
		require.NoError(t, err)
		require.True(t, bytes.Equal(blobtest.Content(chunk)[off:], got))
		require.NoError(t, r.Close())
	}
}

// TestStaleSize: a file store may report the size of one version and serve the content of
// another. A read returns one version, with its own size.
func TestStaleSize(t *testing.T) {
	ctx := context.Background()
	versions := map[string][]byte{"plain": blobtest.Content(70_000), "small": blobtest.Content(100), "large": blobtest.Content(40_000)}
	for _, test := range []struct{ was, is string }{
		{"plain", "large"}, {"plain", "small"}, {"large", "small"}, {"small", "large"}, {"large", "plain"},
	} {
		for _, off := range []int64{0, 50, chunk + 351} {
			for call := 1; call <= 4; call++ {
				t.Run(fmt.Sprintf("%s to %s/from %d/request %d", test.was, test.is, off, call), func(t *testing.T) {
					dir := t.TempDir()
					inner, err := fileblob.OpenBucket(dir, &fileblob.Options{NoTempDir: true, Metadata: fileblob.MetadataDontWrite})
					require.NoError(t, err)
					defer inner.Close()
					b := blobtest.NewBucket(t, inner, &blob.Options{AllowPlain: true})
					for key, p := range versions {
						store := b.Bucket
						if key == "plain" {
							store = inner
						}
						require.NoError(t, store.WriteAll(ctx, "k", p, nil))
						require.NoError(t, os.Rename(filepath.Join(dir, "k"), filepath.Join(dir, key)))
					}
					stored := func(key string) []byte {
						p, err := os.ReadFile(filepath.Join(dir, key))
						require.NoError(t, err)
						return p
					}
					require.NoError(t, os.WriteFile(filepath.Join(dir, "k"), stored(test.was), 0o600))
					is, calls := stored(test.is), 0
					r, err := b.NewRangeReader(ctx, "k", off, -1, &gcblob.ReaderOptions{BeforeRead: func(func(any) bool) error {
						if calls++; calls == call { // its size was looked at
							return os.WriteFile(filepath.Join(dir, "k"), is, 0o600)
						}
						return nil
					}})
					require.NoError(t, err)
					defer r.Close()
					got, err := io.ReadAll(r)
					require.NoError(t, err)
					whole := versions[test.was]
					if r.Size() != int64(len(whole)) {
						require.GreaterOrEqual(t, calls, call)
						whole = versions[test.is]
					}
					require.EqualValues(t, len(whole), r.Size())
					require.True(t, bytes.Equal(whole[min(int(off), len(whole)):], got))
				})
			}
		}
	}
}

// TestSizeIsProved: a read notices, at the end of the object at the latest, that the store
// reported a wrong size.
func TestSizeIsProved(t *testing.T) {
	ctx := context.Background()
	const size = 2*chunk + 100
	for _, said := range []int64{1, 50, size - 50, size - 1, size + 1, size + 50, size + 3*chunk} {
		for _, part := range []struct{ off, n int64 }{{0, -1}, {0, 10}, {20, size}, {chunk, -1}, {2 * chunk, 10}, {chunk + 5, 0}, {size * 9, 5}} {
			spy, inner := blobtest.NewSpy(t)
			b := blobtest.NewBucket(t, inner, nil)
			require.NoError(t, b.WriteAll(ctx, "k", blobtest.Content(size), nil))
			stored, err := sse.CiphertextSize(said)
			require.NoError(t, err)
			spy.Stale = func() int64 { return blob.DefaultEnvelopeSize + stored }
			for _, read := range []func(io.Writer, *gcblob.Reader) error{
				func(w io.Writer, r *gcblob.Reader) error { _, err := io.Copy(w, struct{ io.Reader }{r}); return err },
				func(w io.Writer, r *gcblob.Reader) error { _, err := r.WriteTo(w); return err },
			} {
				var got bytes.Buffer
				r, err := b.NewRangeReader(ctx, "k", part.off, part.n, nil)
				if err == nil {
					require.Equal(t, said, r.Size())
					err = read(&got, r)
					require.NoError(t, r.Close())
				}
				require.Error(t, err, "%d for %d, %v", said, size, part)
				require.True(t, bytes.HasPrefix(blobtest.Content(size)[min(part.off, size):], got.Bytes()))
			}
			require.Error(t, b.Download(ctx, "k", io.Discard, nil))
		}
	}
}

// TestTornAfterChanges: attempts that met two sizes do not count as evidence that a later
// attempt met damage.
func TestTornAfterChanges(t *testing.T) {
	ctx := context.Background()
	spy, inner := blobtest.NewSpy(t)
	spy.Coarse = 1000 * time.Hour // times tell nothing
	b := blobtest.NewBucket(t, inner, &blob.Options{SkipLengthCheck: true})
	require.NoError(t, b.WriteAll(ctx, "k", blobtest.Content(3*chunk), nil))
	good := blobtest.ReadAll(t, inner, "k")
	torn := bytes.Clone(good)
	torn[blob.DefaultEnvelopeSize+sealedChunk] ^= 1
	var told, chunks atomic.Int32
	spy.Stale = func() int64 {
		if chunks.Load() > 2 {
			return 0
		}
		return blob.DefaultEnvelopeSize + 10*sealedChunk + 100 + int64(told.Add(1)) // always another
	}
	spy.Hook = func(_ context.Context, call string) error {
		if call == fmt.Sprintf("GET k %d %d", blob.DefaultEnvelopeSize+sealedChunk, sealedChunk) {
			switch chunks.Add(1) {
			case 3:
				return spy.Bucket.WriteAll(ctx, "k", torn, nil)
			case 4:
				return spy.Bucket.WriteAll(ctx, "k", good, nil)
			}
		}
		return nil
	}
	got, err := blobtest.ReadRange(b.Bucket, "k", chunk, 10)
	require.NoError(t, err)
	require.Equal(t, blobtest.Content(3 * chunk)[chunk:chunk+10], got)
	require.EqualValues(t, 4, chunks.Load())
}
