package s3test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	gcblob "gocloud.dev/blob"
	"gocloud.dev/gcerrors"

	"github.com/blobseal/blobseal/blob"
	"github.com/blobseal/blobseal/blob/jobs"
	"github.com/blobseal/blobseal/blob/stored"
	"github.com/blobseal/blobseal/sse"
)

const (
	envelope    = blob.DefaultEnvelopeSize
	chunk       = 16384
	sealedChunk = chunk + 16
)

// TestRequests: each operation sends exactly the requests that the package's doc describes.
func TestRequests(t *testing.T) {
	ctx := context.Background()
	eachServer(t, func(t *testing.T, s *server) {
		w := new(wire)
		inner := s.open(t, s.newBucket(t), w)
		cipher := modes[0].cipher(t)
		b := encrypted(t, inner, cipher, nil)
		waived := encrypted(t, inner, cipher, &blob.Options{SkipLengthCheck: true})
		looking := encrypted(t, inner, cipher, &blob.Options{LookWhenListing: true})
		conditional := encrypted(t, inner, cipher, &blob.Options{IfUnchanged: ifMatch})
		data := content(5*chunk + 100)
		require.NoError(t, b.WriteAll(ctx, "o", data, nil))
		require.NoError(t, b.WriteAll(ctx, "small", []byte("small"), nil))

		read := func(b *blob.Bucket, off, n int64) func(*testing.T) {
			return func(t *testing.T) {
				got, err := readPart(b, "o", off, n)
				require.NoError(t, err)
				want := data[off:]
				if n >= 0 {
					want = want[:n]
				}
				require.True(t, bytes.Equal(want, got))
			}
		}
		rewrap := func(b *blob.Bucket, key string) func(*testing.T) {
			return func(t *testing.T) {
				report, err := jobs.Rewrap(ctx, b, &jobs.RewrapOptions{Force: true, Filter: jobs.Filter{Prefix: key}})
				require.NoError(t, err)
				require.Equal(t, int64(1), report.Done)
			}
		}
		// chunks is a request for chunks of the stored object, from one to before
		// another, or to the end.
		chunks := func(from, to int) string {
			if to < 0 {
				return fmt.Sprintf("GetObject %d-", envelope+from*sealedChunk)
			}
			return fmt.Sprintf("GetObject %d-%d", envelope+from*sealedChunk, envelope+to*sealedChunk-1)
		}
		head := fmt.Sprintf("GetObject 0-%d", envelope-1)
		headAndFirst := fmt.Sprintf("GetObject 0-%d", envelope+sealedChunk-1)
		tail := chunks(5, 6)

		for _, c := range []struct {
			name string
			do   func(t *testing.T)
			want []string
		}{
			{"write", func(t *testing.T) { require.NoError(t, b.WriteAll(ctx, "new", data, nil)) }, []string{"PutObject"}},
			{"write nothing", func(t *testing.T) { require.NoError(t, b.WriteAll(ctx, "new", nil, nil)) }, []string{"PutObject"}},
			{"upload", func(t *testing.T) {
				require.NoError(t, b.Upload(ctx, "new", bytes.NewReader(data), &gcblob.WriterOptions{ContentType: "text/plain"}))
			}, []string{"PutObject"}},
			{"write if not there", func(t *testing.T) {
				require.NoError(t, b.WriteAll(ctx, "first", data, &gcblob.WriterOptions{IfNotExist: true}))
			}, []string{"PutObject"}},
			{"write if not there, and it is", func(t *testing.T) {
				err := b.WriteAll(ctx, "first", data, &gcblob.WriterOptions{IfNotExist: true})
				require.Equal(t, gcerrors.FailedPrecondition, gcerrors.Code(err), "%v", err)
			}, []string{"PutObject"}},
			{"read", read(b, 0, -1), []string{"GetObject"}},
			{"download", func(t *testing.T) {
				var got bytes.Buffer
				require.NoError(t, b.Download(ctx, "o", &got, nil))
				require.True(t, bytes.Equal(data, got.Bytes()))
			}, []string{"GetObject"}},
			{"read in the middle", read(b, chunk+1, 10), []string{head, chunks(1, 2), tail}},
			{"read across chunks", read(b, 2*chunk-1, 2), []string{head, chunks(1, 3), tail}},
			{"read at the beginning", read(b, 5, 10), []string{headAndFirst, tail}},
			{"read to the end", read(b, 4*chunk, -1), []string{head, chunks(4, -1)}},
			{"read in the last chunk", read(b, 5*chunk+10, 20), []string{head, chunks(5, 6)}},
			{"waived, read in the middle", read(waived, chunk+1, 10), []string{head, chunks(1, 2)}},
			{"waived, read at the beginning", read(waived, 5, 10), []string{headAndFirst}},
			{"attributes", func(t *testing.T) {
				a, err := b.Attributes(ctx, "o")
				require.NoError(t, err)
				require.Equal(t, int64(len(data)), a.Size)
			}, []string{"HeadObject"}},
			{"exists", func(t *testing.T) {
				ok, err := b.Exists(ctx, "nothing")
				require.NoError(t, err)
				require.False(t, ok)
			}, []string{"HeadObject"}},
			{"a page of a list", func(t *testing.T) {
				page, next, err := b.ListPage(ctx, gcblob.FirstPageToken, 2, nil)
				require.NoError(t, err)
				require.Len(t, page, 2)
				require.NotEmpty(t, next)
				require.Equal(t, int64(len(data)), page[0].Size) // "first"
				require.Equal(t, int64(len(data)), page[1].Size) // "new"
			}, []string{"ListObjectsV2"}},
			{"a page of a list, with a look at each object", func(t *testing.T) {
				page, _, err := looking.ListPage(ctx, gcblob.FirstPageToken, 2, nil)
				require.NoError(t, err)
				require.Len(t, page, 2)
			}, []string{head, head, "ListObjectsV2"}},
			{"inventory of four", func(t *testing.T) {
				for e, err := range jobs.Inventory(ctx, b, nil) {
					require.NoError(t, err)
					require.Equal(t, stored.KindEncrypted, e.Kind)
				}
			}, []string{head, head, head, head, "ListObjectsV2"}},
			{"rewrap", rewrap(b, "small"), []string{"GetObject", head, "HeadObject", "HeadObject", "ListObjectsV2", "PutObject"}},
			{"rewrap, on condition", rewrap(conditional, "small"), []string{"GetObject", "HeadObject", "HeadObject", "ListObjectsV2", "PutObject"}},
			// The head of a larger object is looked at by itself.
			{"rewrap of a larger one", rewrap(b, "first"), []string{"GetObject", head, head, "HeadObject", "HeadObject", "ListObjectsV2", "PutObject"}},
			{"copy", func(t *testing.T) { require.NoError(t, b.Copy(ctx, "copy", "o", nil)) },
				[]string{"GetObject", "HeadObject", "HeadObject", "PutObject"}},
			// s3blob looks first whether the object is there, which S3 does not tell.
			{"delete", func(t *testing.T) { require.NoError(t, b.Delete(ctx, "copy")) }, []string{"DeleteObject", "HeadObject"}},
		} {
			t.Run(c.name, func(t *testing.T) {
				w.take()
				c.do(t)
				requests := w.take()
				require.Equal(t, c.want, ops(requests))
				for _, r := range requests {
					if r.op+" "+r.rng == tail {
						require.LessOrEqual(t, r.received.Load(), int64(sealedChunk))
					}
				}
			})
		}
	})
}

// TestRangeSideBySide: of a range's first two requests, neither waits for the other.
func TestRangeSideBySide(t *testing.T) {
	s := startFake(t)
	w := new(wire)
	b := encrypted(t, s.open(t, s.newBucket(t), w), nil, &blob.Options{SkipLengthCheck: true})
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	require.NoError(t, b.WriteAll(ctx, "o", content(3*chunk), nil))
	meet := meeting(ctx, 2)
	w.observe(func(*request) { meet() })
	r, err := b.NewRangeReader(ctx, "o", chunk, 10, nil)
	require.NoError(t, err)
	require.NoError(t, r.Close())
}

// TestReadAcrossAReplacement: an object is replaced between the requests of a read, in the
// same second and by one of the same size. It is read again.
func TestReadAcrossAReplacement(t *testing.T) {
	ctx := context.Background()
	eachServer(t, func(t *testing.T, s *server) {
		for nth := range 3 { // the one before which it is replaced
			t.Run(fmt.Sprint(nth), func(t *testing.T) {
				w := new(wire)
				name := s.newBucket(t)
				cipher := modes[0].cipher(t)
				ours, theirs := encrypted(t, s.open(t, name, w), cipher, nil), encrypted(t, s.open(t, name, nil), cipher, nil)
				before, after := content(4*chunk), text(4*chunk)
				require.NoError(t, ours.WriteAll(ctx, "o", before, nil))
				replaced := w.beforeRequest(nth, func() error { return theirs.WriteAll(ctx, "o", after, nil) })
				got, err := readPart(ours, "o", chunk, 50)
				require.NoError(t, err)
				require.NoError(t, replaced(), "it was not replaced")
				require.Equal(t, after[chunk:][:50], got)
			})
		}
	})
}

// TestLargeWrites: from 16 MiB, s3blob writes parts of 8 MiB.
func TestLargeWrites(t *testing.T) {
	ctx := context.Background()
	eachServer(t, func(t *testing.T, s *server) {
		w := new(wire)
		inner := s.open(t, s.newBucket(t), w)
		data := content(17<<20 + 5)
		for _, mode := range modes {
			t.Run(mode.name, func(t *testing.T) {
				b := encrypted(t, inner, mode.cipher(t), &blob.Options{Policy: mode.policy})
				w.take()
				require.NoError(t, b.WriteAll(ctx, mode.name, data, nil))
				require.Equal(t, []string{"CompleteMultipartUpload", "CreateMultipartUpload", "UploadPart", "UploadPart", "UploadPart"}, ops(w.take()))
				requireObject(t, b, mode.name, data)
				got, err := readPart(b, mode.name, 8<<20-100, 200)
				require.NoError(t, err)
				require.Equal(t, data[8<<20-100:][:200], got)

				w.take()
				require.NoError(t, b.Copy(ctx, mode.name+"-copy", mode.name, nil))
				require.Equal(t, []string{"CompleteMultipartUpload", "CreateMultipartUpload", "GetObject", "HeadObject", "HeadObject",
					"UploadPart", "UploadPart", "UploadPart"}, ops(w.take()))
				requireObject(t, b, mode.name+"-copy", data)
			})
		}
	})
}

// TestSmallReadOfLargeObject: reading 4 KiB of 1 GiB transfers less than 64 KiB, headers
// included, even if the bytes are in two chunks and the last chunk has the maximum length.
func TestSmallReadOfLargeObject(t *testing.T) {
	const size = 1<<30 - 1
	ctx := context.Background()
	s := startVersity(t)
	name := s.newBucket(t)
	w := new(wire)
	inner := s.open(t, name, w)
	cipher := modes[0].cipher(t)
	b := encrypted(t, inner, cipher, nil)

	// The object is written through the server while it is small, for its
	// metadata, and then to the file: a gigabyte through S3 takes too long.
	require.NoError(t, b.WriteAll(ctx, "large", nil, nil))
	enc, err := cipher.Encrypt(ctx, sse.Object{Bucket: bucketName, Key: "large"})
	require.NoError(t, err)
	env, err := enc.Envelope().WithSize(envelope)
	require.NoError(t, err)
	head, err := env.MarshalBinary()
	require.NoError(t, err)
	f, err := os.OpenFile(filepath.Join(s.dir, name, "large"), os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = f.Write(head)
	require.NoError(t, err)
	body := enc.Writer(f)
	_, err = io.Copy(body, io.LimitReader(zeros{}, size))
	require.NoError(t, err)
	require.NoError(t, body.Close())
	require.NoError(t, f.Close())
	a, err := b.Attributes(ctx, "large")
	require.NoError(t, err)
	require.Equal(t, int64(size), a.Size)

	w.take()
	before := s.moved.Load()
	got, err := readPart(b, "large", 30_000*chunk-2048, 4096)
	require.NoError(t, err)
	require.Equal(t, make([]byte, 4096), got)
	require.Len(t, w.take(), 3)
	moved := s.moved.Load() - before
	t.Logf("%d bytes moved", moved)
	require.Less(t, moved, int64(64<<10))
	require.Greater(t, moved, int64(3*sealedChunk), "the count does not work")
}

// zeros is an endless reader.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
