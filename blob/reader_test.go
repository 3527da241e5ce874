package blob_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/require"
	gcblob "gocloud.dev/blob"
	"gocloud.dev/blob/fileblob"
	"gocloud.dev/gcerrors"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/blob/internal/blobtest"
	"github.com/blobseal/blobseal/sse"
)

const chunk, sealedChunk = 16384, 16400

// TestRequests: what each operation asks of the store, and nothing else.
func TestRequests(t *testing.T) {
	const size = 5*chunk + 100
	body := func(chunks int64) int64 { return blob.DefaultEnvelopeSize + chunks*sealedChunk }
	get := func(off, n int64) string { return fmt.Sprintf("GET k %d %d", off, n) }
	tail := get(body(5), sealedChunk)
	envelope := get(0, blob.DefaultEnvelopeSize)
	ctx := context.Background()
	read := func(off, n int64) func(*gcblob.Bucket) error {
		return func(b *gcblob.Bucket) error {
			p, err := readRange(b, "k", off, n)
			if err == nil && !bytes.Equal(p, content(size)[off:min(size, off+n)]) {
				return errors.New("wrong content")
			}
			return err
		}
	}
	for _, test := range []struct {
		name string
		do   func(*gcblob.Bucket) error
		want []string
		opts blob.Options
	}{
		{"write", func(b *gcblob.Bucket) error { return b.WriteAll(ctx, "k", content(size), nil) },
			[]string{"PUT k"}, blob.Options{}},
		{"read all", func(b *gcblob.Bucket) error { _, err := b.ReadAll(ctx, "k"); return err },
			[]string{get(0, -1)}, blob.Options{}},
		{"download", func(b *gcblob.Bucket) error { return b.Download(ctx, "k", io.Discard, nil) },
			[]string{get(0, -1)}, blob.Options{}},
		{"attributes", func(b *gcblob.Bucket) error { _, err := b.Attributes(ctx, "k"); return err },
			[]string{"HEAD k"}, blob.Options{}},
		{"delete", func(b *gcblob.Bucket) error { return b.Delete(ctx, "k") },
			[]string{"DELETE k"}, blob.Options{}},
		{"list", func(b *gcblob.Bucket) error { _, err := b.List(nil).Next(ctx); return err },
			[]string{"LIST"}, blob.Options{}},
		{"list with a look", func(b *gcblob.Bucket) error { _, err := b.List(nil).Next(ctx); return err },
			[]string{envelope, "LIST"}, blob.Options{LookWhenListing: true}},
		{"range in the middle", read(chunk+5, 10),
			[]string{envelope, get(body(1), sealedChunk), tail}, blob.Options{}},
		{"range over a boundary", read(2*chunk-1, 2),
			[]string{envelope, get(body(1), 2*sealedChunk), tail}, blob.Options{}},
		{"range that reaches the last chunk", read(4*chunk, chunk+1),
			[]string{envelope, get(body(4), 2*sealedChunk)}, blob.Options{}},
		{"range that ends where the last chunk begins", read(4*chunk, chunk),
			[]string{envelope, get(body(4), sealedChunk+17), tail}, blob.Options{}},
		{"range to the end", read(3*chunk+9, size-3*chunk-9),
			[]string{envelope, get(body(3), 3*sealedChunk)}, blob.Options{}},
		{"range at the start, envelope and chunk in one", read(10, 10),
			[]string{get(0, body(1)), tail}, blob.Options{}},
		{"range without the check of the length", read(chunk+5, 10),
			[]string{envelope, get(body(1), sealedChunk)}, blob.Options{SkipLengthCheck: true}},
		{"range at the start without the check of the length", read(0, 10),
			[]string{get(0, body(1))}, blob.Options{SkipLengthCheck: true}},
		{"copy", func(b *gcblob.Bucket) error { return b.Copy(ctx, "k2", "k", nil) },
			[]string{get(0, -1), "HEAD k", "HEAD k", "PUT k2"}, blob.Options{}},
	} {
		t.Run(test.name, func(t *testing.T) {
			spy, inner := newSpy(t)
			b := newBucket(t, inner, &test.opts)
			require.NoError(t, b.WriteAll(ctx, "k", content(size), nil))
			spy.Take()
			require.NoError(t, test.do(b.Bucket))
			slices.Sort(test.want)
			require.Equal(t, test.want, spy.Take())
			reading, writing, _ := spy.State()
			require.Zero(t, reading)
			require.Zero(t, writing)
		})
	}
}

// TestRangeSideBySide: neither of a range's first two requests waits for the other.
func TestRangeSideBySide(t *testing.T) {
	spy, inner := newSpy(t)
	b := newBucket(t, inner, &blob.Options{SkipLengthCheck: true})
	require.NoError(t, b.WriteAll(context.Background(), "k", content(3*chunk), nil))
	arrived := make(chan struct{}, 2)
	both := make(chan struct{})
	go func() {
		<-arrived
		<-arrived
		close(both)
	}()
	spy.Hook = func(ctx context.Context, call string) error {
		if call == "read k" {
			return nil
		}
		arrived <- struct{}{}
		select {
		case <-both:
			return nil
		case <-time.After(10 * time.Second):
			return errors.New("the other request does not come")
		}
	}
	p, err := readRange(b.Bucket, "k", chunk, 5)
	require.NoError(t, err)
	require.Equal(t, content(3 * chunk)[chunk:chunk+5], p)
}

// TestRanges: every range around chunk boundaries, in buckets whose envelopes have
// the size that is expected, or a smaller or larger one, or that do not check.
func TestRanges(t *testing.T) {
	ctx := context.Background()
	edges := []int64{0, 1, chunk - 1, chunk, chunk + 1, 2*chunk - 1, 2 * chunk, 2*chunk + 1, 3*chunk + 7, 1 << 40}
	for _, opts := range []blob.Options{{}, {SkipLengthCheck: true}, {EnvelopeSize: 400}, {EnvelopeSize: 5000}, {AllowPlain: true}} {
		t.Run(fmt.Sprintf("%+v", opts), func(t *testing.T) {
			_, inner := newSpy(t)
			cipher := sse.NewManaged(newRing(t))
			writes := newBucketWith(t, inner, cipher, nil)
			b := newBucketWith(t, inner, cipher, &opts)
			for _, size := range []int{0, 1, 100, chunk - 1, chunk, chunk + 1, 2 * chunk, 2*chunk + 500} {
				want := content(size)
				key := fmt.Sprint(size)
				require.NoError(t, writes.WriteAll(ctx, key, want, nil))
				for _, off := range edges {
					for _, n := range append(edges, -1) {
						r, err := b.NewRangeReader(ctx, key, off, n, nil)
						require.NoError(t, err, "%d+%d of %d", off, n, size)
						got, err := io.ReadAll(r)
						require.NoError(t, err)
						from := min(off, int64(size))
						to := int64(size)
						if n >= 0 {
							to = min(from+n, to)
						}
						require.True(t, bytes.Equal(want[from:to], got), "%d+%d of %d", off, n, size)
						require.EqualValues(t, size, r.Size())
						require.NoError(t, r.Close())
					}
				}
			}
		})
	}
}

// TestReaderManners: seeks, small steps, io/fs and iterators read what was written.
func TestReaderManners(t *testing.T) {
	ctx := context.Background()
	for _, store := range stores {
		t.Run(store.Name, func(t *testing.T) {
			b := newBucket(t, store.Open(t), nil)
			want := content(2*chunk + 77)
			require.NoError(t, b.WriteAll(ctx, "dir/k", want, nil))

			r, err := b.NewReader(ctx, "dir/k", nil)
			require.NoError(t, err)
			require.NoError(t, iotest.TestReader(r, want))
			require.NoError(t, r.Close())

			r, err = b.NewRangeReader(ctx, "dir/k", chunk+1, 1000, nil)
			require.NoError(t, err)
			require.NoError(t, iotest.TestReader(r, want[chunk+1:chunk+1001]))
			require.NoError(t, r.Close())

			p, err := fs.ReadFile(b, "dir/k")
			require.NoError(t, err)
			require.True(t, bytes.Equal(want, p))
			info, err := fs.Stat(b, "dir/k")
			require.NoError(t, err)
			require.EqualValues(t, len(want), info.Size())
			var names []string
			require.NoError(t, fs.WalkDir(b, ".", func(path string, _ fs.DirEntry, err error) error {
				names = append(names, path)
				return err
			}))
			require.Equal(t, []string{".", "dir", "dir/k"}, names)

			objects, errs := b.List(nil).All(ctx)
			for o, download := range objects {
				var got bytes.Buffer
				require.EqualValues(t, len(want), o.Size)
				require.NoError(t, download(&got, nil))
				require.True(t, bytes.Equal(want, got.Bytes()))
			}
			require.NoError(t, errs())
			require.NoError(t, fstest.TestFS(b, "dir/k")) // closes the bucket: it opens and closes "."
		})
	}
}

// TestHalfRead: a reader that is closed early leaves nothing behind.
func TestHalfRead(t *testing.T) {
	ctx := context.Background()
	spy, inner := newSpy(t)
	b := newBucket(t, inner, nil)
	require.NoError(t, b.WriteAll(ctx, "k", content(100*chunk), nil))
	var asked []context.Context
	var mu sync.Mutex
	spy.Hook = func(ctx context.Context, _ string) error {
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, ctx)
		return nil
	}
	before := runtime.NumGoroutine()
	for _, off := range []int64{0, 1, 5 * chunk} {
		for _, n := range []int64{-1, 50 * chunk} {
			r, err := b.NewRangeReader(ctx, "k", off, n, nil)
			require.NoError(t, err)
			_, err = io.ReadFull(r, make([]byte, 3*chunk))
			require.NoError(t, err)
			require.NoError(t, r.Close())
		}
	}
	reading, _, _ := spy.State()
	require.Zero(t, reading)
	for _, ctx := range asked {
		require.Error(t, ctx.Err(), "the caller's ctx would hold on to it")
	}
	blobtest.NoneLeft(t, before)
}

// TestCancelRead: the caller's ctx ends all inner requests, whichever wait.
func TestCancelRead(t *testing.T) {
	spy, inner := newSpy(t)
	b := newBucket(t, inner, nil)
	require.NoError(t, b.WriteAll(context.Background(), "k", content(4*chunk), nil))
	ctx, cancel := context.WithCancel(context.Background())
	waiting := make(chan struct{}, 2)
	spy.Hook = func(ctx context.Context, call string) error {
		waiting <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	}
	go func() {
		<-waiting
		<-waiting
		cancel()
	}()
	_, err := b.NewRangeReader(ctx, "k", chunk, chunk, nil)
	require.ErrorIs(t, err, context.Canceled)
	reading, _, _ := spy.State()
	require.Zero(t, reading)

	// And in the middle of a stream.
	spy.Hook = nil
	ctx, cancel = context.WithCancel(context.Background())
	r, err := b.NewReader(ctx, "k", nil)
	require.NoError(t, err)
	_, err = io.ReadFull(r, make([]byte, 10))
	require.NoError(t, err)
	cancel()
	_, err = io.ReadAll(r)
	require.ErrorIs(t, err, context.Canceled)
	require.NoError(t, r.Close())
}

// TestOneFailingRequest: one failing request of a range ends the others, and its
// error is what the caller gets.
func TestOneFailingRequest(t *testing.T) {
	boom := errors.New("boom")
	for fail, name := range []string{"envelope", "chunks", "last chunk"} {
		t.Run(name, func(t *testing.T) {
			spy, inner := newSpy(t)
			b := newBucket(t, inner, nil)
			require.NoError(t, b.WriteAll(context.Background(), "k", content(4*chunk), nil))
			calls := []string{
				fmt.Sprintf("GET k 0 %d", blob.DefaultEnvelopeSize),
				fmt.Sprintf("GET k %d %d", blob.DefaultEnvelopeSize+sealedChunk, sealedChunk),
				fmt.Sprintf("GET k %d %d", blob.DefaultEnvelopeSize+4*sealedChunk, sealedChunk),
			}
			spy.Hook = func(_ context.Context, call string) error {
				if call == calls[fail] {
					return boom
				}
				return nil
			}
			_, err := b.NewRangeReader(context.Background(), "k", chunk, 10, nil)
			require.ErrorIs(t, err, boom)
			reading, _, _ := spy.State()
			require.Zero(t, reading)
		})
	}
}

// TestBrokenAnswer: an answer that breaks off, as a connection that is cut ends with
// io.ErrUnexpectedEOF, is an error, or asked for again, wherever it is.
func TestBrokenAnswer(t *testing.T) {
	ctx := context.Background()
	spy, inner := newSpy(t)
	cipher := sse.NewManaged(newRing(t))
	b := newBucketWith(t, inner, cipher, nil)
	want := content(3*chunk + 5)
	require.NoError(t, b.WriteAll(ctx, "k", want, nil))
	for _, envelope := range []int{500, blob.DefaultEnvelopeSize, 3000} {
		b := newBucketWith(t, inner, cipher, &blob.Options{EnvelopeSize: envelope})
		for _, off := range []int64{0, 10, chunk, 3 * chunk, 5 * chunk} {
			for _, n := range []int64{-1, 0, 7, 2 * chunk} {
				for nth := 1; nth < 6; nth++ {
					var reads atomic.Int32
					spy.Hook = func(_ context.Context, call string) error {
						if call == "read k" && reads.Add(1) == int32(nth) {
							return io.ErrUnexpectedEOF
						}
						return nil
					}
					got, err := readRange(b.Bucket, "k", off, n)
					spy.Hook = nil
					from := min(off, int64(len(want)))
					to := int64(len(want))
					if n >= 0 {
						to = min(from+n, to)
					}
					if err == nil {
						require.True(t, bytes.Equal(want[from:to], got), "%d+%d", off, n)
					} else {
						require.ErrorIs(t, err, io.ErrUnexpectedEOF)
						require.True(t, bytes.HasPrefix(want[from:to], got), "%d+%d", off, n)
					}
					reading, _, _ := spy.State()
					require.Zero(t, reading)
				}
			}
		}
	}
}

// TestFailureEndsTheOther: when one of two requests fails, or the key does, the
// other request is not waited for.
func TestFailureEndsTheOther(t *testing.T) {
	body := func(chunks int64) int64 { return blob.DefaultEnvelopeSize + chunks*sealedChunk }
	for _, test := range []struct {
		name, fails, waits string
		req                blob.Request
		want               error
	}{
		{"the envelope", fmt.Sprintf("GET k 0 %d", blob.DefaultEnvelopeSize), fmt.Sprintf("GET k %d %d", body(1), sealedChunk), blob.Request{}, errBoom},
		{"the key", "", fmt.Sprintf("GET k %d %d", body(4), sealedChunk), blob.Request{Cipher: newCustomer(t, 1)}, sse.ErrMode},
	} {
		t.Run(test.name, func(t *testing.T) {
			spy, inner := newSpy(t)
			b := newBucket(t, inner, nil)
			require.NoError(t, b.WriteAll(context.Background(), "k", content(4*chunk), nil))
			var ended atomic.Bool
			spy.Hook = func(ctx context.Context, call string) error {
				switch call {
				case test.fails:
					return errBoom
				case test.waits:
					select {
					case <-ctx.Done():
						ended.Store(true)
						return ctx.Err()
					case <-time.After(10 * time.Second):
					}
				}
				return nil
			}
			_, err := with(t, b, test.req).NewRangeReader(context.Background(), "k", chunk, 10, nil)
			require.ErrorIs(t, err, test.want)
			require.True(t, ended.Load(), "the other request was not cancelled")
		})
	}
}

// replaceStored puts a stored object in place as it is, with the metadata of another.
func replaceStored(t testing.TB, inner *gcblob.Bucket, key string, p []byte) {
	attrs, err := inner.Attributes(context.Background(), key)
	require.NoError(t, err)
	require.NoError(t, inner.WriteAll(context.Background(), key, p, &gcblob.WriterOptions{
		ContentType: attrs.ContentType, Metadata: attrs.Metadata,
	}))
}

// TestDamage: whatever bit of a stored object is flipped, wherever it is cut, no
// read returns anything but what was written, and none of the whole succeeds. In a
// mixed bucket too: damage never makes an encrypted object plain.
func TestDamage(t *testing.T) {
	ctx := context.Background()
	for _, mixed := range []bool{false, true} {
		t.Run(fmt.Sprintf("mixed=%v", mixed), func(t *testing.T) {
			inner := newMem(t)
			b := newBucket(t, inner, &blob.Options{EnvelopeSize: 320, AllowPlain: mixed})
			want := content(50)
			require.NoError(t, b.WriteAll(ctx, "k", want, nil))
			good := readAll(t, inner, "k")
			check := func(p []byte, what string, at int) {
				replaceStored(t, inner, "k", p)
				_, err := b.ReadAll(ctx, "k")
				require.Error(t, err, "%s %d", what, at)
				require.True(t, isOurs(err), "%s %d: %v", what, at, err)
				got, err := readRange(b.Bucket, "k", 3, 7)
				require.Error(t, err, "%s %d", what, at)
				require.Empty(t, got)
			}
			for bit := range len(good) * 8 {
				bad := bytes.Clone(good)
				bad[bit/8] ^= 1 << (bit % 8)
				check(bad, "bit", bit)
			}
			for n := range len(good) {
				check(good[:n], "cut to", n)
			}
			check(append(bytes.Clone(good), 0), "longer by", 1)
			replaceStored(t, inner, "k", good)
			require.Equal(t, want, readAll(t, b.Bucket, "k"))
		})
	}
}

// isOurs reports whether an error has one of the kinds that damage can be.
func isOurs(err error) bool {
	for _, kind := range []error{sse.ErrFormat, sse.ErrVersion, sse.ErrKey, sse.ErrCorrupt, sse.ErrMode} {
		if errors.Is(err, kind) {
			return true
		}
	}
	return false
}

// TestDamagedChunks: a read returns what is before the damage, or nothing; a cut
// or longer object shows in any range unless that check is waived.
func TestDamagedChunks(t *testing.T) {
	ctx := context.Background()
	inner := newMem(t)
	cipher := sse.NewManaged(newRing(t))
	b := newBucketWith(t, inner, cipher, nil)
	waived := newBucketWith(t, inner, cipher, &blob.Options{SkipLengthCheck: true})
	want := content(3*chunk + 10)
	require.NoError(t, b.WriteAll(ctx, "k", want, nil))
	good := readAll(t, inner, "k")

	flipped := bytes.Clone(good)
	flipped[blob.DefaultEnvelopeSize+sealedChunk+5] ^= 1 // in chunk 1
	replaceStored(t, inner, "k", flipped)
	got, err := readRange(b.Bucket, "k", 0, -1)
	require.ErrorIs(t, err, sse.ErrCorrupt)
	require.Equal(t, gcerrors.Internal, gcerrors.Code(err))
	require.True(t, bytes.Equal(want[:chunk], got))
	_, err = readRange(b.Bucket, "k", chunk+3, 3)
	var where *sse.ChunkError
	require.ErrorAs(t, err, &where)
	require.EqualValues(t, 1, where.Chunk)
	got, err = readRange(b.Bucket, "k", 2*chunk, 3)
	require.NoError(t, err, "another chunk")
	require.Equal(t, want[2*chunk:2*chunk+3], got)

	for name, stored := range map[string][]byte{
		"cut between chunks": good[:blob.DefaultEnvelopeSize+2*sealedChunk],
		"cut in a chunk":     good[:blob.DefaultEnvelopeSize+2*sealedChunk+100],
		"longer":             append(bytes.Clone(good), make([]byte, 20)...),
		"longer by a chunk":  append(bytes.Clone(good), make([]byte, 2*sealedChunk)...),
		"only an envelope":   good[:blob.DefaultEnvelopeSize],
	} {
		t.Run(name, func(t *testing.T) {
			replaceStored(t, inner, "k", stored)
			_, err := b.ReadAll(ctx, "k")
			require.ErrorIs(t, err, sse.ErrCorrupt)
			_, err = readRange(b.Bucket, "k", 10, 10)
			require.ErrorIs(t, err, sse.ErrCorrupt)
			_, err = readRange(b.Bucket, "k", 1<<20, 10)
			require.ErrorIs(t, err, sse.ErrCorrupt, "beyond the end")
			_, err = readRange(waived.Bucket, "k", 1<<20, 10)
			require.ErrorIs(t, err, sse.ErrCorrupt, "beyond the end, whose check is not waived")
			if len(stored) > blob.DefaultEnvelopeSize+2*sealedChunk+16 {
				got, err := readRange(waived.Bucket, "k", 10, 10)
				require.NoError(t, err)
				require.Equal(t, want[10:20], got)
			}
		})
	}
}

// TestTornRead: a range whose requests met two versions is read again; what comes
// is one version, and an object that changes all the time gives ErrChanged or one
// of its versions.
func TestTornRead(t *testing.T) {
	ctx := context.Background()
	spy, inner := newSpy(t)
	b := newBucket(t, inner, nil)
	old, renewed := content(3*chunk), bytes.Repeat([]byte("new"), chunk)
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
	got, err := readRange(b.Bucket, "k", chunk, 10)
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
	got, err = readRange(b.Bucket, "k", chunk, 10)
	require.NoError(t, err)
	require.Equal(t, renewed[chunk:chunk+10], got)

	between(1000)
	_, err = readRange(b.Bucket, "k", chunk, 10)
	require.Error(t, err)
	require.ErrorIs(t, err, blob.ErrChanged)
	require.NotErrorIs(t, err, sse.ErrCorrupt)
}

// TestTornTwice: chunks that are older than their envelope, and then some that are
// newer than the same envelope, are not damage.
func TestTornTwice(t *testing.T) {
	ctx := context.Background()
	spy, inner := newSpy(t)
	spy.Coarse = 1000 * time.Hour // times tell nothing
	b := newBucket(t, inner, nil)
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
	got, err := readRange(b.Bucket, "k", chunk, 10)
	require.NoError(t, err)
	require.Equal(t, version(3)[:10], got)
	require.EqualValues(t, 3, envelopes.Load())
}

// TestMetadataBeforeContent: an object of a mixed bucket that is being encrypted
// in place is not taken for damaged while the store shows its new metadata beside
// its old content.
func TestMetadataBeforeContent(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	inner, err := fileblob.OpenBucket(dir, &fileblob.Options{NoTempDir: true})
	require.NoError(t, err)
	defer inner.Close()
	b := newBucket(t, inner, &blob.Options{AllowPlain: true})
	require.NoError(t, b.WriteAll(ctx, "k", content(chunk), nil))
	name, sealed := filepath.Join(dir, "k"), filepath.Join(dir, "sealed")
	for _, off := range []int64{0, 5} {
		require.NoError(t, os.Rename(name, sealed))
		require.NoError(t, os.WriteFile(name, content(chunk), 0o600)) // and its metadata is there
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
		require.True(t, bytes.Equal(content(chunk)[off:], got))
		require.NoError(t, r.Close())
	}
}

// TestStaleSize: a store of files looks at a file and then opens it. Whichever
// request meets a size of one version and the content of another, what is read is
// one version, of the size that the reader tells.
func TestStaleSize(t *testing.T) {
	ctx := context.Background()
	versions := map[string][]byte{"plain": content(70_000), "small": content(100), "large": content(40_000)}
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
					b := newBucket(t, inner, &blob.Options{AllowPlain: true})
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

// TestSizeIsProved: a store that says another size than the object has is found
// out at the end of the object, if not before, and everywhere by a read that does
// not reach it.
func TestSizeIsProved(t *testing.T) {
	ctx := context.Background()
	const size = 2*chunk + 100
	for _, said := range []int64{1, 50, size - 50, size - 1, size + 1, size + 50, size + 3*chunk} {
		for _, part := range []struct{ off, n int64 }{{0, -1}, {0, 10}, {20, size}, {chunk, -1}, {2 * chunk, 10}, {chunk + 5, 0}, {size * 9, 5}} {
			spy, inner := newSpy(t)
			b := newBucket(t, inner, nil)
			require.NoError(t, b.WriteAll(ctx, "k", content(size), nil))
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
				require.True(t, bytes.HasPrefix(content(size)[min(part.off, size):], got.Bytes()))
			}
			require.Error(t, b.Download(ctx, "k", io.Discard, nil))
		}
	}
}

// TestTornAfterChanges: attempts that met two sizes do not bear out that what a later
// one met is damage.
func TestTornAfterChanges(t *testing.T) {
	ctx := context.Background()
	spy, inner := newSpy(t)
	spy.Coarse = 1000 * time.Hour // times tell nothing
	b := newBucket(t, inner, &blob.Options{SkipLengthCheck: true})
	require.NoError(t, b.WriteAll(ctx, "k", content(3*chunk), nil))
	good := readAll(t, inner, "k")
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
	got, err := readRange(b.Bucket, "k", chunk, 10)
	require.NoError(t, err)
	require.Equal(t, content(3 * chunk)[chunk:chunk+10], got)
	require.EqualValues(t, 4, chunks.Load())
}
